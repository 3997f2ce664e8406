"""Our ingestion against the same by hand, and against an indexing API that keeps the same promises."""

from collections.abc import Awaitable, Callable

import anyio.to_thread

from benchmarks.harness import Result, Setup, Target, against
from benchmarks.langchain_index import VARIABLE, Api

Round = Callable[[int], Awaitable[float]]


async def compared(
    setup: Setup, work: str, ours: Round, by_hand: Round, *, step: str, rounds: int, least: float, count: int
) -> list[Result]:
    """Two lines: against tables by hand, and against the API's `step` (`first`, `again`), with the target.

    `ours` and `by_hand` return the seconds of one round over `count` chunks.
    """
    name = "record table and vector table by hand"
    results = [
        await against(work, ours, by_hand, name=name, rounds=setup.rounds(rounds), per=count),
    ]
    if not Api.is_there():
        return [*results, Result(work=work, note=f"an indexing API: not run, {VARIABLE} is not set")]
    with Api(setup.dsn, count) as api:

        async def peer(_: int) -> float:
            return await anyio.to_thread.run_sync(api.seconds, step)

        name = "LangChain's index() with its record manager and PGVector"
        target = Target("≥", least)
        line = await against(work, ours, peer, name=name, rounds=setup.rounds(3), target=target, per=count)
    return [*results, line]
