"""Streams: batches under an open version that nobody sees until its commit (rules 4, 5 and 7)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import files, log
from tests.model.protocol.manifests import State, Stored, committed, log_version, read_state, store
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event, Version
from tests.model.protocol.states import call
from tests.model.protocol.writer import check_answer, check_expected, lock_file, number_of, record

Steps = Generator[Statement, Any, Any]


def stream(
    rules: Rules,
    key: str,
    batches: tuple[str, ...],
    expected: int | None = None,
    idempotency_key: str | None = None,
) -> Steps:
    """Opens a version that nobody sees until its commit; the batches follow."""
    file = yield from lock_file(rules, key)
    state = yield read_state(file, idempotency_key)
    if state.earlier is not None:
        yield Statement(
            f"return version {state.earlier}",
            lambda session: check_answer(session, file, state.earlier),
            quiet=True,
        )
        yield ABORT
        return None
    if expected is not None and expected != state.latest:
        yield ABORT
        return None
    number, _ = yield Statement("take a number", lambda session: number_of(rules, session, file), quiet=True)
    yield Statement(f"open version {number}", lambda session: _open(session, file, number), quiet=True)
    if not rules.keep("7 key recorded at the commit"):
        yield record(file, idempotency_key or "", number)
    yield COMMIT_AT_ONCE
    return call(add_batch, file, number, batches, 0, expected, idempotency_key)


def _open(session: Session, file: str, number: int) -> None:
    session.insert("versions", (file, number), Version("open", deadline_from=_now(session)))
    row = session.get("files", file)
    session.update("files", file, row._replace(last_version=max(number, row.last_version)))


def _now(session: Session) -> int:
    return session.rows("time")["now"]


def add_batch(
    rules: Rules,
    file: str,
    number: int,
    batches: tuple[str, ...],
    at: int,
    expected: int | None,
    key: str | None,
) -> Steps:
    """Adds a batch, if the version is still open (rule 5), and renews its deadline (rule 4)."""
    began = None
    if not rules.keep("4"):
        began = yield Statement("begin", _now)
    state = yield from _lock_open(rules, file, number, None)
    if state is None:
        return None
    stored = yield store(rules, file, number, [batches[at]])
    yield Statement(
        f"extend version {number}", lambda session: _extend(session, file, number, stored, began), quiet=True
    )
    partition = yield Statement(
        "read its partition", lambda session: log.partition_of(session, file), quiet=True
    )
    yield from log_version(
        rules,
        file,
        partition,
        number,
        state.models,
        stored,
        stored.segments,
        (),
        look_up=rules.keep("8 reused"),
    )
    yield COMMIT_AT_ONCE
    if at + 1 < len(batches):
        return call(add_batch, file, number, batches, at + 1, expected, key)
    return call(commit, file, number, "|".join(batches), expected, key)


def _lock_open(rules: Rules, file: str, number: int, idempotency_key: str | None) -> Steps:
    if not rules.keep("5 lock"):
        is_open = yield Statement("is it still open?", lambda session: _is_open(session, file, number))
        if not is_open:
            yield ABORT
            return None
        yield files.lock_known(file)
        return (yield read_state(file, idempotency_key))
    yield files.lock_known(file)
    if rules.keep("5 open"):
        is_open = yield Statement(
            "is it still open?", lambda session: _is_open(session, file, number), quiet=True
        )
        if not is_open:
            yield ABORT
            return None
    return (yield read_state(file, idempotency_key))


def _is_open(session: Session, file: str, number: int) -> bool:
    version = session.get("versions", (file, number))
    return version is not None and version.state == "open"


def _extend(session: Session, file: str, number: int, stored: Stored, began: int | None) -> None:
    """The deadline runs from the clock, not from when the transaction began (rule 4)."""
    row = session.get("versions", (file, number)) or Version("open")
    now = _now(session)
    extended = row._replace(
        segments=(*row.segments, *stored.segments),
        overdue=began is not None and began < now,
        deadline_from=now,
    )
    session.update("versions", (file, number), extended)


def commit(
    rules: Rules, file: str, number: int, content: str, expected: int | None, idempotency_key: str | None
) -> Steps:
    """Commits an open version, after what was checked at its opening is checked again (rules 5 and 7)."""
    state = yield from _lock_open(rules, file, number, idempotency_key)
    if state is None:
        return
    again = state
    if not rules.keep("7 key checked at the commit"):
        again = again._replace(earlier=None)
    if not rules.keep("7 expected at the commit"):
        again = again._replace(latest=expected if expected is not None else state.latest, content=None)
    if again.earlier is not None or (expected is not None and expected != again.latest):
        yield from _abandon(rules, file, number)
        return
    if again.content == content and again.target == again.latest:
        yield from _unchanged(rules, file, number, state)
        return
    yield Statement(
        f"commit version {number}", lambda session: _commit(session, file, number, expected), quiet=True
    )
    if idempotency_key is not None and rules.keep("7 key recorded at the commit"):
        yield record(file, idempotency_key, number)
    segments, partition = yield Statement(
        "read its segments",
        lambda s: (files.segments_of(s, file, number), log.partition_of(s, file)),
        quiet=True,
    )
    yield from log_version(
        rules, file, partition, number, state.models, Stored(), segments,
        [committed(rules, file, number, state)],
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _unchanged(rules: Rules, file: str, number: int, state: State) -> Steps:
    """Gives the open version up for the latest, which holds the same, and logs what that still lacks."""
    yield Statement(f"abandon version {number}", lambda session: abandon(session, file, number), quiet=True)
    segments, partition = yield Statement(
        "read the latest's segments",
        lambda s: (files.segments_of(s, file, state.latest), log.partition_of(s, file)),
        quiet=True,
    )
    yield from log_version(
        rules, file, partition, state.latest, state.models,
        Stored(segments, tuple(sorted(set(segments)))), segments,
        [Event("version_abandoned", 1, file, number)],
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _commit(session: Session, file: str, number: int, expected: int | None) -> None:
    check_expected(session, file, expected)
    row = session.get("versions", (file, number)) or Version("open")
    session.update("versions", (file, number), row._replace(state="committed", overdue=False))
    state = session.get("files", file)
    target = number if number > state.latest else state.target
    session.update("files", file, state._replace(latest=max(number, state.latest), target=target))


def _abandon(rules: Rules, file: str, number: int) -> Steps:
    yield Statement(f"abandon version {number}", lambda session: abandon(session, file, number), quiet=True)
    partition = yield Statement(
        "read its partition", lambda session: log.partition_of(session, file), quiet=True
    )
    yield from log.append(rules, partition, [Event("version_abandoned", 1, file, number)])
    yield COMMIT_AT_ONCE


def abandon(session: Session, file: str, number: int) -> None:
    """Gives an open version up; its writer is fenced off and its chunks can be swept."""
    row = session.get("versions", (file, number))
    session.update("versions", (file, number), row._replace(state="abandoned", overdue=False))
