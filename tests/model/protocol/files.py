"""What is read under a file's lock: its manifests, the chunks and segments that it holds, what is needed."""

from collections.abc import Collection, Generator, Iterable
from typing import Any

from tests.model.protocol.postgres import NO_KEY_UPDATE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Version


def lock_known(file: str) -> Statement:
    """Locks a file by its number."""
    return Statement(f"lock file {file}", lambda session: session.lock("files", file, NO_KEY_UPDATE))


def lock_by_key(key: str) -> Statement:
    """Locks the file of a key if it is there; whoever waited for an erasure finds none."""

    def run(session: Session) -> str | None:
        file = session.get("keys", key)
        if file is not None:
            session.lock("files", file, NO_KEY_UPDATE)
        return file

    return Statement(f"lock the file of {key}", run)


def versions_of(session: Session, file: str, *states: str) -> dict[int, Version]:
    """The versions of a file in one of the states."""
    return {
        number: version
        for (owner, number), version in session.rows("versions").items()
        if owner == file and version.state in states
    }


def chunks_of(session: Session, segments: Iterable[str]) -> list[str]:
    """The chunks that segments name, in order; a segment that is gone names none."""
    rows = session.rows("segments")
    return [chunk for segment in segments if segment in rows for chunk in rows[segment].chunks]


def content_of(session: Session, segments: Iterable[str]) -> str:
    """The content that segments hold, by their digests."""
    rows = session.rows("segments")
    return "|".join(rows[segment].digest for segment in segments)


def segments_of(session: Session, file: str, version: int | None) -> tuple[str, ...]:
    """The manifest of a version; empty where it is not there."""
    row = session.get("versions", (file, version))
    return () if row is None else row.segments


def needed_segments(session: Session, file: str, *, with_open: bool = True) -> set[str]:
    """The segments of the versions that may still become searchable: the target and the open ones."""
    target = session.rows("files")[file].target
    return {
        segment
        for number, version in versions_of(session, file, "open", "committed").items()
        if (version.state == "open" and with_open) or number == target
        for segment in version.segments
    }


def unembedded(
    rules: Rules,
    session: Session,
    file: str,
    segments: Iterable[str],
    models: Collection[str],
    chunks: Collection[str] = (),
    found_in: Collection[str] = (),
) -> tuple[str, ...]:
    """The chunks that some of the models have neither embedded nor been told to do without.

    Segments of the model's active version are complete, and so are `chunks` where they all are in
    `found_in` and it lists all of those; its open dead letters are not (rules 8 and 16).
    """
    embeddings, dead = session.rows("embeddings"), session.rows("dead_letters")
    segments = list(segments)
    missing: set[str] = set()
    for model in models:
        active = session.get("active", (file, model))
        complete = set(segments_of(session, file, active.version)) if active else set()
        given_up = [
            chunk
            for (chunk, of), state in dead.items()
            if of == model and state == "open" and (chunk in chunks_of(session, segments) or chunk in chunks)
        ]
        taken = found_in and (complete.issuperset(found_in) or not rules.keep("16 carried"))
        asked = () if taken else chunks
        for chunk in (*chunks_of(session, [s for s in segments if s not in complete]), *asked, *given_up):
            if (chunk, model) not in embeddings and dead.get((chunk, model)) != "discarded":
                missing.add(chunk)
    return tuple(sorted(missing))


Program = Generator[Statement, Any, Any]
