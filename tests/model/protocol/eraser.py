"""Erase: rows are deleted, waiting for whoever holds a chunk; the file's number stays (rules 3, 6, 20)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import log
from tests.model.protocol.collector import delete_chunks, delete_seen, search_tables, standing_on
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, NO_KEY_UPDATE, UPDATE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event

Steps = Generator[Statement, Any, Any]


def erase(rules: Rules, key: str) -> Steps:
    """Erases the file of the key."""
    file = yield Statement(f"lock the file of {key}", lambda session: _lock(session, key))
    if file is None:
        yield ABORT
        return
    chunks = yield Statement("read its chunks", lambda session: _chunks(session, file), quiet=True)
    tables = None
    if not rules.keep("20 tables listed late"):
        tables = yield Statement("list the tables that hold vectors", search_tables)
    if not rules.keep("20 rebuild listed"):
        tables = yield Statement(
            "list the live tables", lambda s: tuple((m, "live") for m in s.rows("models"))
        )
    if rules.keep("3 erase"):
        mode = UPDATE if rules.keep("20 delete") else NO_KEY_UPDATE
        for chunk in chunks:
            yield Statement(
                f"lock chunk {chunk}", lambda session, chunk=chunk: session.lock("chunks", chunk, mode)
            )
        yield from delete_chunks(rules, chunks, tables)
    else:  # one statement: its snapshot is from before it waited for the chunks
        seen = yield Statement("see what stands on them", lambda session: standing_on(session, chunks))
        yield Statement("delete it and the chunks", lambda session: delete_seen(session, seen, chunks))
    yield Statement("delete what names it", lambda session: _forget(rules, session, file, key), quiet=True)
    partition = yield Statement(
        "read its partition", lambda session: log.partition_of(session, file), quiet=True
    )
    yield from log.append(rules, partition, [Event("file_erased", 1, file)])
    yield COMMIT_AT_ONCE


def _lock(session: Session, key: str) -> str | None:
    file = session.get("keys", key)
    if file is not None:
        session.lock("files", file, UPDATE)
    return file


def _chunks(session: Session, file: str) -> tuple[str, ...]:
    return tuple(
        sorted({c for row in session.rows("segments").values() if row.file == file for c in row.chunks})
    )


def _forget(rules: Rules, session: Session, file: str, key: str) -> None:
    for table, position in (("active", 0), ("versions", 0), ("idempotency_keys", 0)):
        for row in sorted(row for row in session.rows(table) if row[position] == file):
            session.delete(table, row)
    for segment in sorted(s for s, row in session.rows("segments").items() if row.file == file):
        session.delete("segments", segment)
    if rules.keep("6 key set to null"):
        session.delete("keys", key)
        key_left = None
    else:
        key_left = key
    row = session.get("files", file)
    session.update("files", file, row._replace(key=key_left, latest=0, target=0))
