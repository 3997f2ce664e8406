"""The model of the protocol: no scenario reaches a state that breaks an invariant, and every mutant does.

What a run found stands in docs/reliability.md and in traces.md; a row that is not there is stale, and
`python -m tests.model.protocol --write` writes it anew.
"""

import pytest

from tests.model.protocol.__main__ import DOCS, TRACES
from tests.model.protocol.checking import (
    Bounds,
    elsewhere_rows,
    explore,
    explorer_of,
    mutant_row,
    named,
    scenario_row,
    spare_row,
    trace_text,
)
from tests.model.protocol.mutants import ELSEWHERE, MUTANTS, SPARES, Mutant, Spare
from tests.model.protocol.scenarios import scenarios
from tests.model.protocol.states import Scenario

RULES = {str(number) for number in range(1, 23)}


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_no_state_that_a_scenario_reaches_breaks_an_invariant(scenario: Scenario) -> None:
    result = explore(scenario)
    print(f"{scenario.name}: {result.states:,} states, {result.ends:,} ends")
    assert result.counterexample is None, "\n".join(result.counterexample.trace)
    assert result.complete
    assert scenario_row(scenario, result) in DOCS.read_text().splitlines()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_rule_that_is_left_out_breaks_an_invariant(mutant: Mutant) -> None:
    found = explore(named(mutant.scenario), mutant.name).counterexample
    assert found is not None
    print(trace_text(mutant, found))
    assert found.broken == mutant.breaks
    assert mutant_row(mutant, found) in DOCS.read_text().splitlines()
    assert trace_text(mutant, found) in TRACES.read_text()


@pytest.mark.parametrize("spare", SPARES, ids=lambda spare: spare.name)
def test_a_part_of_a_rule_that_is_only_thrift_breaks_nothing(spare: Spare) -> None:
    explorer = explorer_of(named(spare.scenario), spare.name)
    assert explorer.run().counterexample is None
    assert spare.name in explorer.rules.asked, "the scenario never comes to that part"
    assert spare_row(spare) in DOCS.read_text().splitlines()


def test_every_rule_has_a_mutant() -> None:
    assert {mutant.rule for mutant in MUTANTS} >= RULES
    assert {rule for rule, _, _ in ELSEWHERE} <= RULES
    assert set(elsewhere_rows()) <= set(DOCS.read_text().splitlines())


SMALL = [
    "two writers that expect what they read",
    "a consumer that is killed",
    "erase against a stream",
    "erase against a consumer of two chunks",
    "a rebuild against an erasure",
    "a chunk comes back against the collector",
]


@pytest.mark.parametrize("name", SMALL)
def test_statements_that_run_at_once_hide_no_end(name: str) -> None:
    reduced, whole = explorer_of(named(name)), explorer_of(named(name), bounds=Bounds(reduced=False))
    fewer, all_of_them = reduced.run(), whole.run()
    assert fewer.states < all_of_them.states
    assert all_of_them.counterexample is None
    assert reduced.ends == whole.ends
