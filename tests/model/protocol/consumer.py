"""Embedding consumers: claim a range, read what it owes, ask the model, store and mark done (rules 10 to 14).

A text in capitals is bad: the model fails on it. The text `~` fails now and then. The text `K` kills the
consumer that embeds it.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from tests.model.protocol import files, log
from tests.model.protocol.explorer import call
from tests.model.protocol.postgres import (
    ABORT,
    COMMIT_AT_ONCE,
    KEY_SHARE,
    UPDATE,
    Idle,
    Options,
    Session,
    Statement,
    Violation,
)
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Done, Event, Lease

Steps = Generator[Statement, Any, Any]


class Held(NamedTuple):
    """A lease as its holder remembers it."""

    model: str
    partition: int
    lo: int
    hi: int
    epoch: int
    attempts: int

    @property
    def key(self) -> tuple[str, int, int]:
        """The key of its row."""
        return self.model, self.partition, self.lo

    @property
    def is_single(self) -> bool:
        """Whether the range is of one chunk."""
        return self.hi - self.lo == 1


class Owed(NamedTuple):
    """A chunk that needs an embedding, with a vector that can be copied and the chunk that has it."""

    chunk: str
    text: str
    vector: str | None
    source: str | None


# --- claim ----------------------------------------------------------------------------------------


def consume(rules: Rules, me: str, model: str) -> Steps:
    """Claims one range and reads what it owes, in one transaction."""
    seen = None
    if not rules.keep("11 looked at again"):
        seen = yield Statement("see what has expired", lambda session: _all_expired(session, model))
    held = yield Statement("claim a range", lambda session: _claim(rules, session, me, model, seen))
    owed = yield Statement("read what it owes", lambda session: _read_range(rules, session, held))
    if held.is_single and held.attempts >= rules.attempts and owed:
        yield from _give_up(rules, me, held, owed[0])
        return None
    if not owed:
        yield Statement("mark it done", lambda session: _mark_done(session, me, held), quiet=True)
        yield COMMIT_AT_ONCE
        return None
    yield COMMIT_AT_ONCE
    return call(embed, me, held, owed)


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
        _halve(rules, session, (model, partition, lo))
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


def _halve(rules: Rules, session: Session, key: tuple[str, int, int]) -> None:
    """Both halves get the parent's epoch plus one (rule 11)."""
    model, partition, lo = key
    lease: Lease = session.get("leases", key)
    middle = (lo + lease.hi) // 2
    epoch = lease.epoch + (1 if rules.keep("11 halves") else 0)
    session.update("leases", key, Lease(middle, epoch, expired=True))
    session.insert("leases", (model, partition, middle), Lease(lease.hi, epoch, expired=True))


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
            if not _is_needed(rules, session, event, chunk):
                if rules.keep("10 skip"):
                    continue
                raise Violation("cost", f"the model is paid for {chunk}, which no version needs")
            vector, source = _copy(session, held.model, chunk, rows[chunk].text)
            owed[chunk] = Owed(chunk, rows[chunk].text, vector, source)
    return tuple(owed[chunk] for chunk in sorted(owed))


def _is_needed(rules: Rules, session: Session, event: Event, chunk: str) -> bool:
    assert event.file is not None
    with_open = rules.keep("10 open")
    if event.version == session.get("files", event.file).target:
        return True
    version = session.get("versions", (event.file, event.version))
    if version is not None and version.state == "open" and with_open:
        return True
    if not rules.keep("10 other versions"):
        return False
    return chunk in files.chunks_of(session, files.needed_segments(session, event.file, with_open=with_open))


def _copy(session: Session, model: str, chunk: str, text: str) -> tuple[str | None, str | None]:
    """A vector that the collection holds already for the text (rule 12)."""
    for (source, of), vector in sorted(session.rows("embeddings").items()):
        if of == model and vector == text and source != chunk:
            return vector, source
    return None, None


# --- the model ------------------------------------------------------------------------------------


def embed(rules: Rules, me: str, held: Held, owed: tuple[Owed, ...]) -> Steps:
    """The model works, in no transaction; the lease may be renewed meanwhile."""
    if any(chunk.text == "K" and chunk.vector is None for chunk in owed):
        yield Statement("dies over the text K", lambda _: None)
        return None
    if rules.renewals:
        renew = yield Statement("is the model slow?", lambda _: Options((False, True)), quiet=True)
        if renew:
            kept = yield Statement("renew the lease", lambda session: _renew(session, held))
            yield COMMIT_AT_ONCE
            if not kept:
                return None
    fails = False
    if any(chunk.text == "~" for chunk in owed):
        fails = yield Statement("does the model fail on ~?", lambda _: Options((False, True)), quiet=True)
    bad = [chunk for chunk in owed if chunk.text.isupper() or (chunk.text == "~" and fails)]
    good = tuple(chunk for chunk in owed if chunk not in bad)
    if not bad:
        return call(complete, me, held, good, "done")
    if not held.is_single and rules.keep("11 halve a failed range"):
        return call(complete, me, held, good, "halve")
    if held.attempts + 1 < rules.attempts:
        return call(count_attempt, held)
    return call(give_up, me, held, (bad if rules.keep("11 halve a failed range") else owed)[0])


