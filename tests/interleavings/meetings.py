"""Meetings: one operation is held before a statement, the other runs to its end, and both orders are known.

Nothing sleeps and nothing is retried: the other side ends, or Postgres says that it waits for the held side.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anyio

from projections.collector import collect
from projections.verify import verify
from tests.interleavings.gates import Point
from tests.interleavings.operations import Operation
from tests.interleavings.outcomes import Outcome, outcome
from tests.interleavings.scenes import Scene, Stage
from tests.interleavings.sides import Side

DEADLINE = 30
PROMISED = frozenset({"CS002"})
"""What the schema's functions raise as promised errors."""

BY_THE_PAST = "move_frontier:"
"""Statements that a claim comes to or not by how many ranges before it are done, whatever it meets."""

Choice = Callable[[int, Sequence[Point]], Sequence[Point]]
"""The statements at which the first or the second operation (0, 1) is held."""


class NeverThere(AssertionError):
    """The held operation ended without the statement that it was to be held at."""


class Answer(NamedTuple):
    """What an operation ended with."""

    value: Any = None
    error: str | None = None


class Ended(NamedTuple):
    """What two operations came to."""

    answers: tuple[Answer, Answer]
    outcome: Outcome


class Met(NamedTuple):
    """What is wrong with the meetings of two operations, and how many there were."""

    faults: list[str]
    meetings: int


class Meeting:
    """Two operations on one stage, each of which can be held while the other runs."""

    def __init__(self, stage: Stage, operations: tuple[Operation, Operation]) -> None:
        self._stage = stage
        self._operations = operations
        self._facts = operations[0].facts | operations[1].facts
        self._orders: list[Ended] = []

    async def run(self, choice: Choice) -> Met:
        """Holds each of the two at each of the statements chosen."""
        points = [await self._one_after_the_other(first) for first in (0, 1)]
        meetings = 0
        for held in (0, 1) if self._operations[0] is not self._operations[1] else (0,):
            for point in choice(held, points[held]):
                meetings += 1
                if fault := await self._fault(held, point):
                    return Met([fault], meetings)
        return Met([], meetings)

    async def _fault(self, held: int, point: Point) -> str | None:
        try:
            ended = await self._held(held, point)
            if await self._is_an_order(ended):
                return None
            told = "\nor ".join(map(str, self._orders))
            error = f"{ended}\nis not {told}"
        except NeverThere as never:
            if point.text.startswith(BY_THE_PAST):
                return None
            error = str(never)
        except Exception as raised:  # noqa: BLE001 - said with the place where it happened
            error = f"{type(raised).__name__}: {raised}"
        self._stage.spoiled = True
        names = self._operations[held].name, self._operations[1 - held].name
        return "'{}' is held before statement {} ({}), '{}' runs: {}".format(
            names[0], *point, names[1], error
        )

    # --- one after the other --------------------------------------------------------------------

    async def _one_after_the_other(self, first: int) -> list[Point]:
        """Notes what the two come to in that order; returns the statements of the first."""
        scene = await self._scene(held=first)
        self._stage.held.watch.begin()
        leading = await self._run(first, self._stage.held, scene)
        self._stage.held.watch.end()
        points = self._stage.held.watch.passed
        following = await self._run(1 - first, self._stage.other, scene)
        self._orders.append(await self._ended(scene, first, leading, following))
        assert points, "no statement was seen"
        return points

    async def _alone(self, number: int) -> Ended:
        """What one of the two comes to without the other."""
        scene = await self._scene(held=1 - number)
        answer = await self._run(number, self._stage.other, scene)
        return await self._ended(scene, number, answer, Answer())

    # --- one while the other is held ------------------------------------------------------------

    async def _held(self, held: int, point: Point) -> Ended:
        scene = await self._scene(held=held)
        watch = self._stage.held.watch
        watch.begin(held_at=point.number)
        await watch.shut()
        tasks: list[asyncio.Task[Answer]] = []
        try:
            with anyio.fail_after(DEADLINE):
                tasks.append(asyncio.create_task(self._run(held, self._stage.held, scene)))
                await self._there(tasks[0])
                tasks.append(asyncio.create_task(self._run(1 - held, self._stage.other, scene)))
                await self._ended_or_waiting(tasks[1])
                assert not tasks[0].done(), "nothing held it"
                await watch.open()
                answers = (await tasks[0], await tasks[1])
        finally:
            await watch.open()
            watch.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return await self._ended(scene, held, *answers)

    async def _there(self, task: asyncio.Task[Answer]) -> None:
        reached = asyncio.create_task(self._stage.held.watch.reached.wait())
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if not self._stage.held.watch.reached.is_set():
            raise NeverThere(f"it never came there: {task.exception() or task.result()}")

    async def _ended_or_waiting(self, task: asyncio.Task[Answer]) -> None:
        held, other = self._stage.held.watch, self._stage.other.watch
        while not task.done():
            if await self._stage.gates.hold_up(held.pids, other.pids):
                return
            await asyncio.wait([task], timeout=0.002)

    # --- steps ----------------------------------------------------------------------------------

    async def _scene(self, *, held: int) -> Scene:
        scene = await self._stage.scene(self._facts)
        scene.letters = {self._stage.held: "pq"[held], self._stage.other: "pq"[1 - held]}
        self._stage.held.watch.refused.clear()
        self._stage.other.watch.refused.clear()
        return scene

    async def _run(self, number: int, side: Side, scene: Scene) -> Answer:
        operation = self._operations[number]
        try:
            answer = Answer(await operation.act(side, scene))
        except operation.promised as error:
            answer = Answer(error=type(error).__name__)
        # No deadlock and no broken constraint, not even one that was passed over or tried again.
        refused = set(side.watch.refused) - PROMISED - operation.refusals
        assert not refused, f"the server raised {refused} in '{operation.name}'"
        return answer

    async def _ended(self, scene: Scene, first: int, leading: Answer, following: Answer) -> Ended:
        await self._stage.drain(scene)
        answers = (leading, following) if first == 0 else (following, leading)
        return Ended(answers, await outcome(self._stage.admin, scene))

    async def _is_an_order(self, ended: Ended) -> bool:
        """Whether one order of the two comes to the same; who ended with a promised error did nothing.

        A version that is committed after a later one is never searched: then the other is as if alone.
        """
        if ended in self._orders:
            return True
        for number, answer in enumerate(ended.answers):
            if answer.error is not None:
                alone = await self._alone(1 - number)
                if ended.outcome == alone.outcome and ended.answers[1 - number] == alone.answers[1 - number]:
                    return True
            elif self._operations[number].numbered_first:
                alone = await self._alone(1 - number)
                if _contents(ended.outcome) == _contents(alone.outcome):
                    return True
        return False


def _contents(outcome: Outcome) -> list[tuple[str, str]]:
    return [(key, content) for key, _, content in outcome.searched]


async def broken(stage: Stage) -> list[str]:
    """What `verify` finds broken on the stage once everything has drained."""
    await stage.admin.consume()
    await stage.admin.project_all()
    report = await verify(stage.admin.store)
    return [f"{check.name}: {[found.row for found in check.violations[:5]]}" for check in report.broken]


async def broken_when_collected(stage: Stage) -> list[str]:
    """The same once the collector has been there, too; what is ready for further scenes is lost."""
    await collect(stage.admin.store)
    return await broken(stage)
