"""Ingesting a file again with one chunk in a hundred changed, from append to searchable.

An HNSW index stands on every side, and takes what is new.
"""

import random

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch
from benchmarks.indexing import compared
from benchmarks.peers import IndexingApi
from benchmarks.pipeline import drain, running


async def main(setup: Setup) -> list[Result]:
    """Against a record table and a vector table by hand, and against an indexing API that keeps them."""
    count = 2_000 if setup.quick else 10_000
    model = material.NullModel()
    first = material.chunks(count)
    number = 0
    async with setup.store() as store:
        collection = await store.collection("bench", model=model)
        await collection.append("file", first)
        await drain(store, model)
        with setup.peer() as conn:
            tables = IndexingApi(conn, model.dimensions)
            tables.index("file", first, model.embed)
            tables.build_index()

            async def ours(_: int) -> float:
                nonlocal number
                number += 1
                chunks = material.edited(first, _changed(number, count), f"version {number}")
                before = model.embedded
                async with running(store, model):
                    with Stopwatch() as watch:
                        await collection.wait_until_active(await collection.append("file", chunks))
                assert model.embedded - before == count // 100, "only the changed chunks are embedded"
                return watch.seconds

            async def by_hand(turn: int) -> float:
                chunks = material.edited(first, _changed(turn, count), f"turn {turn}")
                with Stopwatch() as watch:
                    tables.index("file", chunks, model.embed)
                return watch.seconds

            work = f"re-ingest {count:,} chunks, 1 % changed, append to active"
            return await compared(setup, work, ours, by_hand, step="again", rounds=9, least=30, count=count)


def _changed(turn: int, count: int) -> list[int]:
    return random.Random(turn).sample(range(count), count // 100)