def _renew(session: Session, held: Held) -> bool:
    if not _lock_lease(session, held):
        return False
    session.update("leases", held.key, session.get("leases", held.key)._replace(expired=False))
    return True


def _lock_lease(session: Session, held: Held) -> bool:
    """Locks a lease that is still held under the epoch; a zombie is refused here (invariant 8)."""
    lease = session.get("leases", held.key)
    if lease is None or lease.epoch != held.epoch or lease.owner is None:
        return False
    session.lock("leases", held.key, UPDATE)
    return True


# --- store ----------------------------------------------------------------------------------------


def complete(rules: Rules, me: str, held: Held, owed: tuple[Owed, ...], then: str) -> Steps:
    """Stores vectors by exact chunk version, logs what was new, and marks the range done or halves it.

    Locks the lease, then chunks by number, then the partition.
    """
    chunks = sorted(owed, reverse=not rules.keep("order of chunks"))
    if not rules.keep("order of the partition"):
        yield log.lock_partition(held.partition)
    mine = yield Statement("lock the lease", lambda session: _lock_lease(session, held))
    if not mine:
        yield ABORT
        return
    there: list[Owed] = []
    for chunk in chunks:
        found = yield _lock_chunk(rules, chunk.chunk)
        if found:
            there.append(chunk)
    if not rules.keep("12"):
        there = yield Statement(
            "copy vectors from where they are",
            lambda session: tuple(
                c for c in there if c.source is None or (c.source, held.model) in session.rows("embeddings")
            ),
        )
    new = yield Statement(
        "store the vectors",
        lambda session: _store(rules, session, held.model, there),
        quiet=bool(rules.keep("13 conflict")),
    )
    listed = new if rules.keep("13 lists what is new") else tuple(chunk.chunk for chunk in there)
    if not rules.keep("13 with its event"):
        yield COMMIT_AT_ONCE._replace(quiet=False)
    if listed:
        files_of = yield Statement("read their files", lambda session: _files_of(session, listed), quiet=True)
        event = Event("chunks_embedded", 1, files_of, chunks=listed, model=held.model)
        yield from log.append(rules, held.partition, [event], locked=not rules.keep("order of the partition"))
    if then == "done":
        yield Statement("mark the range done", lambda session: _mark_done(session, me, held), quiet=True)
    else:
        yield Statement("halve the range", lambda session: _halve(rules, session, held.key), quiet=True)
    yield COMMIT_AT_ONCE


def _lock_chunk(rules: Rules, chunk: str) -> Statement:
    def run(session: Session) -> bool:
        if chunk not in session.rows("chunks"):
            return False
        if rules.keep("20 key share"):
            session.lock("chunks", chunk, KEY_SHARE)
        return True

    return Statement(f"lock chunk {chunk}", run)


def _store(rules: Rules, session: Session, model: str, owed: Sequence[Owed]) -> tuple[str, ...]:
    """A chunk that has its embedding keeps it; an embedding deletes the chunk's dead letter (rule 13)."""
    new: list[str] = []
    for chunk in sorted(owed):
        key = (chunk.chunk, model)
        if not rules.keep("13 conflict"):
            session.insert("embeddings", key, chunk.text)
            new.append(chunk.chunk)
        elif session.insert_if_absent("embeddings", key, chunk.text):
            new.append(chunk.chunk)
        if rules.keep("13 dead letter") and key in session.rows("dead_letters"):
            session.delete("dead_letters", key)
    stage(session, model, new)
    return tuple(new)


def stage(session: Session, model: str, chunks: Sequence[str]) -> None:
    """Copies vectors into the search table; held off while a rebuild swaps it."""
    if not chunks or model not in session.rows("models"):
        return
    session.lock("search_table", model, KEY_SHARE)
    for chunk in chunks:
        vector = session.get("embeddings", (chunk, model))
        if vector is not None:
            session.insert_if_absent("search", (chunk, model, "live"), vector)


def _files_of(session: Session, chunks: Sequence[str]) -> str:
    rows = session.rows("chunks")
    return " ".join(sorted({rows[chunk].file for chunk in chunks if chunk in rows}))


def _mark_done(session: Session, me: str, held: Held) -> None:
    session.insert_if_absent("done", held.key, Done(me, held.epoch, held.hi))


# --- failures -------------------------------------------------------------------------------------


