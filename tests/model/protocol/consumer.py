"""Embedding consumers: claim a range, read what it owes (rules 10, 11 and 13); `completion` goes on."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import completion, dead_letters, files
from tests.model.protocol.leases import Held, Owed, halve, mark_done
from tests.model.protocol.postgres import COMMIT_AT_ONCE, UPDATE, Idle, Session, Statement, Violation
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event, Lease
from tests.model.protocol.states import call

Steps = Generator[Statement, Any, Any]


def consume(rules: Rules, me: str, model: str) -> Steps:
    """Claims one range and reads what it owes, in one transaction."""
    seen = None
    if not rules.keep("11 looked at again"):
        seen = yield Statement("see what has expired", lambda session: _all_expired(session, model))
    held = yield Statement("claim a range", lambda session: _claim(rules, session, me, model, seen))
    owed = yield Statement("read what it owes", lambda session: _read_range(rules, session, held))
    if held.is_single and held.attempts >= rules.attempts and owed:
        yield from dead_letters.under_the_lease(rules, me, held, owed[0])
        return None
    if not owed:
        yield Statement("mark it done", lambda session: mark_done(session, me, held), quiet=True)
        yield COMMIT_AT_ONCE
        return None
    yield COMMIT_AT_ONCE
    return call(completion.embed, me, held, owed)


def _claim(rules: Rules, session: Session, me: str, model: str, seen: tuple[int | None, ...] | None) -> Held:
    """Locks the group's progress, SKIP LOCKED; takes an expired range over, else claims a new one."""
    for partition in sorted(session.rows("partitions")):
        found = _expired(session, model, partition) if seen is None else seen[partition]
        news = _next_range(rules, session, model, partition)
        if found is None and news is None:
            continue
        if not session.lock_or_skip("progress", (model, partition), UPDATE):
            continue
        if found is not None:
            if session.lock_or_skip("leases", (model, partition, found), UPDATE):
                return _take_over(rules, session, me, model, partition, found)
            continue
        if news is not None:
            lo, hi = news
            session.insert("leases", (model, partition, lo), Lease(hi, owner=me))
            return Held(model, partition, lo, hi, 1, 0)
    raise Idle


def _all_expired(session: Session, model: str) -> tuple[int | None, ...]:
    return tuple(_expired(session, model, partition) for partition in sorted(session.rows("partitions")))


def _expired(session: Session, model: str, partition: int) -> int | None:
    done = session.rows("done")
    free = [
        lo
        for (of, where, lo), lease in session.rows("leases").items()
        if of == model and where == partition and lease.expired and (of, where, lo) not in done
    ]
    return min(free, default=None)


def _next_range(rules: Rules, session: Session, model: str, partition: int) -> tuple[int, int] | None:
    """From the next chunk offset on; a range may begin and end inside an event."""
    claimed = max(
        (
            lease.hi
            for (of, where, _), lease in session.rows("leases").items()
            if (of, where) == (model, partition)
        ),
        default=0,
    )
    offsets = sorted(
        offset
        for (where, last), event in session.rows("events").items()
        if where == partition and event.type == "chunks_appended"
        for offset in range(max(claimed, last - event.n + 1), last + 1)
    )[: rules.batch]
    return (offsets[0], offsets[-1] + 1) if offsets else None


def _take_over(rules: Rules, session: Session, me: str, model: str, partition: int, lo: int) -> Held:
    """A higher epoch; an expiry counts, and halves a range of several chunks the second time (rule 11)."""
    lease: Lease = session.get("leases", (model, partition, lo))
    counted = 1 if lease.owner is not None and rules.keep("11 expiry counts") else 0
    if counted and lease.attempts >= 1 and lease.hi - lo > 1 and rules.keep("11 halve an expired range"):
        halve(rules, session, (model, partition, lo))
        half: Lease = session.get("leases", (model, partition, lo))
        session.update("leases", (model, partition, lo), half._replace(owner=me, expired=False))
        return Held(model, partition, lo, half.hi, half.epoch, 0)
    raised = lease._replace(
        epoch=lease.epoch + (1 if rules.keep("11 epoch") else 0),
        attempts=lease.attempts + counted,
        owner=me,
        expired=False,
    )
    session.update("leases", (model, partition, lo), raised)
    return Held(model, partition, lo, raised.hi, raised.epoch, raised.attempts)


def _read_range(rules: Rules, session: Session, held: Held) -> tuple[Owed, ...]:
    """The chunks of the range that are needed and that the model has not embedded (rule 10)."""
    if held.model not in session.rows("models"):
        return ()
    rows, embeddings = session.rows("chunks"), session.rows("embeddings")
    dead = session.rows("dead_letters")
    owed: dict[str, Owed] = {}
    for (partition, last), event in session.rows("events").items():
        if partition != held.partition or event.type != "chunks_appended":
            continue
        first = last - event.n + 1
        for chunk in event.chunks[max(0, held.lo - first) : max(0, held.hi - first)]:
            if chunk not in rows or dead.get((chunk, held.model)) == "discarded":
                continue
            if (chunk, held.model) in embeddings and rules.keep("13 embedded is not owed"):
                continue
            if not _is_needed(rules, session, event, chunk, held.model):
                if rules.keep("10 skip"):
                    continue
                raise Violation("cost", f"the model is paid for {chunk}, which no version needs")
            vector, source = _copy(session, held.model, chunk, rows[chunk].text)
            owed[chunk] = Owed(chunk, rows[chunk].text, vector, source)
    return tuple(owed[chunk] for chunk in sorted(owed))


def _is_needed(rules: Rules, session: Session, event: Event, chunk: str, model: str) -> bool:
    assert event.file is not None
    with_open = rules.keep("10 open")
    if event.version == session.get("files", event.file).target:
        return True
    version = session.get("versions", (event.file, event.version))
    if version is not None and version.state == "open" and with_open:
        return True
    if not rules.keep("10 other versions"):
        return False
    needed = files.needed_segments(session, event.file, with_open=with_open)
    active = session.get("active", (event.file, model))
    if active is not None and rules.keep("10 active"):
        needed |= set(files.segments_of(session, event.file, active.version))
    return chunk in files.chunks_of(session, needed)


def _copy(session: Session, model: str, chunk: str, text: str) -> tuple[str | None, str | None]:
    """A vector that the collection holds already for the text (rule 12)."""
    for (source, of), vector in sorted(session.rows("embeddings").items()):
        if of == model and vector == text and source != chunk:
            return vector, source
    return None, None
