"""Two operations that meet on the same rows: whoever is held wherever, it comes to one of their two orders.

The sharpest pairs run always, each operation held before its commit and before one more statement; every pair
at every statement is `-m soak`.
"""

from collections.abc import Sequence

import pytest

from tests.interleavings.gates import Point
from tests.interleavings.meetings import Meeting, broken
from tests.interleavings.operations import OPERATIONS, Operation
from tests.interleavings.pairs import pairs
from tests.interleavings.scenes import Stage

NAMED = {operation.name: operation for operation in OPERATIONS}
SHARPEST = {
    "append": ["append", "append in batches", "decide what goes", "sweep"],
    "append with expected_version": ["append with expected_version"],
    "append with an idempotency key": ["append with an idempotency key"],
    "append to a new key": ["append to a new key"],
    "append in batches": ["append in batches", "abandon overdue versions", "sweep"],
    "roll back": ["append", "decide what goes", "sweep", "project a commit"],
    "pin": ["decide what goes"],
    "erase": [
        "append",
        "append in batches",
        "claim a range",
        "complete a range",
        "give a chunk up",
        "project a commit",
        "sweep",
        "rebuild",
    ],
    "erase the source of a copy": ["claim a range with a source of copies", "complete a range with copies"],
    "complete a range": [
        "take an expired range over",
        "renew a lease",
        "complete another range of the same chunks",
        "project a commit",
        "rebuild",
    ],
    "complete another range of the same chunks": [
        "give a chunk up",
        "retry a dead letter",
        "discard a dead letter",
        "sweep",
    ],
    "project a commit": ["project a commit", "delete", "rebuild"],
    "project a rollback": ["project a rollback", "append", "sweep"],
    "add a model": ["append", "roll back", "add a model"],
    "switch the serving model": ["append", "switch the serving model"],
    "rebuild": ["rebuild", "sweep", "search"],
    "search": ["project a commit"],
    "verify": ["append in batches", "sweep"],
}
"""Pairs that share more than a partition, where the rules of the protocol have most to say."""


@pytest.mark.parametrize("name", SHARPEST)
async def test_operations_that_meet_come_to_one_of_their_orders(stage: Stage, name: str) -> None:
    for partner in SHARPEST[name]:
        met = await Meeting(stage, (NAMED[name], NAMED[partner])).run(_commit_and_another)
        assert met.faults == []
    assert await broken(stage) == []


def _commit_and_another(points: Sequence[Point]) -> Sequence[Point]:
    """The commit, before which all is locked and written and nobody else sees it; and one in the midst."""
    return points[len(points) * 2 // 3], points[-1]


def _pair(pair: tuple[Operation, Operation]) -> str:
    return f"{pair[0].name} - {pair[1].name}"


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pair", pairs(), ids=_pair)
async def test_operations_that_meet_come_to_one_of_their_orders_at_every_statement(
    stage: Stage, pair: tuple[Operation, Operation]
) -> None:
    met = await Meeting(stage, pair).run(lambda points: points)
    assert met.faults == []
    assert await broken(stage) == []
    print(f"{met.meetings} meetings")
