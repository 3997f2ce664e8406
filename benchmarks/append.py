"""Appending a file of new chunks, committed, against binary COPY of the same rows into a bare table."""

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.peers import BareChunks


async def main(setup: Setup) -> list[Result]:
    """Files of 100 and of 10,000 chunks of 800 bytes."""
    return [
        await _append(setup, 100, rounds=setup.rounds(41), target=Target("≥", 0.3)),
        await _append(setup, 10_000, rounds=setup.rounds(9), target=Target("≥", 0.6)),
    ]


async def _append(setup: Setup, count: int, *, rounds: int, target: Target) -> Result:
    async with setup.store() as store:
        collection = await store.collection("bench", model=material.NullModel())
        with setup.peer() as conn:
            bare = BareChunks(conn)

            async def ours(turn: int) -> float:
                chunks = material.chunks(count, seed=turn)
                with Stopwatch() as watch:
                    await collection.append(f"file-{turn}", chunks)
                return watch.seconds

            async def peer(turn: int) -> float:
                rows = bare.rows(material.chunks(count, seed=turn))
                with Stopwatch() as watch:
                    bare.copy(rows)
                return watch.seconds

            return await against(
                f"append a file of {count:,} new chunks of 800 bytes",
                ours,
                peer,
                name="binary COPY into a bare table",
                rounds=rounds,
                target=target,
                per=count,
            )
