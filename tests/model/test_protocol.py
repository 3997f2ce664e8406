"""The model of the protocol: no scenario reaches a state that breaks an invariant; each mutant does."""

import pytest

from tests.model.protocol.clock import time_passes
from tests.model.protocol.explorer import Explorer, Scenario
from tests.model.protocol.invariants import check_of
from tests.model.protocol.rules import Rules
from tests.model.protocol.scenarios import scenarios


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_no_state_that_a_scenario_reaches_breaks_an_invariant(scenario: Scenario) -> None:
    rules = scenario.rules or Rules()
    result = Explorer(scenario, rules, check_of(scenario, rules), time_passes, limit=30_000).run()
    print(f"{scenario.name}: {result.states} states")
    assert result.counterexample is None, result.counterexample


def test_without_rule_1_two_writers_take_one_offset() -> None:
    scenario = scenarios()[0]
    rules = Rules(without=frozenset({"1 head"}))
    result = Explorer(scenario, rules, check_of(scenario, rules), time_passes).run()
    assert result.counterexample is not None
