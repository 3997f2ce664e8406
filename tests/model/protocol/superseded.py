"""What was superseded goes: by a switch, a rollback, a late commit, a late embedding (rule 18)."""

from collections.abc import Generator, Sequence
from typing import Any

from tests.model.protocol import files, log
from tests.model.protocol.postgres import COMMIT_AT_ONCE, KEY_SHARE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Checkpoint, Event
from tests.model.protocol.states import call

Steps = Generator[Statement, Any, Any]


def clear(rules: Rules, me: str, model: str, partition: int, epoch: int, events: tuple[Event, ...]) -> Steps:
    """Removes search rows that a switch, a rollback or a late commit superseded (rule 18)."""
    event, *rest = events
    if not rest:
        return call(release, model, partition, epoch, event.version)
    if not rules.keep(f"18 {event.type}") or event.file is None:
        return call(clear, me, model, partition, epoch, tuple(rest))
    idle = yield Statement(
        f"find what {log.described(event)} left behind", lambda session: _idle(rules, session, model, event)
    )
    for file, chunks in idle:
        yield from _remove_superseded(rules, model, file, chunks)
    return call(clear, me, model, partition, epoch, tuple(rest))


def _remove_superseded(rules: Rules, model: str, file: str, chunks: tuple[str, ...]) -> Steps:
    if rules.keep("18 lock"):
        yield files.lock_known(file)
        yield Statement(
            "remove superseded search rows", lambda s: _remove(rules, s, model, file, chunks), quiet=True
        )
    else:
        superseded = yield Statement(
            "what is superseded?", lambda s: _superseded(rules, s, model, file, chunks)
        )
        yield Statement("remove search rows", lambda session: _delete(session, model, superseded))
    yield COMMIT_AT_ONCE


def _idle(
    rules: Rules, session: Session, model: str, event: Event
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The chunks, by file, whose search rows the event gives a reason to look at."""
    assert event.file is not None
    owners = session.rows("chunks")
    found: list[tuple[str, tuple[str, ...]]] = []
    for file in event.file.split(" "):
        if event.type == "chunks_embedded":
            looked_at = {chunk for chunk in event.chunks if chunk in owners and owners[chunk].file == file}
            looked_at -= _kept(rules, session, model, file)
        elif event.type in ("version_activated", "target_changed") or event.previous:
            looked_at = _left_behind(session, file, event.previous or 0, event.version)
        elif event.type == "version_abandoned" or not event.target:
            looked_at = _left_behind(session, file, event.version, session.get("files", file).target)
        else:
            continue
        staged = (chunk for chunk in looked_at if (chunk, model, "live") in session.rows("search"))
        if idle := tuple(sorted(staged)):
            found.append((file, idle))
    return tuple(found)


def _left_behind(session: Session, file: str, previous: int, active: int) -> set[str]:
    """What the versions from one to another name and the other does not."""
    low, high = min(previous, active), max(previous, active)
    old = {
        chunk
        for (owner, number), version in session.rows("versions").items()
        if owner == file and low <= number <= high and number != active
        for chunk in files.chunks_of(session, version.segments)
    }
    return old - set(files.chunks_of(session, files.segments_of(session, file, active)))


def _kept(rules: Rules, session: Session, model: str, file: str) -> set[str]:
    """What is active, target or open keeps its search rows."""
    active = session.get("active", (file, model))
    segments = files.needed_segments(session, file) if rules.keep("18 needed stays") else set[str]()
    if active is not None and rules.keep("18 active stays"):
        segments |= set(files.segments_of(session, file, active.version))
    return set(files.chunks_of(session, segments))


def _superseded(
    rules: Rules, session: Session, model: str, file: str, chunks: Sequence[str]
) -> tuple[str, ...]:
    kept = _kept(rules, session, model, file)
    return tuple(chunk for chunk in chunks if chunk not in kept)


def _remove(rules: Rules, session: Session, model: str, file: str, chunks: Sequence[str]) -> None:
    _delete(session, model, _superseded(rules, session, model, file, chunks))


def remove_swept(rules: Rules, session: Session, file: str, chunks: Sequence[str]) -> None:
    """Removes the superseded search rows of chunks that a sweep leaves to other versions, for every model."""
    for model in sorted(session.rows("models")):
        _remove(rules, session, model, file, chunks)


def _delete(session: Session, model: str, chunks: Sequence[str]) -> None:
    if not chunks:
        return
    session.lock("search_table", model, KEY_SHARE)
    for chunk in chunks:
        session.delete("search", (chunk, model, "live"))


def release(rules: Rules, model: str, partition: int, epoch: int, position: int) -> Steps:
    """Moves the checkpoint, if it is still held under the epoch, and gives its lease back."""
    yield Statement(
        "move the checkpoint", lambda session: _release(session, model, partition, epoch, position)
    )
    yield COMMIT_AT_ONCE


def _release(session: Session, model: str, partition: int, epoch: int, position: int) -> None:
    checkpoint: Checkpoint = session.get("checkpoints", (model, partition))
    if checkpoint.epoch == epoch:
        session.update("checkpoints", (model, partition), Checkpoint(position, epoch))
