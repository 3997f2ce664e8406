"""Two operations that meet on the same rows: whoever is held wherever, it comes to one of their two orders.

The sharpest pairs run always, each operation held before its commit and before one more statement; every pair
at every statement is `-m soak`, and its ids are the list of the pairs.
"""

from collections.abc import Sequence

import pytest

from tests.interleavings.gates import Point
from tests.interleavings.meetings import Meeting, broken
from tests.interleavings.operations import OPERATIONS, Operation
from tests.interleavings.pairs import meet_over, pairs
from tests.interleavings.scenes import Stage

NAMED = {operation.name: operation for operation in OPERATIONS}
SHARPEST = {
    "verify": ["append in batches"],
    "search": ["project a commit"],
    "append": ["append in batches", "sweep"],
    "append with expected_version": ["append with expected_version"],
    "append with an idempotency key": ["append with an idempotency key"],
    "append to a new key": ["append to a new key"],
    "append many to a new key": ["append to a new key", "append many to a new key"],
    "append in batches": ["abandon overdue versions", "sweep"],
    "roll back": ["decide what goes", "sweep", "project a commit"],
    "erase": ["append in batches", "give a chunk up", "project a commit", "sweep"],
    "erase the source of a copy": ["claim a range with a source of copies", "complete a range with copies"],
    "complete a range": ["erase", "take an expired range over", "project a commit", "append to a new key"],
    "complete another range of the same chunks": [
        "give a chunk up",
        "retry a dead letter",
    ],
    "project a commit": ["project a commit", "delete"],
    "project a rollback": ["append", "sweep"],
    "add a model": ["append", "roll back"],
    "switch the serving model": ["append"],
    "rebuild": ["erase", "sweep", "project a commit", "search"],
    "repack": ["erase", "sweep", "project a commit", "complete a range", "repack"],
    "drop a killed rebuild": ["erase", "sweep", "rebuild", "repack", "drop a killed rebuild"],
}
"""Pairs that share more than a partition, where the rules of the protocol have most to say."""


@pytest.mark.parametrize("name", SHARPEST)
async def test_operations_that_meet_come_to_one_of_their_orders(stage: Stage, name: str) -> None:
    for partner in SHARPEST[name]:
        met = await Meeting(stage, (NAMED[name], NAMED[partner])).run(_one_statement)
        assert met.faults == []
    assert await broken(stage) == []


def _one_statement(number: int, points: Sequence[Point]) -> Sequence[Point]:
    """The first is held before its commit, all locked and written and unseen, the second in the midst."""
    return points[-1:] if number == 0 else points[len(points) * 2 // 3 :][:1]


def _pair(pair: tuple[Operation, Operation]) -> str:
    return f"{pair[0].name} - {pair[1].name}"


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pair", pairs(), ids=_pair)
async def test_operations_that_meet_come_to_one_of_their_orders_at_every_statement(
    stage: Stage, pair: tuple[Operation, Operation]
) -> None:
    only_partitions = meet_over(*pair) == frozenset({"partitions"})

    def every(_: int, points: Sequence[Point]) -> Sequence[Point]:
        """All; where they can meet on nothing but the partition, from its lock on."""
        locks = (n for n, point in enumerate(points) if only_partitions and "lock_p" in point.text)
        first = next(locks, 0)  # an erasure takes it inside its one call
        return points[first:]

    met = await Meeting(stage, pair).run(every)
    assert met.faults == []
    assert await broken(stage) == []
    print(f"{met.meetings} meetings")