def count_attempt(rules: Rules, held: Held) -> Steps:
    """Counts a failure of a single chunk and gives the range back."""
    mine = yield Statement("count an attempt", lambda session: _count_attempt(session, held))
    if not mine:
        yield ABORT
        return
    yield COMMIT_AT_ONCE


def _count_attempt(session: Session, held: Held) -> bool:
    if not _lock_lease(session, held):
        return False
    lease: Lease = session.get("leases", held.key)
    session.update("leases", held.key, lease._replace(attempts=lease.attempts + 1, owner=None, expired=True))
    return True


def give_up(rules: Rules, me: str, held: Held, owed: Owed) -> Steps:
    """Makes a dead letter of a chunk, in a transaction of its own."""
    mine = yield Statement("lock the lease", lambda session: _lock_lease(session, held))
    if not mine:
        yield ABORT
        return
    yield from _give_up(rules, me, held, owed)


def _give_up(rules: Rules, me: str, held: Held, owed: Owed) -> Steps:
    """Under the chunk's lock a fresh look must find no embedding (13). The log gets no text (14)."""
    key = (owed.chunk, held.model)
    embedded = False
    if not rules.keep("13 fresh look"):
        embedded = yield Statement("is it embedded?", lambda session: key in session.rows("embeddings"))
    file = yield Statement(f"lock chunk {owed.chunk}", lambda session: _lock_for_update(session, owed.chunk))
    if rules.keep("13 fresh look"):
        embedded = yield Statement("is it embedded?", lambda s: key in s.rows("embeddings"), quiet=True)
    if file is not None and not embedded:
        yield Statement("write a dead letter", lambda session: _dead_letter(session, key, owed), quiet=True)
        text = "" if rules.keep("14") else owed.text
        event = Event("embedding_failed", 1, file, chunks=(owed.chunk,), model=held.model, text=text)
        yield from log.append(rules, held.partition, [event])
    yield Statement("mark the range done", lambda session: _mark_done(session, me, held), quiet=True)
    yield COMMIT_AT_ONCE


def _lock_for_update(session: Session, chunk: str) -> str | None:
    row = session.get("chunks", chunk)
    if row is None:
        return None
    session.lock("chunks", chunk, UPDATE)
    return row.file


def _dead_letter(session: Session, key: tuple[str, str], owed: Owed) -> None:
    if not owed.text.isupper() and owed.text != "~":
        raise Violation("invariant 5", f"{owed.chunk} is given up, and nothing is wrong with it")
    session.insert_if_absent("dead_letters", key, "open")


# --- dead letters ---------------------------------------------------------------------------------


def retry(rules: Rules, model: str, text: str) -> Steps:
    """Takes a dead letter back that was discarded, and logs its chunk again."""
    yield from _settle_dead_letter(rules, model, text, discarded=False)


def discard(rules: Rules, model: str, text: str) -> Steps:
    """Lets versions activate without the chunk (rule 16)."""
    yield from _settle_dead_letter(rules, model, text, discarded=True)


def _settle_dead_letter(rules: Rules, model: str, text: str, *, discarded: bool) -> Steps:
    state = "open" if discarded else "discarded"
    chunk, file = yield Statement(f"find a letter that is {state}", lambda s: _find(s, model, text, state))
    yield files.lock_known(file)
    there = yield Statement(
        "discard it" if discarded else "take it back",
        lambda session: _settle(rules, session, file, (chunk, model), discarded),
    )
    if not there:
        yield ABORT
        return
    partition, target = yield Statement(
        "read the target",
        lambda session: (log.partition_of(session, file), session.get("files", file).target),
        quiet=True,
    )
    kind = "dead_letter_discarded" if discarded else "dead_letter_retried"
    events = [Event(kind, 1, file, chunks=(chunk,), model=model)]
    if not discarded:
        events.extend(log.run(file, target, [chunk]))
    yield from log.append(rules, partition, events)
    yield COMMIT_AT_ONCE


def _find(session: Session, model: str, text: str, wanted: str) -> tuple[str, str]:
    chunks = session.rows("chunks")
    for (chunk, of), state in sorted(session.rows("dead_letters").items()):
        if of == model and state == wanted and chunks[chunk].text == text:
            return chunk, chunks[chunk].file
    raise Idle


def _settle(rules: Rules, session: Session, file: str, key: tuple[str, str], discarded: bool) -> bool:
    if key not in session.rows("dead_letters"):
        return False
    if discarded:
        session.update("dead_letters", key, "discarded")
        return True
    session.delete("dead_letters", key)
    active = session.get("active", (file, key[1]))
    if active is not None and active.version != active.target and rules.keep("16 reset"):
        session.update("active", (file, key[1]), active._replace(cursor=0))
    return True
