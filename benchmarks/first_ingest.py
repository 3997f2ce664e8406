"""The first ingest of 10,000 chunks, from append to searchable, with a null model and no index yet."""

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch
from benchmarks.indexing import compared
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
            return await compared(setup, work, ours, by_hand, step="first", rounds=5, least=15, count=count)
