"""Which operations can meet on the same rows: read off the tables of steps in docs/architecture.md.

`table` writes the section of docs/reliability.md; a test compares the two.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path

from tests.interleavings.operations import OPERATIONS, Operation

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"

_ROWS = {
    "progress": r"\bprogress\b",
    "leases": r"\bleases?\b",
    "checkpoints": r"\bcheckpoints?\b",
    "files": r"\bfiles?\b",
    "chunks": r"\bchunks?\b",
    "embeddings": r"\bembeddings\b",
    "dead letters": r"\bdead letters?\b",
    "collection_models": r"\bcollection_models\b",
    "search rows": r"\bsearch (rows|table)\b",
    "active rows": r"\bactive rows?\b",
    "partitions": r"\bpartitions?\b",
}
"""The rows of the lock order, and what the tables of steps call them."""

_OF_A_FILE = frozenset({"files", "chunks", "embeddings", "dead letters", "search rows", "active rows"})
"""Two operations on two files do not meet on these."""

UNLOCKED = {
    "read what a writer decides by": "under the file's lock",
    "find segments that the file holds": "under the file's lock",
    "find chunks that the file holds": "under the file's lock",
    "store new chunks": "under the file's lock",
    "store new segments": "under the file's lock",
    "find what a model lacks": "under the file's lock",
    "find what a switch or a rollback left behind": "locks nothing",
    "find what a version staged that never became the target": "locks nothing",
    "find what was superseded while embedded, once a batch of events": "locks nothing",
    "build, rebuild an index": "locks no rows",
}
"""Steps that no operation names: they are parts of others, and lock nothing of their own."""


@cache
def steps() -> dict[str, str]:
    """The steps of the protocol, and what each locks, in the architecture's words."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    section = text.partition("## The protocol, step by step")[2].partition("\n## ")[0]
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    found = {row[0].strip(): row[-1].strip() for row in cells if len(row) == 4}
    return {step: locks for step, locks in found.items() if step != "step" and not step.startswith("---")}


@cache
def locks(operation: Operation) -> frozenset[str]:
    """The kinds of rows that the operation locks, in any of its steps."""
    return frozenset(row for step in operation.steps for row in _named(step, steps()[step]))


def _named(step: str, text: str) -> Iterator[str]:
    if text.startswith("none"):
        return
    for row, pattern in _ROWS.items():
        if re.search(pattern, text):
            # A checkpoint is a row of progress, and not one that a consumer ever claims.
            yield "checkpoints" if row == "progress" and "checkpoint" in step else row


def meet_over(one: Operation, other: Operation) -> frozenset[str]:
    """The kinds of rows on which the two can meet; empty where they cannot."""
    if one.reads_all or other.reads_all:
        return frozenset({"all that it reads"})
    shared = (locks(one) & (locks(other) | other.reads)) | (locks(other) & one.reads)
    return shared if one.files & other.files else shared - _OF_A_FILE


def pairs() -> list[tuple[Operation, Operation]]:
    """Every two operations that can meet, each with itself, too."""
    return [
        (one, other) for one, other in combinations_with_replacement(OPERATIONS, 2) if meet_over(one, other)
    ]


# --- what the documents say ---------------------------------------------------------------------


def table() -> list[str]:
    """The lines of the two tables in docs/reliability.md."""
    lines = [
        "| rows | operations that lock them: every two of these can meet, and each can meet itself |",
        "| --- | --- |",
    ]
    for row in _ROWS:
        names = [operation.name for operation in OPERATIONS if row in locks(operation)]
        readers = [f"{operation.name} (reads)" for operation in OPERATIONS if row in operation.reads]
        lines.append(f"| {row} | {', '.join(names + readers)} |")
    readers = [operation.name for operation in OPERATIONS if operation.reads_all]
    lines.append(f"| all that it reads, without a lock | {', '.join(readers)}: each meets every operation |")
    lines += ["", "| operation | steps of it that lock | may end with | meets |", "| --- | --- | --- | --- |"]
    for one in OPERATIONS:
        partners = [other for other in OPERATIONS if meet_over(one, other)]
        missing = [other.name for other in OPERATIONS if not meet_over(one, other)]
        errors = ", ".join(f"`{error.__name__}`" for error in one.promised) or "no error"
        met = f"all but {', '.join(missing)}" if len(missing) <= 12 else ", ".join(o.name for o in partners)
        taken = "; ".join(one.steps) or "none"
        lines.append(f"| {one.name} | {taken} | {errors} | {met if missing else 'all'} |")
    return lines
