"""One fault after another in a store that is used by every kind of process: all get on by themselves.

After each nothing is lost, doubled, mixed or violated, and everybody does new work within a stated time.
"""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.faults import injected
from tests.faults.fix_processes import Fleet
from tests.faults.processes import Where
from tests.faults.proxy import To
from tests.faults.siege import WORKER, Siege, besieging

pytestmark = pytest.mark.slow

Fault = Callable[[Siege], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
async def siege() -> AsyncIterator[Siege]:
    """Every kind of process at work on a server of their own, behind a proxy."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-siege-") as folder:
        fleet = Fleet(Where(Path(folder), "siege"))
        try:
            async with besieging(fleet) as begun:
                yield begun
        finally:
            fleet.end()


FAULTS: list[tuple[str, Fault, float]] = [
    (
        "who appends is killed",
        lambda siege: injected.killed(siege.fleet, "upload-few", "upload-few-streamed"),
        0.5,
    ),
    ("who consumes is killed", lambda siege: injected.killed(siege.fleet, "consume"), 0.5),
    ("who projects is killed", lambda siege: injected.killed(siege.fleet, "project"), 0.5),
    ("who collects is killed", lambda siege: injected.killed(siege.fleet, "collect"), 0.5),
    ("connections are cut", lambda siege: injected.cut(siege.proxy), 1),
    ("connections are refused", lambda siege: injected.refused(siege.proxy), 2),
    ("the way to the server is frozen", lambda siege: injected.frozen(siege.proxy, To.SERVER), 1),
    ("the way to the clients is frozen", lambda siege: injected.frozen(siege.proxy, To.CLIENT), 1),
    ("connections are silent for ever", lambda siege: injected.frozen_for_ever(siege.proxy, *To), 0.5),
    ("packets are lost", lambda siege: injected.vanished(siege.proxy), 3),
    ("answers of commits are lost", lambda siege: injected.answers_lost(siege.proxy, every=7), 2),
    ("hints are lost", lambda siege: injected.hints_lost(siege.dsn), 1),
    ("all connections are taken", lambda siege: injected.connections_exhausted(siege.dsn, WORKER), 1),
    (
        "statements time out",
        lambda siege: injected.set_for(siege.dsn, WORKER, "statement_timeout", "20ms"),
        1,
    ),
    ("locks time out", lambda siege: injected.locks_time_out(siege.dsn, siege.schema, WORKER), 1),
    (
        "transactions fail to serialize",
        lambda siege: injected.raised(siege.dsn, siege.schema, WORKER, "40001", at_commit=True),
        1.5,
    ),
    (
        "transactions deadlock",
        lambda siege: injected.raised(siege.dsn, siege.schema, WORKER, "40P01", at_commit=False),
        1.5,
    ),
    ("the server is killed", lambda siege: injected.server_killed(siege.fleet), 0.5),
    ("the server stops at once", lambda siege: injected.stopped_at_once(siege.fleet), 0.5),
]
"""What happens, and for how many seconds."""

ALWAYS = {
    "connections are silent for ever",
    "answers of commits are lost",
    "all connections are taken",
    "transactions fail to serialize",
    "the server stops at once",
}
"""Faults of the run by default; the others take as long, and are left to the soak."""

WITHIN_SECONDS = 30
"""Until everybody has done new work, on a busy machine; leases of 1.5 s included."""


@pytest.mark.parametrize(
    ("fault", "lasts"),
    [
        pytest.param(fault, lasts, id=name, marks=() if name in ALWAYS else pytest.mark.soak)
        for name, fault, lasts in FAULTS
    ],
)
async def test_everybody_gets_on_after(siege: Siege, fault: Fault, lasts: float) -> None:
    took = await siege.withstands(fault(siege), lasts=lasts, within=WITHIN_SECONDS)
    print(f"everybody had done new work after {took:.1f} s")
