"""The first ingest of 10,000 chunks, from append to searchable, with a null model and no index yet."""

import anyio.to_thread

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.langchain_index import VARIABLE, Api
from benchmarks.peers import IndexingApi
from benchmarks.pipeline import running, without_indexes


async def main(setup: Setup) -> list[Result]:
    """Against a record table and a vector table by hand, and against an indexing API that keeps them."""
    count = 2_000 if setup.quick else 10_000
    model = material.NullModel()
    number = 0
    async with setup.store() as store, without_indexes(store) as hold:
        with setup.peer() as conn:
            tables = IndexingApi(conn, model.dimensions)

            async def ours(_: int) -> float:
                nonlocal number
                number += 1
                collection = await store.collection(f"bench-{number}", model=model)
                chunks = material.chunks(count, seed=number)
                await hold(collection)
                async with running(store, model):
                    with Stopwatch() as watch:
                        await collection.wait_until_active(await collection.append("file", chunks))
                return watch.seconds

            async def by_hand(turn: int) -> float:
                chunks = material.chunks(count, seed=turn)
                conn.execute("TRUNCATE record, embedding")
                with Stopwatch() as watch:
                    assert tables.index("file", chunks, model.embed) == count
                return watch.seconds

            work = f"first ingest of {count:,} chunks, append to active, null model, no index"
            results = [
                await against(
                    work,
                    ours,
                    by_hand,
                    name="record table and vector table by hand",
                    rounds=setup.rounds(5),
                    per=count,
                )
            ]
        if not Api.is_there():
            return [*results, Result(work=work, note=f"an indexing API: not run, {VARIABLE} is not set")]
        with Api(setup.dsn, count) as api:

            async def peer(_: int) -> float:
                return await anyio.to_thread.run_sync(api.seconds, "first")

            target = Target("≥", 15)
            name = "LangChain's index() with its record manager and PGVector"
            line = await against(
                work, ours, peer, name=name, rounds=setup.rounds(3), target=target, per=count
            )
            return [*results, line]
