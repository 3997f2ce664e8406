"""A collection leaves a search table and an index as large as what they hold, and searches as they were."""

import anyio
import pytest
from psycopg.conninfo import make_conninfo

from chunkstore import Chunk, ChunkStore, Collection
from chunkstore.errors import Conflict
from projections import indexes, repack
from projections.beside import Beside
from projections.collector import collect
from projections.rebuild import rebuild
from projections.repack import repack_due
from projections.verify import verify
from tests.faults.asking import until, value
from tests.faults.models import MODEL
from tests.store.fix_pipeline import docs, drain
from tests.store.fix_store import store

__all__ = ["docs", "store"]

CHUNKS = 3_000
TABLES_BESIDE = (
    "SELECT count(*) FROM pg_tables WHERE tablename LIKE '%\\_rebuild' AND schemaname = current_schema()"
)


async def ingest(store: ChunkStore, docs: Collection, turn: int) -> None:
    """Replaces every chunk, and has what was superseded removed from the search table."""
    await docs.append("doc", [Chunk(f"text {turn} {number}") for number in range(CHUNKS)])
    await drain(store)


@pytest.fixture
async def stale(store: ChunkStore, docs: Collection, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """A collection that was ingested anew three times since its index was built."""
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 1_000)
    for turn in range(4):
        await ingest(store, docs, turn)
    assert not (await docs.search(MODEL.embed(["text 3 77"])[0])).exact
    return docs


COUNTED = """
SELECT pg_stat_get_dead_tuples(t.oid) >= pg_stat_get_live_tuples(t.oid)
FROM pg_class t
WHERE t.oid = 'search_1_1'::regclass
"""
SWAPS = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
ROWS = "SELECT md5(string_agg(chunk_id || embedding::text, ',' ORDER BY chunk_id)) FROM search_1_1"


async def collected(store: ChunkStore) -> int:
    """Collects when the server has counted the dead rows, which it does a moment late."""
    await until(store, COUNTED)
    return (await collect(store)).indexes_rebuilt


SIZE = "SELECT pg_table_size('search_1_1') + pg_indexes_size('search_1_1')"
OID = "SELECT 'search_1_1'::regclass::oid::bigint"
ALONE = "SELECT pg_relation_size('search_1_1')"


async def test_after_a_collection_the_table_and_its_indexes_are_as_large_as_at_first(
    store: ChunkStore, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 1_000)
    await ingest(store, docs, 0)
    at_first = await value(store, SIZE)
    for turn in range(1, 4):
        await ingest(store, docs, turn)
    assert await value(store, SIZE) > 1.5 * at_first
    assert await collected(store) == 1
    assert await value(store, SIZE) == pytest.approx(at_first, rel=0.1)
    hits = await docs.search(MODEL.embed(["text 3 77"])[0], k=5)
    assert (hits.exact, hits[0].content) == (False, "text 3 77")
    assert (await verify(store)).ok


async def test_a_table_of_which_little_is_dead_is_left_alone(store: ChunkStore, stale: Collection) -> None:
    assert await collected(store) == 1
    oid = await value(store, OID)
    assert (await collect(store)).indexes_rebuilt == 0
    assert await value(store, OID) == oid


async def test_a_role_that_only_maintains_the_table_rebuilds_its_index_in_place(
    store: ChunkStore, stale: Collection
) -> None:
    await until(store, COUNTED)
    (table,) = await indexes.due_for_renewal(store.database)
    size = await value(store, ALONE)
    assert await indexes.rebuild(store.database, table)
    assert await value(store, ALONE) >= size / 2
    assert not (await stale.search(MODEL.embed(["text 3 77"])[0])).exact


async def test_a_killed_repack_changes_nothing_and_the_next_collection_does_it(
    store: ChunkStore, stale: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: object) -> bool:
        raise ZeroDivisionError

    await until(store, COUNTED)
    before = await value(store, ROWS)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(indexes, "build_beside", killed)
        await repack_due(store.database)
    assert await value(store, TABLES_BESIDE) == 2
    assert await value(store, ROWS) == before
    assert await collected(store) == 1
    assert await value(store, TABLES_BESIDE) == 0
    assert await value(store, ROWS) == before
    assert (await verify(store)).ok


