"""What callers, processes and the server's log may show; whatever else a soak saw is a violation."""

import re
from collections.abc import Mapping, Sequence

from tests.soak.journal import Line, Operation
from tests.soak.tally import errors_met, looked

PROMISED = {
    "ServerUnreachable",
    "VersionFenced",
    "StaleVersion",
    "Conflict",
    "UnknownFile",
    "UnknownVersion",
    "UnknownModel",
    "UnknownDeadLetter",
    "ModelIncomplete",
    "NeverActive",
    "WaitTimeout",
    "DatabaseError 40001",
    "DatabaseError 55P03",
    "DatabaseError 57014",
}
"""The errors that a caller may meet: those of its own doing, and those that were injected."""

_RAISED = re.compile(
    r"violates|duplicate key|deadlock detected|PANIC|signal 11|could not serialize|invalid page"
)
_INJECTED = "raise_injected"


def told_wrong(
    done: Sequence[Operation], journals: Sequence[Sequence[Line]], ended: Mapping[str, int]
) -> list[str]:
    """What the processes themselves found wrong, and errors that nobody promised."""
    wrong = [f"{each.begun.kind}: {each.note}" for each in done if each.outcome == "wrong"]
    wrong += [fault for search in looked(journals) for fault in search.faults]
    wrong += [f"a caller met {label}" for label in errors_met(journals) if label not in PROMISED]
    return wrong + [f"{process} ({n} times)" for process, n in ended.items() if not is_promised(process)]


def is_promised(end: str) -> bool:
    """Whether a process may end so: killed by its model, or with an error that a caller may meet."""
    role, how = end.split(": ", 1)
    return (role.startswith("embed") and how == "SIGKILL") or how.split(".")[-1] in PROMISED


def raised_in_log(log: str) -> list[str]:
    """What the server's log tells of violated constraints and deadlocks, an injected trigger's left out."""
    lines = log.splitlines()
    return [
        line
        for at, line in enumerate(lines)
        if _RAISED.search(line) and not any(_INJECTED in near for near in lines[at : at + 8])
    ]
