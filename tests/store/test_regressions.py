"""What an adversary found: each test failed before the fix that it stands for."""

import threading
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import numpy as np
import psycopg
import pytest
from psycopg import sql

from chunkstore import rows
from chunkstore.collection import Collection
from chunkstore.errors import ServerUnreachable
from chunkstore.model import Chunk
from chunkstore.models import open_model
from chunkstore.models.protocol import Distance
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.indexes import INDEX_FROM_ROWS, REBUILD_FROM_DEAD
from projections.projector import Projector
from projections.verify import verify
from tests.store.fix_store import MODEL

HASHING = open_model(MODEL)


class RefusesBad:
    """The hashing model, but for the text `bad`."""

    name: str = HASHING.name
    dimensions: int = HASHING.dimensions
    distance: Distance = HASHING.distance

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if "bad" in texts:
            raise ValueError("refused")
        return HASHING.embed(texts)


async def drain(store: ChunkStore) -> None:
    await EmbeddingConsumer(store, RefusesBad()).run(drain=True)
    await Projector(store, HASHING.name).run(drain=True)


async def value(store: ChunkStore, statement: str, **params: Any) -> Any:
    async with store.database.transaction() as conn:
        return await rows.fetch_value(conn, statement.encode(), params or None)


async def search_table(store: ChunkStore) -> str:
    """The only one."""
    return await value(store, "SELECT search_table FROM collection_models")


async def search_rows(collection: Collection) -> int:
    store = collection.store
    return await value(store, f"SELECT count(*) FROM {await search_table(store)}")


# --- superseded search rows (rule 18) -----------------------------------------------------------


async def test_a_rollback_from_a_version_that_never_became_active_leaves_no_search_row(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", [Chunk("one")])
    await drain(store)
    await collection.append("doc", [Chunk("good"), Chunk("bad")])
    await drain(store)
    assert await search_rows(collection) == 2
    await collection.rollback("doc", 1)
    await drain(store)
    assert await search_rows(collection) == 1


async def test_a_version_that_is_superseded_at_birth_leaves_no_search_row(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 600)

    async def slow() -> AsyncIterator[Chunk]:
        for i in range(2401):  # a segment has 2,000 at most
            yield Chunk(f"slow {i}")
        await drain(store)
        assert await search_rows(collection) > 0
        await collection.append("doc", [Chunk("newer")])
        await drain(store)

    version = await collection.append("doc", slow())
    assert version.number == 1
    await drain(store)
    assert [v.number for v in await collection.history("doc") if v.active] == [2]
    assert await search_rows(collection) == 1


async def test_an_abandoned_version_leaves_no_search_row_of_a_chunk_that_history_keeps(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 600)
    await collection.append("doc", [Chunk("kept")])
    await collection.append("doc", [Chunk("now")])
    await drain(store)

    async def broken() -> AsyncIterator[Chunk]:
        yield Chunk("kept")
        for i in range(2401):  # a segment has 2,000 at most
            yield Chunk(f"lost {i}")
        await drain(store)
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="gone"):
        await collection.append("doc", broken())
    await drain(store)
    await collect(store)
    assert await search_rows(collection) == 1


# --- chunks that are taken back (rule 10) -------------------------------------------------------


