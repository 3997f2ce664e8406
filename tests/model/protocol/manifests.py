"""What writers share: the file's state, storing what it lacks, logging what models lack (rules 1, 8, 9)."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from tests.model.protocol import files, log
from tests.model.protocol.postgres import Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Chunk, Event, Segment

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

    segments: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    carried_from: tuple[str, ...] = ()
    """Segments that hold all that is carried; none where that is not known."""


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


def store(rules: Rules, file: str, number: int, runs: Sequence[str], state: State | None = None) -> Statement:
    """Stores the segments and chunks that the file lacks, for version `number`, and names what it holds.

    A segment is known only if an open or uncollected version lists it: another may be half swept. Chunks are
    matched in the segments of the latest version and of the target of `state`, else looked up by hash.
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
        listed = {
            segment
            for version in ((state.latest, state.target) if state else ())
            for segment in files.segments_of(session, file, version)
            if segment not in segments
        }
        held_in = listed if set(carried) <= set(files.chunks_of(session, sorted(listed))) else set[str]()
        return Stored(tuple(segments), shared, tuple(added), tuple(carried), tuple(sorted(held_in)))

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
        missing.update((yield _look_up(rules, file, stored, models)))
    if rules.keep("1 head"):
        yield log.lock_partition(partition)
    if rules.keep("9"):
        now = yield Statement("read the models again", lambda s: tuple(sorted(s.rows("models"))), quiet=True)
        if late := tuple(model for model in now if model not in models):
            missing.update((yield _look_up(rules, file, Stored(shared=tuple(manifest)), late)))
    events = [
        *log.run(file, version, stored.added),
        *log.run(file, version, sorted(missing - set(stored.added))),
        *then,
    ]
    if events:
        yield from log.append(rules, partition, events, locked=rules.keep("1 head"))


def _look_up(rules: Rules, file: str, stored: Stored, models: Sequence[str]) -> Statement:
    def run(session: Session) -> tuple[str, ...]:
        return files.unembedded(
            rules, session, file, stored.shared, models, stored.carried, stored.carried_from
        )

    return Statement("find what the models lack", run)


def committed(rules: Rules, file: str, number: int, state: State) -> Event:
    """The event of a commit; it names the target that it replaces where a rollback held that one."""
    if number < state.latest:
        return Event("version_committed", 1, file, number, target=False)
    rolled_to = state.target if state.target != state.latest and rules.keep("18 rollback replaced") else None
    return Event("version_committed", 1, file, number, previous=rolled_to)
