"""The circuit breaker: pauses that grow while the provider is away, and end with it."""

import anyio
import pytest

from chunkstore.errors import ModelUnavailable
from consumers import breaker
from consumers.breaker import Breaker

AWAY = ModelUnavailable("the provider does not answer")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the breaker sees, in its one element."""
    now = [1000.0]
    monkeypatch.setattr(breaker, "monotonic", lambda: now[0])
    return now


def opened(times: int) -> Breaker:
    made = Breaker()
    for _ in range(times):
        made.failed(AWAY)
    return made


def pause_of(made: Breaker, clock: list[float]) -> float:
    """How long it stays open from now on, to a tenth of a second."""
    start = clock[0]
    while made.is_open:
        clock[0] += 0.1
    return round(clock[0] - start, 1)


async def test_a_new_breaker_is_closed() -> None:
    made = Breaker()
    assert not made.is_open
    with anyio.fail_after(1):
        await made.closed(anyio.Event())


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (50, 60.0)]
)
async def test_every_failure_doubles_the_pause_up_to_a_minute(
    clock: list[float], failures: int, seconds: float
) -> None:
    assert pause_of(opened(failures), clock) == pytest.approx(seconds, abs=0.11)


async def test_a_success_closes_it_and_the_next_failure_begins_with_the_first_pause(
    clock: list[float],
) -> None:
    made = opened(10)
    made.succeeded()
    assert not made.is_open
    assert made.last_error is None
    made.failed(AWAY)
    assert pause_of(made, clock) == pytest.approx(0.5, abs=0.11)
    assert made.last_error is AWAY


async def test_waiting_lasts_as_long_as_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "_FIRST_PAUSE", 0.05)
    made = opened(1)
    start = anyio.current_time()
    with anyio.fail_after(5):
        await made.closed(anyio.Event())
    assert anyio.current_time() - start >= 0.05
    assert not made.is_open


async def test_a_stop_ends_the_waiting() -> None:
    made, stop = opened(8), anyio.Event()
    stop.set()
    with anyio.fail_after(5):
        await made.closed(stop)
    assert made.is_open
