"""Runs the model at larger bounds, or writes what a run at CI's bounds found into the docs.

    python -m tests.model.protocol                 larger: a crash and an early expiry more; every mutant
python -m tests.model.protocol NAME [RULE …]   the scenarios of that name, with rules left out, and the trace
python -m tests.model.protocol --write         the tables of docs/reliability.md and traces.md
"""

import sys
import time
from pathlib import Path

from tests.model.protocol.checking import (
    Bounds,
    elsewhere_rows,
    explore,
    mutant_row,
    named,
    scenario_row,
    spare_row,
    trace_text,
)
from tests.model.protocol.mutants import MUTANTS, SPARES
from tests.model.protocol.removal import at_large
from tests.model.protocol.scenarios import scenarios
from tests.model.protocol.states import Result, Scenario

HERE = Path(__file__).parent
DOCS = HERE.parents[2] / "docs" / "reliability.md"
TRACES = HERE / "traces.md"
LARGER = Bounds(crashes=1, expiries=1, states=500_000)


def main(arguments: list[str]) -> int:
    """Does what the arguments say; returns how many runs came out otherwise than they should."""
    if arguments == ["--write"]:
        write()
        return 0
    if arguments:
        name, *without = arguments
        return sum(_run(scenario, *without) for scenario in scenarios() if name in scenario.name)
    wrong = sum(_run(scenario, bounds=Bounds(states=1_000_000)) for scenario in at_large())
    wrong += sum(_run(scenario, bounds=LARGER) for scenario in scenarios())
    for mutant in MUTANTS:
        result = explore(named(mutant.scenario), mutant.name)
        found = result.counterexample
        print(f"without {mutant.name}: {found.what if found else 'NOTHING'}", flush=True)
        wrong += found is None or found.broken != mutant.breaks
    return wrong


def _run(scenario: Scenario, *without: str, bounds: Bounds | None = None) -> int:
    begun = time.process_time()
    result = explore(scenario, *without, bounds=bounds or Bounds())
    cut = "" if result.complete else " (cut off: not all states)"
    seconds = time.process_time() - begun
    print(
        f"{result.states:9,} states {result.ends:6,} ends {seconds:7.1f} s  {scenario.name}{cut}", flush=True
    )
    if result.counterexample is None:
        return 0
    print("\n".join(("  " + line) for line in (*result.counterexample.trace, result.counterexample.what)))
    return 1


def write() -> None:
    """Writes the tables between the marks of the docs, and every trace."""
    rows = {"scenarios": [scenario_row(scenario, _clean(scenario)) for scenario in scenarios()]}
    rows["mutants"], traces = [], []
    for mutant in MUTANTS:
        found = explore(named(mutant.scenario), mutant.name).counterexample
        assert found is not None, mutant.name
        rows["mutants"].append(mutant_row(mutant, found))
        traces.append(trace_text(mutant, found))
    rows["spares"] = [spare_row(spare) for spare in SPARES]
    rows["elsewhere"] = list(elsewhere_rows())
    text = DOCS.read_text()
    for name, lines in rows.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        header, after = rest.split(f"<!-- end of {name} -->")
        head = "\n".join(header.splitlines()[:2])
        text = f"{before}<!-- {name} -->\n{head}\n" + "\n".join(lines) + f"\n<!-- end of {name} -->{after}"
    DOCS.write_text(text)
    TRACES.write_text("# The shortest counterexample of each mutant\n\n" + "\n".join(traces))


def _clean(scenario: Scenario) -> Result:
    result = explore(scenario)
    assert result.counterexample is None, result.counterexample
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
