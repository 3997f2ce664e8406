"""One table of what a soak did and found, as plain text that a document can take over."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from tests.soak.journal import Heard, Line, Looked, Operation, operations

_WIDTH = 110


class Tally(msgspec.Struct):
    """The counts of one soak."""

    seed: int
    seconds: int
    faults: Counter[str]
    operations: list[Operation]
    errors: Counter[str]
    searches: int
    files: int
    ended: Counter[str]
    drained_in: float
    memory: dict[str, tuple[int, int]]
    """By role, in bytes, at the start and at the end."""
    rows: dict[str, int]
    left_over: dict[str, int]
    violations: list[str]


def errors_met(journals: Iterable[Sequence[Line]]) -> Counter[str]:
    """Every error that a caller saw, tried again or not, by its label."""
    met: Counter[str] = Counter()
    for lines in journals:
        met.update(line.label for line in lines if isinstance(line, Heard))
        met.update(done.note for done in operations(list(lines)) if done.outcome in {"refused", "unanswered"})
    del met["killed"]
    return met


def looked(journals: Iterable[Sequence[Line]]) -> list[Looked]:
    """Every search that was checked."""
    return [line for lines in journals for line in lines if isinstance(line, Looked)]


def show(tally: Tally) -> None:
    """Prints the table."""
    table = Table(
        box=box.MARKDOWN, title=f"{tally.seconds} s of faults, SOAK_SEED={tally.seed}", title_justify="left"
    )
    table.add_column("what")
    for column in ("count", "refused", "unanswered"):
        table.add_column(column, justify="right")
    _section(table, "faults injected", tally.faults)
    kinds: dict[str, Counter[str]] = {}
    for done in tally.operations:
        kinds.setdefault(done.begun.kind, Counter())[done.outcome] += 1
    whole = Counter(done.outcome for done in tally.operations)
    table.add_row("**operations**", *_outcomes(whole))
    for kind, outcomes in sorted(kinds.items()):
        table.add_row(kind, *_outcomes(outcomes))
    _section(table, "errors that callers met", tally.errors)
    _section(table, "processes that ended by themselves", tally.ended)
    table.add_row("**searches checked**", f"{tally.searches:,}")
    table.add_row("files in them", f"{tally.files:,}")
    table.add_row("**memory at the start, at the end** (MB)")
    for role, (start, end) in tally.memory.items():
        table.add_row(role, f"{start / 1e6:,.0f}", f"{end / 1e6:,.0f}")
    _section(table, "rows", tally.rows, total=False)
    _section(table, "left over", tally.left_over)
    table.add_row("**seconds to drain**", f"{tally.drained_in:.1f}")
    table.add_row("**violations**", f"**{len(tally.violations)}**")
    Console(file=sys.stdout, width=_WIDTH, color_system=None, markup=False).print(table)
    print(*tally.violations, sep="\n")


def _section(table: Table, title: str, counts: dict[str, int], *, total: bool = True) -> None:
    table.add_row(f"**{title}**", f"{sum(counts.values()):,}" if total else "")
    for name, count in sorted(counts.items()):
        table.add_row(name, f"{count:,}")


def _outcomes(counts: Counter[str]) -> list[str]:
    return [f"{sum(counts.values()):,}", *(f"{counts[each]:,}" for each in ("refused", "unanswered"))]
