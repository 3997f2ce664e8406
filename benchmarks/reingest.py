"""Ingesting a file again with one chunk in a hundred changed, from append to searchable, indexes standing."""

import random

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.peers import IndexingApi
from benchmarks.pipeline import drain, running


async def main(setup: Setup) -> list[Result]:
    """Against a record manager and a vector table, as indexing APIs have them."""
    count = 2_000 if setup.quick else 10_000
    model = material.NullModel()
    first = material.chunks(count)
    async with setup.store() as store:
        collection = await store.collection("bench", model=model)
        await collection.append("file", first)
        await drain(store, model)
        with setup.peer() as conn:
            api = IndexingApi(conn, model.dimensions)
            api.index("file", first, model.embed)

            async def ours(turn: int) -> float:
                chunks = material.edited(first, _changed(turn, count), f"turn {turn}")
                before = model.embedded
                async with running(store, model):
                    with Stopwatch() as watch:
                        await collection.wait_until_active(await collection.append("file", chunks))
                assert model.embedded - before == count // 100, "only the changed chunks are embedded"
                return watch.seconds

            async def peer(turn: int) -> float:
                chunks = material.edited(first, _changed(turn, count), f"turn {turn}")
                with Stopwatch() as watch:
                    api.index("file", chunks, model.embed)
                return watch.seconds

            return [
                await against(
                    f"re-ingest {count:,} chunks, 1 % changed, append to active",
                    ours,
                    peer,
                    name="an indexing API: record manager and vector table",
                    rounds=setup.rounds(9),
                    target=Target("≥", 30),
                    per=count,
                )
            ]


def _changed(turn: int, count: int) -> list[int]:
    return random.Random(turn).sample(range(count), count // 100)
