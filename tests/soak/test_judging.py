"""The judge of the soak finds what it is there to find: each kind of violation, made by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from chunkstore.model import FileId, Version
from tests.soak.contents import ABSENT, COUNTED, FIRST, STEADY, held
from tests.soak.journal import Begun, Heard, Looked, Operation, Outcome, operations
from tests.soak.judging import lost, shared
from tests.soak.promises import is_promised, raised_in_log, told_wrong
from tests.soak.writing import Own

KEY = STEADY[0]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def version(number: int, stamp: str, **more: object) -> Version:
    committed_at = NOON + timedelta(seconds=number)
    return Version(
        collection="files",
        key=KEY,
        file=FileId(1),
        number=number,
        chunks=1,
        metadata={"stamp": stamp, **more},
        committed_at=committed_at,
    )


def history(*versions: Version) -> dict[int, Version]:
    return {each.number: each for each in (version(1, FIRST), *versions)}


def appended(
    number: int | None, makes: str, outcome: Outcome = "done", expected: int | None = None
) -> Operation:
    return Operation(Begun(0, "append", KEY, makes, expected), outcome, number, "")


def test_what_was_answered_and_is_there_is_right() -> None:
    done = [
        appended(2, "w.1", expected=1),
        appended(None, "w.2", "unanswered"),
        appended(None, "w.3", "refused"),
    ]
    contents, wrong = shared(KEY, done, history(version(2, "w.1")))
    assert (contents, wrong) == ([held(KEY, "w.1")], [])


def test_what_was_not_answered_may_be_there() -> None:
    contents, wrong = shared(KEY, [appended(None, "w.1", "unanswered")], history(version(2, "w.1")))
    assert (contents, wrong) == ([held(KEY, "w.1")], [])


@pytest.mark.parametrize(
    ("done", "then", "told"),
    [
        (appended(2, "w.1"), history(), "lost"),
        (appended(2, "w.1"), history(version(2, "w.2")), "another's version"),
        (appended(None, "w.1", "refused"), history(version(2, "w.1")), "refused, and is there"),
        (
            appended(3, "w.1", expected=1),
            history(version(2, FIRST), version(3, "w.1")),
            "overwrote version 2",
        ),
    ],
)
def test_what_was_answered_otherwise_than_it_is_there_is_wrong(
    done: Operation, then: dict[int, Version], told: str
) -> None:
    assert any(told in fault for fault in shared(KEY, [done], then)[1])


def test_a_number_that_was_counted_twice_is_a_lost_update() -> None:
    counted = {number: version(number, FIRST, count=count) for number, count in [(1, 0), (2, 1), (3, 1)]}
    assert any("an update was lost" in fault for fault in shared(COUNTED[0], [], counted)[1])


def test_a_tombstone_that_is_none_is_lost() -> None:
    deleted = Operation(Begun(0, "delete", KEY, "gone w.1"), "done", 2, "")
    assert lost(KEY, [deleted], history(version(2, "w.1")))


def test_a_file_may_hold_what_was_answered_last_or_was_not_answered_since() -> None:
    own = Own({ABSENT})
    for operation in (
        appended(1, "w.1"),
        appended(2, "w.2"),
        appended(None, "w.3", "unanswered"),
        appended(None, "w.4", "refused"),
    ):
        own.takes(operation)
    assert own.possible == {"w.2", "w.3"}


def test_an_operation_that_its_process_did_not_outlive_is_unanswered() -> None:
    (operation,) = operations([Begun(0, "append", KEY)])
    assert operation.outcome == "unanswered"


@pytest.mark.parametrize(
    ("end", "promised"),
    [
        ("embed: SIGKILL", True),
        ("project: SIGKILL", False),
        ("project: exit 1: chunkstore.errors.ServerUnreachable", True),
        ("project: exit 1: chunkstore.errors.DatabaseError 40P01", False),
        ("write: exit 1: AssertionError", False),
        ("write: exit 1: nothing said", False),
    ],
)
def test_a_process_may_end_by_its_model_or_by_an_error_that_is_promised(end: str, promised: bool) -> None:
    assert is_promised(end) == promised


def test_a_search_that_is_wrong_and_an_error_that_nobody_promised_are_told() -> None:
    lines = [Looked(1, ["mixed"]), Looked(1), Heard("DatabaseError 23505"), Heard("ServerUnreachable")]
    assert told_wrong([], [lines], {}) == ["mixed", "a caller met DatabaseError 23505"]


def test_a_deadlock_in_the_log_counts_unless_an_injected_trigger_is_part_of_it() -> None:
    deadlock = ["ERROR:  deadlock detected", "DETAIL:  Process 1 waits"]
    assert raised_in_log("\n".join([*deadlock, "Process 1: SELECT"])) == deadlock[:1]
    assert raised_in_log("\n".join([*deadlock, "Process 1: DROP FUNCTION raise_injected CASCADE"])) == []
