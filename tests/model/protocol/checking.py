"""Runs scenarios and mutants, and writes what came out as the tables of docs/reliability.md."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from tests.model.protocol.clock import time_passes
from tests.model.protocol.explorer import Explorer
from tests.model.protocol.invariants import check_of
from tests.model.protocol.mutants import ELSEWHERE, Mutant, Spare
from tests.model.protocol.rules import Rules
from tests.model.protocol.scenarios import scenarios
from tests.model.protocol.states import Counterexample, Result, Scenario


class Bounds(NamedTuple):
    """How far an exploration goes."""

    crashes: int = 0
    """Crashes more than the scenario has, of any process that runs for ever."""
    expiries: int = 0
    """Leases and deadlines that run out early, more than the scenario has."""
    reduced: bool = True
    """Whether quiet statements run at once after the one before them."""
    states: int = 1_000_000


IN_CI = Bounds()


def explorer_of(scenario: Scenario, *without: str, bounds: Bounds = IN_CI) -> Explorer:
    """An explorer of the scenario with some rules left out."""
    kept = scenario.rules or Rules()
    # Every crash and every early expiry may cost a chunk an attempt, with which nothing is wrong.
    attempts = kept.attempts + bounds.crashes + bounds.expiries
    rules = replace(kept, without=frozenset(without), attempts=attempts, asked=set())
    larger = scenario._replace(
        processes=tuple(
            process._replace(crashes=process.crashes or (process.repeats and bounds.crashes > 0))
            for process in scenario.processes
        ),
        crashes=scenario.crashes + bounds.crashes,
        expiries=scenario.expiries + bounds.expiries,
    )
    return Explorer(
        larger,
        rules,
        check_of(larger, rules),
        time_passes,
        reduced=bounds.reduced,
        in_order=not any(name.startswith("order") for name in without),
        limit=bounds.states,
    )


def explore(scenario: Scenario, *without: str, bounds: Bounds = IN_CI) -> Result:
    """Explores the scenario with some rules left out."""
    return explorer_of(scenario, *without, bounds=bounds).run()


def named(name: str) -> Scenario:
    """The scenario of that name."""
    return next(scenario for scenario in scenarios() if scenario.name == name)


# --- tables ---------------------------------------------------------------------------------------


def scenario_row(scenario: Scenario, result: Result) -> str:
    """A scenario's line in the docs."""
    processes = ", ".join(process.name for process in scenario.processes)
    faults = f"{scenario.crashes} / {scenario.expiries}"
    return f"| {scenario.name} | {processes} | {faults} | {result.states:,} | {result.ends:,} |"


def mutant_row(mutant: Mutant, found: Counterexample) -> str:
    """A mutant's line in the docs."""
    rule = mutant.rule if mutant.rule.isdigit() else f"({mutant.rule})"
    return f"| {rule} | {mutant.instead} | {mutant.scenario} | {len(found.trace)} | {found.what} |"


def spare_row(spare: Spare) -> str:
    """A line in the docs for a part of a rule whose removal breaks nothing."""
    return f"| {spare.name.split()[0]} | {spare.instead} | {spare.why} |"


def elsewhere_rows() -> Iterable[str]:
    """Lines in the docs for parts of rules that no order of statements decides."""
    return (f"| {rule} | {part} | {where} |" for rule, part, where in ELSEWHERE)


def trace_text(mutant: Mutant, found: Counterexample) -> str:
    """A mutant's counterexample, a statement a line."""
    steps = "\n".join(f"{number:3}. {line}" for number, line in enumerate(found.trace, 1))
    header = f"## {mutant.name}: {mutant.instead}\n\nIn *{mutant.scenario}*."
    return f"{header}\n\n```text\n{steps}\n     {found.what}\n```\n"
