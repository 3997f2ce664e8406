"""Writers: get or create the file, append a version in one transaction (rules 1, 2, 6 to 8)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import files, log
from tests.model.protocol.manifests import State, Stored, committed, log_version, read_state, store
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, Session, Statement, Violation
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import File, Version

Steps = Generator[Statement, Any, Any]


# --- the file -----------------------------------------------------------------------


def lock_file(rules: Rules, key: str) -> Steps:
    """Gets or creates the file of a key under its lock: insert, then select in a new statement (rule 2)."""
    if not rules.keep("6 key looked up again"):
        known: Any = yield Statement(f"look {key} up", lambda session: session.get("keys", key))
        if known is not None:
            yield files.lock_known(known)
            return known
    if not rules.keep("2"):
        found = yield Statement(f"look {key} up", lambda session: session.get("keys", key))
        if found is None:
            found = yield Statement(
                f"create {key}, return what was there at the start", lambda s: _create(s, key)
            )
        if found is None:
            yield Statement("use the file", lambda _: _refused(f"the writer of {key} gets no file"))
        yield files.lock_known(found)
        return found
    created = None
    while True:
        locked = yield files.lock_by_key(key)._replace(quiet=created is not None)
        if locked is not None:
            return locked
        created = yield Statement(f"create {key}", lambda session: _create(session, key))


def _create(session: Session, key: str) -> str | None:
    file = key + str(1 + sum(number[0] == key for number in session.rows("files")))
    if not session.insert_if_absent("keys", key, file):
        return None
    session.insert("files", file, File(key))
    return file


def _refused(what: str) -> None:
    raise Violation("nothing raised", what)


# --- in one transaction ---------------------------------------------------------------------------


def append(
    rules: Rules, key: str, content: str, expected: int | None = None, idempotency_key: str | None = None
) -> Steps:
    """Appends a version that fits one transaction; an empty content is a tombstone."""
    if rules.keep("1 state"):
        file = yield from lock_file(rules, key)
        state = yield read_state(file, idempotency_key)
    else:
        file = yield Statement(f"look {key} up", lambda session: session.get("keys", key))
        state = yield read_state(file, idempotency_key, quiet=False)
        yield files.lock_known(file)
    settled = yield from _settled(rules, file, content, state, expected, idempotency_key)
    if settled:
        return
    number, partition = yield Statement(
        "take a number", lambda session: number_of(rules, session, file), quiet=True
    )
    stored = yield store(rules, file, number, content.split("|") if content else (), state)
    yield Statement(
        f"write version {number}",
        lambda session: _insert_committed(session, file, number, stored, expected),
        quiet=True,
    )
    if idempotency_key is not None:
        yield record(file, idempotency_key, number)
    yield from log_version(
        rules, file, partition, number, state.models, stored, stored.segments,
        [committed(rules, file, number, state)], look_up=rules.keep("8 reused"),
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _settled(
    rules: Rules, file: str, content: str, state: State, expected: int | None, idempotency_key: str | None
) -> Steps:
    """Whether the append needs no version: refused, an earlier try's, unchanged. Ends the transaction."""
    if state.earlier is not None:
        earlier = state.earlier
        yield Statement(
            f"return version {earlier}", lambda session: check_answer(session, file, earlier), quiet=True
        )
        yield ABORT
        return True
    if expected is not None and expected != state.latest:
        yield ABORT
        return True
    if state.content != content or (
        state.target != state.latest and rules.keep("8 the latest is the target")
    ):
        return False
    yield Statement(
        f"return version {state.latest}, unchanged", lambda s: _check_unchanged(s, file), quiet=True
    )
    if idempotency_key is not None:
        yield record(file, idempotency_key, state.latest)
    segments, partition = yield Statement(
        "read the latest's segments",
        lambda s: (files.segments_of(s, file, state.latest), log.partition_of(s, file)),
        quiet=True,
    )
    stored = Stored(segments, tuple(sorted(set(segments))))
    yield from log_version(
        rules,
        file,
        partition,
        state.latest,
        state.models,
        stored,
        segments,
        (),
        look_up=rules.keep("8 unchanged"),
    )
    yield COMMIT_AT_ONCE
    return True


def check_answer(session: Session, file: str, version: int) -> None:
    row = session.get("versions", (file, version))
    if row is None or row.state not in ("committed", "collected"):
        raise Violation("answer", f"a retried append is given version {version}, which was never committed")


def _check_unchanged(session: Session, file: str) -> None:
    row = session.get("files", file)
    if row.target != row.latest:
        raise Violation(
            "answer", f"{file} is called unchanged, but version {row.target} is what becomes active"
        )


def number_of(rules: Rules, session: Session, file: str) -> tuple[int, int]:
    row = session.get("files", file)
    number = (row.last_version if rules.keep("6 counter") else row.latest) + 1
    return number, log.partition_of(session, file)


def check_expected(session: Session, file: str, expected: int | None) -> None:
    latest = session.get("files", file).latest
    if expected is not None and expected != latest:
        raise Violation(
            "expected version", f"an append that expected version {expected} comes after {latest}"
        )


def _insert_committed(session: Session, file: str, number: int, stored: Stored, expected: int | None) -> None:
    check_expected(session, file, expected)
    session.insert("versions", (file, number), Version("committed", stored.segments))
    row = session.get("files", file)
    session.update(
        "files", file, row._replace(last_version=max(number, row.last_version), latest=number, target=number)
    )


def record(file: str, idempotency_key: str, version: int) -> Statement:
    return Statement(
        "record the idempotency key",
        lambda session: session.insert("idempotency_keys", (file, idempotency_key), version),
        quiet=True,
    )
