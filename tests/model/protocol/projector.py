"""The projector: follows the log and switches files to their complete targets (rules 15 to 17, 22)."""

from collections.abc import Generator, Sequence
from typing import Any

from tests.model.protocol import completion, files, log, superseded
from tests.model.protocol.postgres import (
    ABORT,
    COMMIT,
    COMMIT_AT_ONCE,
    UPDATE,
    Idle,
    Session,
    Statement,
    Violation,
)
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Active, Checkpoint, Event
from tests.model.protocol.states import call

Steps = Generator[Statement, Any, Any]

REASONS = (
    "version_committed",
    "target_changed",
    "chunks_embedded",
    "file_backfilled",
    "dead_letter_discarded",
    "dead_letter_retried",
)


def project(rules: Rules, me: str, model: str) -> Steps:
    """Claims the checkpoint of a partition that is behind and reads its events."""
    if not rules.keep("22"):
        yield Statement("look for a free checkpoint", lambda session: _look(session, me, model))
    partition, epoch, events = yield Statement("claim a checkpoint", lambda s: _claim(rules, s, me, model))
    yield COMMIT_AT_ONCE
    return call(activate, me, model, partition, epoch, events, _files_of(rules, events, model))


def _is_free(session: Session, me: str, model: str, partition: int) -> bool:
    checkpoint: Checkpoint = session.get("checkpoints", (model, partition))
    behind = log.head(session, partition) > checkpoint.position
    return behind and (checkpoint.owner is None or checkpoint.expired or checkpoint.owner == me)


def _look(session: Session, me: str, model: str) -> None:
    if not any(_is_free(session, me, model, partition) for partition in session.rows("partitions")):
        raise Idle


def _claim(rules: Rules, session: Session, me: str, model: str) -> tuple[int, int, tuple[Event, ...]]:
    """The lease is columns of the row that is locked (rule 22)."""
    for partition in sorted(session.rows("partitions")):
        key = (model, partition)
        if not _is_free(session, me, model, partition) and rules.keep("22"):
            continue
        if not session.lock_or_skip("checkpoints", key, UPDATE):
            continue
        checkpoint: Checkpoint = session.get("checkpoints", key)
        if not _is_free(session, me, model, partition):
            raise Violation("one in flight", f"{me} claims what {checkpoint.owner} holds")
        claimed = checkpoint._replace(epoch=checkpoint.epoch + 1, owner=me, expired=False)
        session.update("checkpoints", key, claimed)
        events = tuple(
            event
            for (where, last), event in sorted(session.rows("events").items())
            if where == partition and last >= checkpoint.position and _concerns(event, model)
        )
        return partition, claimed.epoch, (*events, Event("head", version=log.head(session, partition)))
    raise Idle


def _concerns(event: Event, model: str) -> bool:
    return event.type not in ("chunks_appended", "pinned") and event.model in (None, model)


def _files_of(rules: Rules, events: Sequence[Event], model: str) -> tuple[str, ...]:
    """The files that the events give a reason to look at (rule 16)."""
    reasons = [reason for reason in REASONS if rules.keep(f"16 {reason}")]
    return tuple(
        sorted(
            {
                file
                for event in events
                if event.type in reasons and event.file
                for file in event.file.split(" ")
            }
        )
    )


# --- switch ---------------------------------------------------------------------------------------


