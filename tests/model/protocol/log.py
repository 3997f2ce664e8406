"""The log: a run of events in one partition, under its lock, at the end of a transaction (rule 1)."""

from collections.abc import Generator, Sequence
from typing import Any

from tests.model.protocol.postgres import NO_KEY_UPDATE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event


def partition_of(session: Session, file: str) -> int:
    """The partition of a file: by its key's letter."""
    return (ord(file[0]) - ord("A")) % len(session.rows("partitions"))


def head(session: Session, partition: int) -> int:
    """The offset after the last event."""
    return 1 + max((last for where, last in session.rows("events") if where == partition), default=-1)


def run(file: str, version: int, chunks: Sequence[str]) -> list[Event]:
    """The event that logs these chunks for the version, if there are any."""
    return [Event("chunks_appended", len(chunks), file, version, tuple(chunks))] if chunks else []


def lock_partition(partition: int) -> Statement:
    """Takes the partition's lock, the last of a transaction."""
    return Statement(
        f"lock partition {partition}", lambda session: session.lock("partitions", partition, NO_KEY_UPDATE)
    )


def append(
    rules: Rules, partition: int, events: Sequence[Event], *, locked: bool = False
) -> Generator[Statement, Any, None]:
    """Appends events: lock the partition, read the largest offset in the next statement, insert."""
    if rules.keep("1 head"):
        if not locked:
            yield lock_partition(partition)
        first = yield Statement("read the head", lambda session: head(session, partition), quiet=True)
    else:  # one statement locks and reads, so it reads under the snapshot from before its wait
        first = yield Statement("read the head, then wait", lambda session: head(session, partition))
        if not locked:
            yield lock_partition(partition)
    yield Statement(
        f"log {', '.join(described(event) for event in events)}",
        lambda session: _insert(session, partition, first, events),
        quiet=True,
    )


def _insert(session: Session, partition: int, first: int, events: Sequence[Event]) -> None:
    for event in events:
        first += event.n
        session.insert("events", (partition, first - 1), event)


def described(event: Event) -> str:
    """An event in a trace."""
    about = [
        part for part in (event.file, event.version or None, ",".join(event.chunks), event.model) if part
    ]
    return f"{event.type}({' '.join(str(part) for part in about)})"