async def test_a_chunk_that_is_taken_back_comes_back_to_the_version_that_is_active_without_it(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", [Chunk("bad")])
    await drain(store)
    (letter,) = await collection.dead_letters()
    await collection.discard(letter.chunk_id)
    await drain(store)
    await collection.append("doc", [Chunk("two")])
    await collection.retry(letter.chunk_id)
    await collection.append("doc", [Chunk("three")])
    await EmbeddingConsumer(store, HASHING).run(drain=True)
    await collection.rollback("doc", 1)
    await EmbeddingConsumer(store, HASHING).run(drain=True)
    await project(store)
    assert [(hit.content, hit.version) for hit in await collection.search("bad")] == [("bad", 1)]
    assert (await verify(store)).ok


# --- the projector ------------------------------------------------------------------------------


async def blocked(store: ChunkStore, by: int) -> int:
    """A backend that waits for another, once there is one."""
    while True:
        found = await value(
            store,
            "SELECT min(pid) FROM pg_stat_activity WHERE %(by)s::integer = ANY (pg_blocking_pids(pid))",
            by=by,
        )
        if found is not None:
            return found
        await anyio.sleep(0.005)


async def test_a_projector_whose_connection_broke_goes_on_at_once(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", [Chunk("one")])
    await EmbeddingConsumer(store, HASHING).run(drain=True)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, store.database.transaction() as holder:
            await holder.execute("SELECT FROM files FOR UPDATE")
            tasks.start_soon(project, store)
            waiting = await blocked(store, holder.info.backend_pid)
            await value(store, "SELECT pg_terminate_backend(%(pid)s)", pid=waiting)
    assert [v.active for v in await collection.history("doc")] == [True]


async def test_a_projector_that_was_cancelled_leaves_its_checkpoint_to_the_next(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", [Chunk("one")])
    await EmbeddingConsumer(store, HASHING).run(drain=True)
    async with anyio.create_task_group() as tasks, store.database.transaction() as holder:
        await holder.execute("SELECT FROM files FOR UPDATE")
        tasks.start_soon(project, store)
        await blocked(store, holder.info.backend_pid)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(20):
        await project(store)
    assert [v.active for v in await collection.history("doc")] == [True]


async def project(store: ChunkStore) -> None:
    await Projector(store, HASHING.name).run(drain=True)


# --- indexes ------------------------------------------------------------------------------------


async def indexes_of(store: ChunkStore, table: str) -> dict[str, int]:
    """The valid and invalid vector indexes of a search table, by name, with their object number."""
    async with store.database.transaction() as conn:
        cursor = await conn.execute(
            b"SELECT i.relname, i.oid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
            b" JOIN pg_am am ON am.oid = i.relam AND am.amname = 'hnsw' WHERE x.indrelid = to_regclass(%s)",
            [table],
        )
        return dict(await cursor.fetchall())


async def test_what_a_killed_rebuild_of_an_index_left_is_dropped_and_the_index_stays(
    store: ChunkStore, collection: Collection
) -> None:
    table = await indexed(store, collection)
    before = await indexes_of(store, table)
    async with store.database.transaction() as holder:
        await holder.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(table)))
        async with store.database.connection() as conn:
            await conn.execute("SET statement_timeout = '500ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                await conn.execute(f"REINDEX INDEX CONCURRENTLY {table}_hnsw".encode())
    assert len(await indexes_of(store, table)) == 2
    await project(store)
    assert await indexes_of(store, table) == before


async def test_autovacuum_does_not_forget_dead_rows_before_the_collector_counts_them(
    store: ChunkStore, collection: Collection
) -> None:
    table = await indexed(store, collection)
    options = "SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE oid = to_regclass(%(table)s)"
    found = dict(option.split("=") for option in (await value(store, options, table=table)).split())
    due = REBUILD_FROM_DEAD / (1 - REBUILD_FROM_DEAD)
    assert float(found["autovacuum_vacuum_scale_factor"]) > due
    assert found["autovacuum_vacuum_insert_threshold"] == "-1"
    assert found["vacuum_index_cleanup"] == "off"


async def test_a_search_table_without_an_index_is_vacuumed_as_any_table(
    store: ChunkStore, collection: Collection
) -> None:
    table = await search_table(store)
    options = "SELECT reloptions FROM pg_class WHERE oid = to_regclass(%(table)s)"
    assert await value(store, options, table=table) is None


async def indexed(store: ChunkStore, collection: Collection) -> str:
    """Fills the collection until its search table has an index; returns the table's name."""
    await collection.append("doc", [Chunk(f"text {i}") for i in range(INDEX_FROM_ROWS)])
    await EmbeddingConsumer(store, HASHING, batch=1024).run(drain=True)
    await project(store)
    table = await search_table(store)
    assert list(await indexes_of(store, table)) == [f"{table}_hnsw"]
    return table


# --- the text that a model is given -------------------------------------------------------------


async def test_headings_give_the_same_text_hash_as_the_text_that_the_model_reads(
    store: ChunkStore, collection: Collection
) -> None:
    read: list[str] = []

    class Reads(RefusesBad):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            read.extend(texts)
            return HASHING.embed(texts)

    await collection.append(
        "doc",
        [
            Chunk("body"),
            Chunk("body", {"headings": ("A", "B")}),
            Chunk("body", {"headings": [1e16]}),
            Chunk("body", {"headings": ["A", "B"]}),
        ],
    )
    await EmbeddingConsumer(store, Reads()).run(drain=True)
    hashes = await value(store, "SELECT count(DISTINCT text_hash) FROM chunks")
    assert sorted(read) == ["A > B\n\nbody", "body"]
    assert hashes == 2


# --- waiting ------------------------------------------------------------------------------------


async def test_waiting_for_a_version_asks_for_the_dead_letters_of_what_replaced_it(
    store: ChunkStore, collection: Collection
) -> None:
    first = await collection.append("doc", [Chunk("bad")])
    await drain(store)
    await collection.append("doc", [Chunk("good")])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, store)
        await collection.wait_until_active(first, timeout=20)


async def test_a_collection_learns_of_a_model_that_was_added_elsewhere(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", [Chunk("one")])
    other = await store.collection("docs")
    await other.add_model("hashing:16")
    added = open_model("hashing:16")
    await EmbeddingConsumer(store, added).run(drain=True)
    await Projector(store, added.name).run(drain=True)
    assert [hit.content for hit in await collection.search([1.0] * 16, model=added.name)] == ["one"]


# --- stopping and renewing ----------------------------------------------------------------------


async def test_a_stop_ends_the_tries_while_the_server_is_away() -> None:
    stop = anyio.Event()
    tries = 0

    async def step() -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            stop.set()
        raise ServerUnreachable("away")

    with anyio.fail_after(10), pytest.raises(ServerUnreachable):
        await persistently(step, stop)
    assert tries == 3


async def test_a_consumer_that_takes_its_own_lost_range_again_renews_it(
    store: ChunkStore, collection: Collection
) -> None:
    await collection.append("doc", [Chunk("one")])
    asked = [anyio.Event(), anyio.Event()]
    answer = [threading.Event(), threading.Event()]

    class Blocks(RefusesBad):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            call = sum(event.is_set() for event in asked)
            anyio.from_thread.run_sync(asked[call].set)
            assert answer[call].wait(30)
            return HASHING.embed(texts)

    async def until(statement: str, **params: Any) -> Any:
        while True:
            found = await value(store, statement, **params)
            if found:
                return found
            await anyio.sleep(0.01)

    consumer = EmbeddingConsumer(store, Blocks(), lease_seconds=1.5)
    try:
        with anyio.fail_after(25):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(consumer.run, drain=True))
                await asked[0].wait()
                # Lost as if it had expired, and taken over by the same consumer.
                await value(store, "UPDATE leases SET expires = '-infinity' RETURNING lo")
                expires = await until("SELECT expires FROM leases WHERE epoch = 2")
                answer[0].set()
                await asked[1].wait()
                await until(
                    "SELECT lo + 1 FROM leases WHERE epoch = 2 AND expires > %(later)s",
                    later=expires + timedelta(seconds=1.2),
                )
                answer[1].set()
    finally:
        for event in answer:
            event.set()
    assert await value(store, "SELECT max(epoch) FROM leases") == 2


async def test_a_row_of_the_log_that_nobody_can_read_stops_no_projector(store: ChunkStore) -> None:
    docs = await store.collection("docs", MODEL)
    await docs.append("a", [Chunk("one")])
    async with store.database.transaction() as conn:
        await conn.execute(
            """INSERT INTO events (partition, last_offset, n, type, file, version, data)
               SELECT f.partition, max(e.last_offset) + 1, 1, 'target_changed', f.file, 1, '"x"'
               FROM files f JOIN events e USING (partition)
               GROUP BY f.file"""
        )
    version = await docs.append("a", [Chunk("two")])
    await drain(store)
    await docs.wait_until_active(version, timeout=5)
    broken = {check.name for check in (await verify(store)).broken}
    assert broken == {"event_shapes"}
