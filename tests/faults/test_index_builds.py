"""An index build that is killed: searches are exact meanwhile, and the index is found and built again."""

import anyio
import anyio.lowlevel
import pytest

from chunkstore.collection import Collection
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.beside import Beside
from projections.projector import Projector
from projections.rebuild import rebuild
from projections.repack import repack_due
from tests.faults.asking import until, value
from tests.faults.models import MODEL

BROKEN = """
SELECT count(*) = 1
FROM pg_index
WHERE indexrelid = to_regclass('search_1_1_hnsw')
  AND NOT indisvalid
"""

BESIDE = "SELECT to_regclass('search_1_1_hnsw_ccnew') IS NOT NULL"

REBUILD_WAITS = """
SELECT count(*) = 1
FROM pg_locks l
JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory'
  AND (l.classid::bigint << 32 | l.objid::bigint)
      = hashtextextended(current_schema() || '.search_1_1.rebuild', 0)
  AND (a.wait_event_type = 'Lock' OR (a.state = 'idle in transaction' AND a.query = 'SELECT'))
"""

KILL = """
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE query LIKE '%CREATE INDEX CONCURRENTLY%'
  AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def embedded(store: ChunkStore, files: Collection, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """200 chunks that are embedded and not active yet, where an index is due from 100 on."""
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 100)
    await files.append("doc", [Chunk(f"text number {number}") for number in range(200)])
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    return files


async def test_a_killed_build_leaves_searches_exact_and_is_done_again(
    store: ChunkStore, embedded: Collection
) -> None:
    projector, stop = Projector(store, MODEL.name), anyio.Event()
    async with store.database.connection() as writer, anyio.create_task_group() as tasks:
        await writer.execute("BEGIN")
        # A writer that does not end holds the build where its index is there and not valid yet.
        await writer.execute("LOCK TABLE search_1_1 IN ROW EXCLUSIVE MODE")
        tasks.start_soon(lambda: projector.run(stop=stop))
        await until(store, BROKEN)
        hits = await embedded.search("text number 77", k=3)
        assert (hits.exact, hits[0].content) == (True, "text number 77")
        assert await value(store, KILL) == 1
        await until(store, BROKEN)
        await writer.execute("COMMIT")
        with anyio.fail_after(30):
            while projector.report.indexes_built < 1:
                await anyio.lowlevel.checkpoint()
        stop.set()
    hits = await embedded.search("text number 77", k=3)
    assert (hits.exact, hits[0].content) == (False, "text number 77")


async def test_a_rebuild_that_waits_for_an_index_lets_it_be_built(
    store: ChunkStore, embedded: Collection
) -> None:
    """Whoever builds one beside its users waits for all who have a snapshot, and the rebuild waits for it."""
    await Projector(store, MODEL.name).run(drain=True)
    (table,) = await indexes._tables(store.database, None)
    async with (
        anyio.create_task_group() as tasks,
        indexes._guarded(store.database, table) as is_free,
        store.database.connection() as builder,
    ):
        assert is_free
        tasks.start_soon(rebuild, store, embedded.name)
        await until(store, REBUILD_WAITS)
        with anyio.fail_after(20):
            await builder.execute("REINDEX INDEX CONCURRENTLY search_1_1_hnsw")
    assert not (await embedded.search("text number 77", k=3)).exact


async def test_a_rebuild_waits_for_an_index_that_the_server_builds_for_a_killed_one(
    store: ChunkStore, embedded: Collection
) -> None:
    """It would wait for it when it drops the killed one's table, with a lock that every sweep needs."""
    await Projector(store, MODEL.name).run(drain=True)
    await Beside(store.database, embedded.row.collection, embedded._serving).begin()
    async with anyio.create_task_group() as tasks, store.database.transaction() as builder:
        await builder.execute(b"LOCK TABLE search_1_1_rebuild IN SHARE UPDATE EXCLUSIVE MODE")
        tasks.start_soon(rebuild, store, embedded.name)
        await until(store, REBUILD_WAITS)
        async with store.database.transaction() as sweep:
            await sweep.execute(b"SELECT FROM collection_models FOR SHARE NOWAIT")
    assert not await value(store, "SELECT to_regclass('search_1_1_rebuild') IS NOT NULL")


async def test_a_rebuild_that_outlives_its_process_is_left_alone(
    store: ChunkStore, embedded: Collection
) -> None:
    await Projector(store, MODEL.name).run(drain=True)
    async with store.database.connection() as writer, anyio.create_task_group() as tasks:
        await writer.execute("BEGIN")
        await writer.execute("LOCK TABLE search_1_1 IN ROW EXCLUSIVE MODE")  # the rebuild waits for its end
        # The server's process goes on when its client is killed: nobody holds the builder's lock then.
        tasks.start_soon(rebuilt_by_nobody, store)
        await until(store, BESIDE)
        with anyio.fail_after(10):
            assert await indexes.build_due(store.database, 1) == 0
            assert await repack_due(store.database) == 0
        assert await value(store, BESIDE)
        await writer.execute("COMMIT")
    assert not await value(store, BESIDE)
    hits = await embedded.search("text number 77", k=3)
    assert (hits.exact, hits[0].content) == (False, "text number 77")


async def test_what_a_killed_build_left_goes_though_the_table_needs_no_index(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", [Chunk(f"text number {number}") for number in range(20)])
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    create = "CREATE INDEX search_1_1_hnsw ON search_1_1 USING hnsw (embedding halfvec_cosine_ops)"
    async with store.database.connection() as conn:
        await conn.execute(create.encode())
        await conn.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'search_1_1_hnsw'::regclass"
        )
    assert await value(store, BROKEN)
    await Projector(store, MODEL.name).run(drain=True)
    assert not await value(store, "SELECT to_regclass('search_1_1_hnsw') IS NOT NULL")


async def rebuilt_by_nobody(store: ChunkStore) -> None:
    async with store.database.connection() as conn:
        await conn.execute("REINDEX INDEX CONCURRENTLY search_1_1_hnsw")


async def test_no_switch_waits_for_a_build_and_neither_does_a_stop(
    store: ChunkStore, embedded: Collection
) -> None:
    stop = anyio.Event()
    async with store.database.connection() as writer:
        await writer.execute("BEGIN")
        await writer.execute("LOCK TABLE search_1_1 IN ROW EXCLUSIVE MODE")  # the build waits for its end
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: Projector(store, MODEL.name).run(stop=stop))
            await until(store, BROKEN)
            version = await embedded.append("other", [Chunk("text of another")])
            await EmbeddingConsumer(store, MODEL).run(drain=True)
            await embedded.wait_until_active(version, timeout=30)
            stop.set()
        assert await value(store, BROKEN)
        await writer.execute("COMMIT")
    assert (await Projector(store, MODEL.name).run(drain=True)).indexes_built == 1
