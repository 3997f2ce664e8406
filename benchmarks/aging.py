"""Search after twenty re-ingests of everything and a full collection, against what it was at the beginning.

The beginning is a store of its own that was filled once and left alone, so that both are asked by turns. No
two versions share a text or a vector.
"""

import random
from collections.abc import Sequence
from typing import Any

import anyio
import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, Timed, against
from benchmarks.pipeline import drain
from chunkstore import ChunkStore
from chunkstore.collection import Collection
from projections.collector import collect

DIMENSIONS = 384
FILES = 6
CHUNKS = 1_000
PINNED = ("file-0", "file-3")
K = 10
_QUERIES = 40
_WITHIN_A_TENTH = Target("≤", 1.1)


async def main(setup: Setup) -> list[Result]:
    """Files of 1,000 chunks, two with their first version pinned; time, recall and size."""
    times = 3 if setup.quick else 20
    count = FILES * CHUNKS
    model = material.NullModel(DIMENSIONS, distinct=(times + 2) * count)
    queries = material.clustered(1_000, DIMENSIONS, seed=7)
    async with setup.store() as young, setup.store() as aged:
        beginning = await _begin(young, model)
        collection = await _begin(aged, model)
        for key in PINNED:
            await collection.pin(key, 1)
        sizes = [await _size(aged, collection)]
        for turn in range(1, times + 1):
            await _ingest(collection, turn)
            await drain(aged, model)
            rebuilt = await _collect(aged)
            sizes.append(await _size(aged, collection))
        assert rebuilt, "the collection ends with the index rebuilt and the table vacuumed"
        await _check_pinned(collection)
        work = f"search {count:,} after {times} re-ingests of everything and a full collection"
        name = "the same before them"
        time = await against(
            work,
            _searching(collection, queries),
            _searching(beginning, queries),
            name=name,
            rounds=setup.rounds(15),
            target=_WITHIN_A_TENTH,
        )
        before, after = await _recall(young, beginning, queries), await _recall(aged, collection, queries)
        recall = Result(
            work=f"recall@{K} of the same",
            against=name,
            ratio=before / after,
            target=_WITHIN_A_TENTH,
            note=f"recall@{K} {after:.3f} against {before:.3f}",
        )
        at_first, at_last = await _size(young, beginning), sizes[-1]
        size = Result(
            work="size of the same, table and indexes",
            against=name,
            ratio=sum(at_last) / sum(at_first),
            spread=(min(map(sum, sizes[1:])) / sum(at_first), max(map(sum, sizes[1:])) / sum(at_first)),
            target=_WITHIN_A_TENTH,
            note=f"{_megabytes(at_last)} against {_megabytes(at_first)}; spread: after each collection",
        )
        return [time, recall, size]


async def _begin(store: ChunkStore, model: material.NullModel) -> Collection:
    collection = await store.collection("bench", model=model, keep_last=1)
    await _ingest(collection, 0)
    await drain(store, model)
    return collection


async def _ingest(collection: Collection, turn: int) -> None:
    for i in range(FILES):
        await collection.append(f"file-{i}", material.stream(CHUNKS, seed=turn * FILES + i))


async def _collect(store: ChunkStore) -> bool:
    """Collects until the index is rebuilt: the server's count of dead rows comes a moment late."""
    for _ in range(50):
        if (await collect(store)).indexes_rebuilt:
            return True
        await anyio.sleep(0.2)
    return False


async def _check_pinned(collection: Collection) -> None:
    for key in PINNED:
        first = [chunk.content for chunk in material.chunks(CHUNKS, seed=int(key.removeprefix("file-")))]
        assert [chunk.content async for chunk in collection.chunks(key, 1)] == first, "pinned versions stay"


def _searching(collection: Collection, queries: NDArray[np.float32]) -> Timed:
    async def run(turn: int) -> float:
        with Stopwatch() as watch:
            for i in random.Random(turn).sample(range(len(queries)), _QUERIES):
                await collection.search(queries[i], k=K)
        return watch.seconds / _QUERIES

    return run


async def _recall(store: ChunkStore, collection: Collection, queries: NDArray[np.float32]) -> float:
    """Against an exact scan of what is active, over 100 queries."""
    active = "SELECT s.chunk_id, s.embedding::real[] FROM {search} s JOIN {active} a USING (chunk_id)"
    found = await _read(store, collection, active)
    assert len(found) == FILES * CHUNKS
    ids, vectors = np.array([row[0] for row in found]), np.array([row[1] for row in found])
    recalled = 0
    for query in queries[:100]:
        exact = set(ids[np.argpartition(-(vectors @ query), K)[:K]].tolist())
        hits = await collection.search(query, k=K)
        assert not hits.exact, "the index answers"
        recalled += len(exact & {hit.chunk_id for hit in hits})
    return recalled / (100 * K)


async def _size(store: ChunkStore, collection: Collection) -> tuple[int, int]:
    """Bytes of the search table, and of its indexes."""
    sizes = "SELECT pg_table_size({table}), pg_indexes_size({table})"
    return (await _read(store, collection, sizes))[0]


async def _read(store: ChunkStore, collection: Collection, statement: str) -> list[Any]:
    tables = collection._models[0]  # noqa: SLF001
    search, active = sql.Identifier(tables.search_table), sql.Identifier(tables.active_table)
    composed = sql.SQL(statement).format(search=search, active=active, table=tables.search_table)
    async with store.database.transaction() as conn:
        return await (await conn.execute(composed)).fetchall()


def _megabytes(sizes: Sequence[int]) -> str:
    return " + ".join(f"{size / 2**20:.1f}" for size in sizes) + " MB"
