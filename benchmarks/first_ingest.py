"""The first ingest of 10,000 chunks, from append to searchable, with a null model and no index yet."""

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.peers import IndexingApi
from benchmarks.pipeline import running


async def main(setup: Setup) -> list[Result]:
    """Against a record manager and a vector table, as indexing APIs have them."""
    count = 2_000 if setup.quick else 10_000
    model = material.NullModel()
    async with setup.store() as store:
        with setup.peer() as conn:
            api = IndexingApi(conn, model.dimensions)

            async def ours(turn: int) -> float:
                # A collection of its own, so that no index stands that the turn before was built for.
                collection = await store.collection(f"bench-{turn}", model=model)
                chunks = material.chunks(count, seed=turn)
                async with running(store, model):
                    with Stopwatch() as watch:
                        await collection.wait_until_active(await collection.append("file", chunks))
                return watch.seconds

            async def peer(turn: int) -> float:
                chunks = material.chunks(count, seed=turn)
                conn.execute("TRUNCATE record, embedding")
                with Stopwatch() as watch:
                    assert api.index("file", chunks, model.embed) == count
                return watch.seconds

            return [
                await against(
                    f"first ingest of {count:,} chunks, append to active, null model, no index",
                    ours,
                    peer,
                    name="an indexing API: record manager and vector table",
                    rounds=setup.rounds(5),
                    target=Target("≥", 15),
                    per=count,
                )
            ]
