"""Ingesting a file again with one chunk in a hundred changed, from append to searchable, indexes standing."""

import random

import anyio.to_thread

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.langchain_index import VARIABLE, Api
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
            results = [
                await against(
                    work,
                    ours,
                    by_hand,
                    name="record table and vector table by hand",
                    rounds=setup.rounds(9),
                    per=count,
                )
            ]
        if not Api.is_there():
            return [*results, Result(work=work, note=f"an indexing API: not run, {VARIABLE} is not set")]
        with Api(setup.dsn, count) as api:

            async def peer(_: int) -> float:
                return await anyio.to_thread.run_sync(api.seconds, "again")

            target = Target("≥", 30)
            name = "LangChain's index() with its record manager and PGVector"
            line = await against(
                work, ours, peer, name=name, rounds=setup.rounds(3), target=target, per=count
            )
            return [*results, line]


def _changed(turn: int, count: int) -> list[int]:
    return random.Random(turn).sample(range(count), count // 100)
