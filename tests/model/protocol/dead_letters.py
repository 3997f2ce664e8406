"""Dead letters: given up by a consumer, discarded or taken back by a person (rules 13, 14 and 16)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import files, log
from tests.model.protocol.leases import Held, Owed, lock_lease, mark_done
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, UPDATE, Idle, Session, Statement, Violation
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event

Steps = Generator[Statement, Any, Any]


def give_up(rules: Rules, me: str, held: Held, owed: Owed) -> Steps:
    """Makes a dead letter of a chunk, in a transaction of its own."""
    mine = yield Statement("lock the lease", lambda session: lock_lease(session, held))
    if not mine:
        yield ABORT
        return
    yield from under_the_lease(rules, me, held, owed)


def under_the_lease(rules: Rules, me: str, held: Held, owed: Owed) -> Steps:
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
    yield Statement("mark the range done", lambda session: mark_done(session, me, held), quiet=True)
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
