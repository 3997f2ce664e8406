"""Writers: append in one transaction, stream under an open version, roll back, pin (rules 1, 2, 5 to 9)."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from tests.model.protocol import files, log
from tests.model.protocol.explorer import call
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, Session, Statement, Violation
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Chunk, Event, File, Segment, Version

Steps = Generator[Statement, Any, Any]


class State(NamedTuple):
    """What a writer decides by."""

    latest: int
    target: int
    content: str | None
    """Of the latest version, None where there is none."""
    models: tuple[str, ...]
    earlier: int | None
    """The version that an earlier try with the same idempotency key wrote."""


class Stored(NamedTuple):
    """What storing some segments came to."""

    segments: tuple[str, ...]
    shared: tuple[str, ...]
    added: tuple[str, ...]
    carried: tuple[str, ...]


# --- the file and its state -----------------------------------------------------------------------


def lock_file(rules: Rules, key: str) -> Steps:
    """Gets or creates the file of a key under its lock: insert, then select in a new statement (rule 2)."""
    if not rules.keep("6 key looked up again"):
        known = yield Statement(f"look {key} up", lambda session: session.get("keys", key))
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


def read_state(file: str, idempotency_key: str | None, *, quiet: bool = True) -> Statement:
    """What a writer decides by; read after the file's lock, in a statement of its own (rule 1)."""

    def run(session: Session) -> State:
        row = session.get("files", file)
        return State(
            row.latest,
            row.target,
            files.content_of(session, files.segments_of(session, file, row.latest)) if row.latest else None,
            tuple(sorted(session.rows("models"))),
            session.get("idempotency_keys", (file, idempotency_key)),
        )

    return Statement("read its state", run, quiet)


# --- storing --------------------------------------------------------------------------------------


def store(rules: Rules, file: str, number: int, runs: Sequence[str]) -> Statement:
    """Stores the segments and chunks that the file lacks, for version `number`, and names those that it holds.

    A segment is known only if an open or uncollected version lists it: another may be half swept.
    """

    def run(session: Session) -> Stored:
        states = (
            ("open", "committed")
            if rules.keep("manifests half swept")
            else ("open", "committed", "collected")
        )
        live = {
            segment
            for version in files.versions_of(session, file, *states).values()
            for segment in version.segments
            if segment in session.rows("segments")
        }
        known = {session.get("segments", segment).digest: segment for segment in live}
        held = {row.text: chunk for chunk, row in sorted(session.rows("chunks").items()) if row.file == file}
        segments: list[str] = []
        added: list[str] = []
        carried: list[str] = []
        for letters in runs:
            if letters not in known:
                for letter in letters:
                    if letter not in held:
                        held[letter] = f"{letter}.{file}.{number}"
                        session.insert("chunks", held[letter], Chunk(file, letter))
                        added.append(held[letter])
                    elif held[letter] not in added:
                        carried.append(held[letter])
                known[letters] = f"{letters}.{file}.{number}"
                chunks = tuple(held[letter] for letter in letters)
                session.insert("segments", known[letters], Segment(file, chunks, letters))
            segments.append(known[letters])
        shared = tuple(sorted({segment for segment in segments if segment in live}))
        return Stored(tuple(segments), shared, tuple(added), tuple(carried))

    return Statement("store its chunks and segments", run, quiet=True)


def log_version(
    rules: Rules,
    file: str,
    partition: int,
    version: int,
    models: tuple[str, ...],
    stored: Stored,
    manifest: Sequence[str],
    then: Sequence[Event],
    *,
    look_up: bool = True,
) -> Steps:
    """Logs every chunk that some model lacks (rules 8 and 9), then the events of `then`."""
    missing: set[str] = set()
    if look_up and (stored.shared or stored.carried):
        missing.update((yield _look_up(file, stored.shared, stored.carried, models)))
    if rules.keep("1 head"):
        yield log.lock_partition(partition)
    if rules.keep("9"):
        now = yield Statement("read the models again", lambda s: tuple(sorted(s.rows("models"))), quiet=True)
        if late := tuple(model for model in now if model not in models):
            missing.update((yield _look_up(file, manifest, (), late)))
    events = [
        *log.run(file, version, stored.added),
        *log.run(file, version, sorted(missing - set(stored.added))),
        *then,
    ]
    if events:
        yield from log.append(rules, partition, events, locked=rules.keep("1 head"))


