"""Random histories: every step of the protocol in any order, and after each the store is what a model says.

Each step is one transaction of some writer, consumer, projector or collector; streams and ranges stay in
hand over other steps, leases run out, and who lost one comes back.
"""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from chunkstore import manifests
from tests.model.histories.arena import Arena, arena
from tests.model.histories.machine import RandomHistory
from tests.store.rules.fix_interleave import World

# A step takes as long as the server does.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
STABLE = settings(_UNTIMED, max_examples=6, stateful_step_count=40, derandomize=True)
# Any history that finds the hole will do: the shortest is not looked for.
FIRST = settings(STABLE, max_examples=40, phases=[Phase.generate])
LONG = settings(_UNTIMED, max_examples=60, stateful_step_count=60, database=None)

HOLES: dict[str, tuple[str, str, str]] = {
    "a sweep takes what is still named": (
        "sweep_segments",
        "SELECT unnest(_named) EXCEPT SELECT unnest(named_by(_file, _live, _named))",
        "SELECT unnest(_named)",
    ),
    "who lost a lease is not refused": ("lock_lease", "AND epoch = _epoch", ""),
    "a version is switched to that is not complete": (
        "switch_file",
        "IF _cursor < _target.chunks THEN",
        "IF false THEN",
    ),
}
"""By what goes wrong: a function of the schema, the line that keeps it from that, and what stands instead."""


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets short versions have many segments."""
    monkeypatch.setattr(manifests, "SEGMENT_MIN", 2)
    monkeypatch.setattr(manifests, "SEGMENT_MAX", 5)
    monkeypatch.setattr(manifests, "_BOUNDARY_MASK", 1)


def play(played: Arena, how: settings) -> None:
    run_state_machine_as_test(lambda: RandomHistory(played), settings=how)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_each_step_of_a_random_history_the_store_is_what_the_model_says(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with arena(dsn, monkeypatch) as played:
        play(played, STABLE)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("hole", HOLES)
def test_a_random_history_finds_a_hole(dsn: str, monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    async def damage(world: World) -> None:
        await world.without(*HOLES[hole])

    with arena(dsn, monkeypatch, damage) as played, pytest.raises(AssertionError):
        play(played, FIRST)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("every_rule", [True, False], ids=["every kind of step", "some kinds of steps"])
def test_after_each_step_of_many_random_histories_the_store_is_what_the_model_says(
    dsn: str, monkeypatch: pytest.MonkeyPatch, every_rule: bool
) -> None:
    with arena(dsn, monkeypatch) as played:
        played.every_rule = every_rule
        play(played, LONG)