def activate(
    rules: Rules,
    me: str,
    model: str,
    partition: int,
    epoch: int,
    events: tuple[Event, ...],
    left: tuple[str, ...],
) -> Steps:
    """Switches the files whose target is complete, one a transaction: checkpoint, file, rows, partition."""
    if not left:
        return call(superseded.clear, me, model, partition, epoch, events)
    file = left[0]
    mine = yield Statement(
        "lock the checkpoint", lambda session: _lock_checkpoint(session, me, model, partition, epoch)
    )
    if not mine:
        yield ABORT
        return None
    target = None
    if not rules.keep("15 lock"):
        yield Statement(f"read {file} without its lock", lambda _: None)
    elif not rules.keep("15 afresh"):
        target = yield Statement(
            "read the target, then wait", lambda session: session.get("files", file).target
        )
        yield files.lock_known(file)
    else:
        yield files.lock_known(file)
    if not rules.keep("15 not what the event names"):
        named = [
            event.version for event in events if event.type == "version_committed" and event.file == file
        ]
        target = named[-1] if named else None
    event = yield Statement(
        "switch if complete", lambda s: _switch(rules, s, model, file, target), quiet=True
    )
    if event is not None:
        yield from log.append(rules, partition, [event])
        yield COMMIT_AT_ONCE
    else:
        yield COMMIT
    return call(activate, me, model, partition, epoch, events, left[1:])


def _lock_checkpoint(session: Session, me: str, model: str, partition: int, epoch: int) -> bool:
    checkpoint: Checkpoint = session.get("checkpoints", (model, partition))
    if checkpoint.epoch != epoch:
        return False
    session.lock("checkpoints", (model, partition), UPDATE)
    session.update("checkpoints", (model, partition), checkpoint._replace(expired=False))
    return True


def _switch(rules: Rules, session: Session, model: str, file: str, target: int | None) -> Event | None:
    """Advances one file's completeness and switches it if its target is complete (rules 15 to 17)."""
    if target is None:
        target = int(session.get("files", file).target)
    version = session.get("versions", (file, target))
    states = ("committed",) if rules.keep("15 committed") else ("committed", "open", "abandoned", "collected")
    if version is None or version.state not in states or model not in session.rows("models"):
        return None
    now: Active = session.get("active", (file, model)) or Active()
    if now.version == target:
        return None
    chunks = files.chunks_of(session, version.segments)
    shared = set(files.segments_of(session, file, now.version)) if rules.keep("16 not shared") else set()
    cursor = now.cursor if now.target == target or not rules.keep("16 cursor") else 0
    cursor = _first_incomplete(rules, session, model, version.segments, shared, cursor)
    if not rules.keep("16 from state"):
        cursor = min(len(chunks), _counted(session, model, file))
    if cursor < len(chunks) and rules.keep("15 complete"):
        session.update("active", (file, model), Active(now.version, target, cursor))
        return None
    if rules.keep("17"):
        missing = [
            chunk for chunk in dict.fromkeys(chunks) if (chunk, model, "live") not in session.rows("search")
        ]
        completion.stage(session, model, missing)
    old = set(files.chunks_of(session, files.segments_of(session, file, now.version)))
    departed = old - set(chunks)
    if not rules.keep("manifests departed"):
        gone = set(files.segments_of(session, file, now.version)) - set(version.segments)
        departed = set(files.chunks_of(session, gone))
    for chunk in departed:
        session.delete("active_rows", (chunk, model, "live"))
    for chunk in set(chunks) - old:
        session.insert("active_rows", (chunk, model, "live"), file)
    session.update("active", (file, model), Active(target, target, cursor))
    return Event("version_activated", 1, file, target, model=model, previous=now.version)


def _first_incomplete(
    rules: Rules, session: Session, model: str, segments: Sequence[str], shared: set[str], cursor: int
) -> int:
    """The ordinal of the first chunk from the cursor on that the model lacks now."""
    embeddings, dead = session.rows("embeddings"), session.rows("dead_letters")
    ordinal = 0
    for segment in segments:
        for chunk in files.chunks_of(session, [segment]):
            done = (chunk, model) in embeddings or (
                dead.get((chunk, model)) == "discarded" and rules.keep("16 discarded")
            )
            if ordinal >= cursor and segment not in shared and not done:
                return ordinal
            ordinal += 1
    return ordinal


def _counted(session: Session, model: str, file: str) -> int:
    return sum(
        len(event.chunks)
        for event in session.rows("events").values()
        if event.type == "chunks_embedded" and event.model == model and event.file == file
    )