def _look_up(file: str, segments: Sequence[str], chunks: Sequence[str], models: Sequence[str]) -> Statement:
    return Statement(
        "find what the models lack", lambda session: files.unembedded(session, file, segments, chunks, models)
    )


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
        "take a number", lambda session: _number(rules, session, file), quiet=True
    )
    stored = yield store(rules, file, number, content.split("|") if content else ())
    yield Statement(
        f"write version {number}",
        lambda session: _insert_committed(session, file, number, stored, expected),
        quiet=True,
    )
    if idempotency_key is not None:
        yield _record(file, idempotency_key, number)
    yield from log_version(
        rules, file, partition, number, state.models, stored, stored.segments,
        [Event("version_committed", 1, file, number)], look_up=rules.keep("8 reused"),
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _settled(
    rules: Rules, file: str, content: str, state: State, expected: int | None, idempotency_key: str | None
) -> Steps:
    """Whether the append needs no version: refused, an earlier try's, or unchanged. Ends the transaction then."""
    if state.earlier is not None:
        earlier = state.earlier
        yield Statement(
            f"return version {earlier}", lambda session: _check_answer(session, file, earlier), quiet=True
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
        yield _record(file, idempotency_key, state.latest)
    segments, partition = yield Statement(
        "read the latest's segments",
        lambda s: (files.segments_of(s, file, state.latest), log.partition_of(s, file)),
        quiet=True,
    )
    stored = Stored(segments, tuple(sorted(set(segments))), (), ())
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


def _check_answer(session: Session, file: str, version: int) -> None:
    row = session.get("versions", (file, version))
    if row is None or row.state not in ("committed", "collected"):
        raise Violation("answer", f"a retried append is given version {version}, which was never committed")


def _check_unchanged(session: Session, file: str) -> None:
    row = session.get("files", file)
    if row.target != row.latest:
        raise Violation(
            "answer", f"{file} is called unchanged, but version {row.target} is what becomes active"
        )


def _number(rules: Rules, session: Session, file: str) -> tuple[int, int]:
    row = session.get("files", file)
    number = (row.last_version if rules.keep("6 counter") else row.latest) + 1
    return number, log.partition_of(session, file)


def _check_expected(session: Session, file: str, expected: int | None) -> None:
    latest = session.get("files", file).latest
    if expected is not None and expected != latest:
        raise Violation(
            "expected version", f"an append that expected version {expected} comes after {latest}"
        )


def _insert_committed(session: Session, file: str, number: int, stored: Stored, expected: int | None) -> None:
    _check_expected(session, file, expected)
    session.insert("versions", (file, number), Version("committed", stored.segments))
    row = session.get("files", file)
    session.update(
        "files", file, row._replace(last_version=max(number, row.last_version), latest=number, target=number)
    )


def _record(file: str, idempotency_key: str, version: int) -> Statement:
    return Statement(
        "record the idempotency key",
        lambda session: session.insert("idempotency_keys", (file, idempotency_key), version),
        quiet=True,
    )


# --- streamed -------------------------------------------------------------------------------------


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
            lambda session: _check_answer(session, file, state.earlier),
            quiet=True,
        )
        yield ABORT
        return None
    if expected is not None and expected != state.latest:
        yield ABORT
        return None
    number, _ = yield Statement("take a number", lambda session: _number(rules, session, file), quiet=True)
    yield Statement(f"open version {number}", lambda session: _open(session, file, number), quiet=True)
    if not rules.keep("7 key recorded at the commit"):
        yield _record(file, idempotency_key or "", number)
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
    """Commits an open version, after all that was checked at its opening was checked again (rules 5 and 7)."""
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
        yield from _abandon(rules, file, number)
        return
    yield Statement(
        f"commit version {number}", lambda session: _commit(session, file, number, expected), quiet=True
    )
    if idempotency_key is not None and rules.keep("7 key recorded at the commit"):
        yield _record(file, idempotency_key, number)
    segments, partition = yield Statement(
        "read its segments",
        lambda s: (files.segments_of(s, file, number), log.partition_of(s, file)),
        quiet=True,
    )
    yield from log_version(
        rules, file, partition, number, state.models, Stored((), (), (), ()), segments,
        [Event("version_committed", 1, file, number, target=number > state.latest)],
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _commit(session: Session, file: str, number: int, expected: int | None) -> None:
    _check_expected(session, file, expected)
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


# --- target and pins ------------------------------------------------------------------------------


def roll_back(rules: Rules, key: str, to: int) -> Steps:
    """Makes an earlier version the target and logs what it lacks (rules 8 and 9)."""
    file = yield files.lock_by_key(key)
    if file is None:
        yield ABORT
        return
    state = yield read_state(file, None)
    segments, partition, known = yield Statement(
        f"read version {to}", lambda session: _committed(session, file, to), quiet=True
    )
    if not known or state.target == to:
        yield ABORT
        return
    yield Statement(
        f"make version {to} the target", lambda session: _set_target(session, file, to), quiet=True
    )
    stored = Stored(segments, tuple(sorted(set(segments))), (), ())
    yield from log_version(
        rules, file, partition, to, state.models, stored, segments,
        [Event("target_changed", 1, file, to, previous=state.target)], look_up=rules.keep("8 rollback"),
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _committed(session: Session, file: str, version: int) -> tuple[tuple[str, ...], int, bool]:
    row = session.get("versions", (file, version))
    known = row is not None and row.state == "committed"
    return row.segments if known else (), log.partition_of(session, file), known


def _set_target(session: Session, file: str, to: int) -> None:
    session.update("files", file, session.get("files", file)._replace(target=to))


def pin(rules: Rules, key: str, version: int) -> Steps:
    """Keeps a version against the retention."""
    file = yield files.lock_by_key(key)
    if file is None:
        yield ABORT
        return
    _, partition, known = yield Statement(
        f"read version {version}", lambda session: _committed(session, file, version), quiet=True
    )
    if not known:
        yield ABORT
        return
    yield Statement(f"pin version {version}", lambda session: _pin(session, file, version), quiet=True)
    yield from log.append(rules, partition, [Event("pinned", 1, file, version)])
    yield COMMIT_AT_ONCE


def _pin(session: Session, file: str, version: int) -> None:
    session.update(
        "versions", (file, version), session.get("versions", (file, version))._replace(pinned=True)
    )
