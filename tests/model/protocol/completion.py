"""The model works; then vectors are stored by exact chunk version (rules 12, 13 and 20).

A text in capitals is bad: the model fails on it. The text `~` fails now and then. The text `K` kills the
consumer that embeds it.
"""

from collections.abc import Generator, Sequence
from typing import Any

from tests.model.protocol import dead_letters, log
from tests.model.protocol.leases import Held, Owed, count_failure, halve, lock_lease, mark_done, renew_lease
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, KEY_SHARE, Options, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event
from tests.model.protocol.states import call

Steps = Generator[Statement, Any, Any]


# --- the model ------------------------------------------------------------------------------------


def embed(rules: Rules, me: str, held: Held, owed: tuple[Owed, ...]) -> Steps:
    """The model works, in no transaction; the lease may be renewed meanwhile."""
    if any(chunk.text == "K" and chunk.vector is None for chunk in owed):
        yield Statement("dies over the text K", lambda _: None)
        return None
    if rules.renewals:
        renew = yield Statement("is the model slow?", lambda _: Options((False, True)), quiet=True)
        if renew:
            kept = yield Statement("renew the lease", lambda session: renew_lease(session, held))
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
    return call(dead_letters.give_up, me, held, (bad if rules.keep("11 halve a failed range") else owed)[0])


# --- store ----------------------------------------------------------------------------------------


def complete(rules: Rules, me: str, held: Held, owed: tuple[Owed, ...], then: str) -> Steps:
    """Stores vectors by exact chunk version, logs what was new, and marks the range done or halves it.

    Locks the lease, then chunks by number, then the partition.
    """
    chunks = sorted(owed, reverse=not rules.keep("order of chunks"))
    if not rules.keep("order of the partition"):
        yield log.lock_partition(held.partition)
    mine = yield Statement("lock the lease", lambda session: lock_lease(session, held))
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
        yield Statement("mark the range done", lambda session: mark_done(session, me, held), quiet=True)
    else:
        yield Statement("halve the range", lambda session: halve(rules, session, held.key), quiet=True)
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


def count_attempt(rules: Rules, held: Held) -> Steps:
    """Counts a failure of a single chunk and gives the range back."""
    mine = yield Statement("count an attempt", lambda session: count_failure(session, held))
    if not mine:
        yield ABORT
        return
    yield COMMIT_AT_ONCE