async def test_a_repack_whose_tables_were_dropped_leaves_the_live_one(
    store: ChunkStore, stale: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken_for_abandoned(*_: object) -> None:
        raise Conflict("the tables were dropped")

    await until(store, COUNTED)
    before = await value(store, ROWS)
    monkeypatch.setattr(Beside, "hold", taken_for_abandoned)
    assert await repack_due(store.database) == 0
    assert await value(store, ROWS) == before


@pytest.mark.parametrize("lock", ["'.search_1_1_hnsw'", "'.search_1_1.rebuild'"])
async def test_a_repack_leaves_a_table_to_whoever_is_at_it(
    store: ChunkStore, stale: Collection, lock: str
) -> None:
    await until(store, COUNTED)
    async with store.database.transaction() as other:
        await other.execute(
            f"SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || {lock}, 0))".encode()
        )
        assert await repack_due(store.database) == 0
    assert await repack_due(store.database) == 1


async def test_a_table_is_not_repacked_twice_by_two_who_both_saw_it_due(
    store: ChunkStore, stale: Collection
) -> None:
    await until(store, COUNTED)
    (table,) = await indexes.due_for_renewal(store.database)
    assert await repack._repack(store.database, table)
    assert not await repack._repack(store.database, table)


async def test_a_killed_repack_whose_index_is_still_being_built_is_left_alone(
    store: ChunkStore, stale: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes on with a statement whose client is gone; dropping the table would wait for it."""

    async def killed(*_: object) -> bool:
        raise ZeroDivisionError

    await until(store, COUNTED)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(indexes, "build_beside", killed)
        await repack_due(store.database)
    async with store.database.transaction() as builder:
        await builder.execute(b"LOCK TABLE search_1_1_rebuild IN SHARE UPDATE EXCLUSIVE MODE")
        with anyio.fail_after(10):
            assert (await collect(store)).indexes_rebuilt == 0
    assert (await collect(store)).indexes_rebuilt == 1


async def test_a_table_that_somebody_reads_for_long_is_left_for_later(
    store: ChunkStore, stale: Collection
) -> None:
    await until(store, COUNTED)
    async with store.database.transaction() as dump:
        await dump.execute(b"SELECT FROM search_1_1 LIMIT 1")
        assert await repack_due(store.database) == 0
    assert await repack_due(store.database) == 1


async def test_a_repack_that_cannot_begin_is_left_for_later(store: ChunkStore, stale: Collection) -> None:
    await until(store, COUNTED)
    async with store.database.transaction() as sweep:
        await sweep.execute(b"SELECT FROM collection_models FOR SHARE")
        assert await repack_due(store.database) == 0
    assert await repack_due(store.database) == 1


async def test_a_swap_gives_way_to_a_reader_so_that_searches_go_on(
    store: ChunkStore, stale: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overlooked(*_: object) -> bool:
        return False

    monkeypatch.setattr(repack, "_is_held_for_long", overlooked)
    monkeypatch.setattr(repack, "_SWAPS", 2)
    await until(store, COUNTED)
    (table,) = await indexes.due_for_renewal(store.database)
    before, oid = await value(store, ROWS), await value(store, OID)
    async with store.database.transaction() as reader, anyio.create_task_group() as tasks:
        await reader.execute(b"SELECT FROM search_1_1 LIMIT 1")

        async def give_way() -> None:
            with pytest.raises(repack._NotSwapped):
                await repack._repack(store.database, table)
            tasks.cancel_scope.cancel()

        tasks.start_soon(give_way)
        while True:
            with anyio.fail_after(10):
                assert len(await stale.search(MODEL.embed(["text 3 77"])[0], k=5)) == 5
    assert await value(store, TABLES_BESIDE) == 0
    assert (await value(store, ROWS), await value(store, OID)) == (before, oid)


async def test_where_the_server_keeps_the_old_table_its_index_is_rebuilt_in_place(
    store: ChunkStore, stale: Collection
) -> None:
    await until(store, COUNTED)
    before = await value(store, ROWS)
    async with store.database.transaction() as somebody:
        await somebody.execute(b"CREATE VIEW theirs AS SELECT chunk_id FROM search_1_1")
    assert await repack_due(store.database) == 1
    assert await value(store, TABLES_BESIDE) == 0
    assert await value(store, ROWS) == before
    assert await value(store, "SELECT count(*) FROM theirs") == CHUNKS
    assert await indexes.due_for_renewal(store.database) == []


async def test_a_few_dead_rows_are_few_though_the_server_has_forgotten_the_others(
    store: ChunkStore, stale: Collection
) -> None:
    assert await collected(store) == 1
    await value(store, "SELECT count(pg_stat_reset_single_table_counters('search_1_1'::regclass))")
    async with store.database.transaction() as conn:
        await conn.execute(b"DELETE FROM search_1_1 WHERE chunk_id IN (SELECT min(chunk_id) FROM search_1_1)")
    await until(store, "SELECT pg_stat_get_dead_tuples('search_1_1'::regclass) > 0")
    assert await indexes.due_for_renewal(store.database) == []


async def test_a_session_of_another_isolation_level_holds_no_snapshot(
    store: ChunkStore, stale: Collection, dsn: str, schema: str
) -> None:
    """The build of the index would wait for it, and it for the build."""
    await until(store, COUNTED)
    level = make_conninfo(dsn, options=r"-c default_transaction_isolation=repeatable\ read")
    async with await ChunkStore.open(level, schema=schema) as other:
        with anyio.fail_after(30):
            assert await repack_due(other.database) == 1


async def test_a_pool_of_one_connection_is_enough(
    store: ChunkStore, stale: Collection, dsn: str, schema: str
) -> None:
    await until(store, COUNTED)
    async with await ChunkStore.open(dsn, schema=schema, max_size=1) as small:
        with anyio.fail_after(30):
            assert await repack_due(small.database) == 1


async def test_the_new_table_belongs_to_whom_the_old_one_did(
    store: ChunkStore, stale: Collection, schema: str
) -> None:
    await until(store, COUNTED)
    owner = f"owner_of_{schema}"
    async with store.database.connection() as conn:
        await conn.execute(f"CREATE ROLE {owner}; GRANT CREATE ON SCHEMA {schema} TO {owner}".encode())
        try:
            await conn.execute(f"ALTER TABLE search_1_1 OWNER TO {owner}".encode())
            assert await repack_due(store.database) == 1
            whose = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'search_1_1'::regclass"
            assert await value(store, whose) == owner
        finally:
            await conn.execute(f"DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}".encode())


async def test_a_collection_of_many_batches_is_copied_to_the_last_row(
    store: ChunkStore, stale: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "_ROWS", 7)
    before = await value(store, ROWS)
    await until(store, COUNTED)
    assert await repack_due(store.database) == 1
    assert await value(store, ROWS) == before


async def test_the_swap_of_a_rebuild_gives_way_to_a_reader_too(store: ChunkStore, stale: Collection) -> None:
    done = anyio.Event()

    async def build() -> None:
        await rebuild(store, "docs")
        done.set()

    async with anyio.create_task_group() as tasks:
        async with store.database.transaction() as reader:
            await reader.execute(b"SELECT FROM search_1_1 LIMIT 1")
            tasks.start_soon(build)
            await until(store, SWAPS)
            with anyio.fail_after(10):  # the swap waits for the reader, and searches for the swap no longer
                assert len(await stale.search(MODEL.embed(["text 3 77"])[0], k=5)) == 5
            assert not done.is_set()
        with anyio.fail_after(30):
            await done.wait()
    assert len(await stale.search(MODEL.embed(["text 3 77"])[0], k=5)) == 5


async def test_an_index_is_built_with_a_pool_of_one_connection(
    store: ChunkStore, docs: Collection, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 1_000)
    await docs.append("doc", [Chunk(f"text {number}") for number in range(CHUNKS)])
    async with await ChunkStore.open(dsn, schema=schema, max_size=1) as small:
        with anyio.fail_after(30):
            await drain(small)
    assert not (await docs.search(MODEL.embed(["text 77"])[0])).exact
