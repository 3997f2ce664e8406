"""How a sweep goes through a file: several segments at once, no more chunks than a transaction should."""

from typing import Any

import pytest

from chunkstore import Chunk, ChunkStore, Collection, rows, versions
from chunkstore.errors import Conflict
from chunkstore.status import status
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.collector import COLLECTOR, CollectReport, _Run, _silent, _Swept, collect
from projections.projector import Projector
from projections.rebuild import rebuild
from tests.faults.models import MODEL


async def due_version(collection: Collection, count: int, *, every: int) -> None:
    """A file of three kept versions and one decided on; each changes one chunk in `every`."""
    for version in range(4):
        marks = [version if i % every == 0 else 0 for i in range(count)]
        await collection.append("a", [Chunk(f"{mark} {i}") for i, mark in enumerate(marks)])
    await _Run(collection.store, CollectReport(), _silent).decide(None)


async def swept(collection: Collection, *, limit: int) -> list[int]:
    """How many chunks each sweep of up to 16 segments removes, until nothing is left to sweep."""
    removed: list[int] = []
    while True:
        async with collection.store.database.transaction() as conn:
            params: dict[str, Any] = {"file": 1, "segments": 16, "limit": limit}
            sweep = await rows.fetch_one(conn, COLLECTOR.sweep_segments, params, row=_Swept)
        assert sweep is not None
        assert sweep.skipped == 0, "nobody holds a chunk"
        if sweep.finished:
            return removed
        removed.append(sweep.swept)


async def counts(collection: Collection) -> tuple[int, int]:
    """How many chunks there are, and how many segments that no version lists."""
    orphans = (
        "SELECT count(*) FROM segments WHERE segment <> ALL (ARRAY(SELECT unnest(segments) FROM versions))"
    )
    async with collection.store.database.transaction() as conn:
        chunks = await rows.fetch_value(conn, "SELECT count(*) FROM chunks")
        return chunks, await rows.fetch_value(conn, orphans)


async def test_scattered_garbage_is_swept_in_one_look_through_the_file(collection: Collection) -> None:
    await due_version(collection, 5000, every=100)
    assert await swept(collection, limit=1000) == [50]
    assert await counts(collection) == (5000 + 2 * 50, 0)


async def test_a_sweep_removes_no_more_chunks_at_once_than_its_limit(collection: Collection) -> None:
    await due_version(collection, 1000, every=1)
    assert await swept(collection, limit=300) == [300, 300, 300, 100]
    assert await counts(collection) == (3000, 0)


END_WHO_REBUILDS = """
SELECT count(pg_terminate_backend(pid, 5000))
FROM pg_locks
WHERE locktype = 'advisory'
  AND classid::bigint << 32 | objid::bigint = hashtextextended(current_schema() || '.search_1_1.rebuild', 0)
"""
TABLES_BESIDE = (
    "SELECT count(*) FROM pg_tables WHERE tablename LIKE '%\\_rebuild' AND schemaname = current_schema()"
)


async def killed_rebuild(store: ChunkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begins a rebuild that ends where it would build its index."""

    async def killed(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(indexes, "build_beside", killed)
    with pytest.raises(ZeroDivisionError):
        await rebuild(store, "docs")


async def test_what_a_killed_rebuild_left_is_dropped(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await killed_rebuild(store, monkeypatch)
    assert await asked(store, TABLES_BESIDE) == 2
    await collect(store)
    assert await asked(store, TABLES_BESIDE) == 0
    assert not any(model.rebuilding for row in (await status(store)).collections for model in row.models)


async def test_a_rebuild_that_goes_on_keeps_its_tables(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def meanwhile(*_: object) -> bool:
        await collect(store)
        assert await asked(store, TABLES_BESIDE) == 2
        return False

    monkeypatch.setattr(indexes, "build_beside", meanwhile)
    await collection.append("doc", [Chunk("text")])
    await rebuild(store, "docs")
    assert await asked(store, TABLES_BESIDE) == 0


async def test_a_killed_rebuild_whose_index_is_still_being_built_keeps_its_tables(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes on with a statement whose client is gone; dropping the table would wait for it."""
    await killed_rebuild(store, monkeypatch)
    async with store.database.transaction() as builder:
        await builder.execute(b"LOCK TABLE search_1_1_rebuild IN SHARE UPDATE EXCLUSIVE MODE")
        await collect(store)
        assert await asked(store, TABLES_BESIDE) == 2
    await collect(store)
    assert await asked(store, TABLES_BESIDE) == 0


async def test_a_rebuild_that_was_taken_for_abandoned_says_so(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loses_its_lock(*_: object) -> bool:
        assert await asked(store, END_WHO_REBUILDS) == 1
        await collect(store)
        assert await asked(store, TABLES_BESIDE) == 0
        return False

    monkeypatch.setattr(indexes, "build_beside", loses_its_lock)
    await collection.append("doc", [Chunk("text")])
    with pytest.raises(Conflict, match="abandoned"):
        await rebuild(store, "docs")
    monkeypatch.undo()
    await rebuild(store, "docs")


async def asked(store: ChunkStore, statement: str) -> int:
    """What the store answers to a question of one value."""
    async with store.database.transaction() as conn:
        return await rows.fetch_value(conn, statement.encode())


async def test_the_collection_of_one_collection_leaves_all_others_alone(store: ChunkStore) -> None:
    for name in ("these", "others"):
        collection = await store.collection(name, model=MODEL, keep_last=1)
        for number in range(3):
            await collection.append("a", [Chunk(f"{name} {number}")])
        await EmbeddingConsumer(store, MODEL).run(drain=True)
        await Projector(store, MODEL.name).run(drain=True)
        await opened_and_left(store, collection)
    await _Run(store, CollectReport(), _silent).decide(None)  # by a run that was killed before its sweep
    report = await collect(store, collection="these")
    assert (report.abandoned, report.collected, report.swept) == (1, 0, 2)
    report = await collect(store)
    assert (report.abandoned, report.collected, report.swept) == (1, 0, 2)


async def opened_and_left(store: ChunkStore, collection: Collection) -> None:
    """An open version past its deadline."""
    async with store.database.transaction() as conn:
        state = await versions.lock_existing(conn, collection.row.collection, "a")
        number = await versions.open_version(conn, state.file, b"{}")
        past = "UPDATE versions SET deadline = '2000-01-01' WHERE file = %(file)s AND version = %(version)s"
        await conn.execute(past, {"file": state.file, "version": number})
