"""The list of pairs is the architecture's: each step that locks is held in some operation, and listed."""

from pathlib import Path

from tests.interleavings.operations import OPERATIONS
from tests.interleavings.pairs import ROOT, UNLOCKED, meet_over, pairs, steps, table
from tests.interleavings.test_interleavings import NAMED, SHARPEST

DOCS: Path = ROOT / "docs" / "reliability.md"


def test_every_step_of_the_protocol_that_locks_is_held_in_some_operation() -> None:
    taken = {step for operation in OPERATIONS for step in operation.steps}
    assert taken | set(UNLOCKED) == set(steps())
    assert taken & set(UNLOCKED) == set()


def test_the_document_lists_what_meets() -> None:
    text = DOCS.read_text(encoding="utf-8")
    written = text.partition("<!-- interleavings -->\n")[2].partition("\n<!-- end of interleavings -->")[0]
    assert written.splitlines() == table(), "write it anew: python -m tests.interleavings"
    assert f"{len(pairs())} pairs" in text


def test_the_pairs_that_always_run_can_meet() -> None:
    for name, partners in SHARPEST.items():
        for partner in partners:
            assert meet_over(NAMED[name], NAMED[partner]), f"{name} and {partner}"
