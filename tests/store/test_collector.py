"""How a sweep goes through a file: several segments at once, no more chunks than a transaction should."""

from typing import Any

from chunkstore import Chunk, Collection, rows
from projections.collector import COLLECTOR, CollectReport, _Run, _silent, _Swept


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
