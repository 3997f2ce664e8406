"""Rebuild: fill a second pair of tables, then swap them in under all checkpoints (rules 20 and 21)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import files
from tests.model.protocol.postgres import COMMIT_AT_ONCE, KEY_SHARE, NO_KEY_UPDATE, UPDATE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Active
from tests.model.protocol.states import call

Steps = Generator[Statement, Any, Any]
Replayed = tuple[tuple[str, int], ...]


def rebuild(rules: Rules, model: str) -> Steps:
    """Makes empty tables that erase and sweep know of before a vector is in them."""
    yield Statement("begin: make the tables", lambda session: _begin(session, model))
    yield COMMIT_AT_ONCE
    segments, replayed = yield Statement("read what is active", lambda s: _active_segments(rules, s, model))
    return call(copy, model, segments, replayed)


def _begin(session: Session, model: str) -> None:
    session.lock("models", model, NO_KEY_UPDATE)
    session.update("models", model, session.get("models", model)._replace(rebuilding=True))
    for table in ("search", "active_rows"):
        for key in sorted(key for key in session.rows(table) if key[1:] == (model, "rebuild")):
            session.delete(table, key)


def _replay(rules: Rules, session: Session, model: str) -> Replayed:
    """What the log says is active; nothing is decided anew (rule 21)."""
    last: dict[str, int] = {}
    if rules.keep("21 replay"):
        for _, event in sorted(session.rows("events").items()):
            if event.type == "version_activated" and event.model == model and event.file is not None:
                last[event.file] = event.version
    else:
        last = {file: row.target for file, row in session.rows("files").items() if row.target}
    return tuple((file, number) for file, number in sorted(last.items()) if session.get("files", file).key)


def _active_segments(rules: Rules, session: Session, model: str) -> tuple[tuple[str, ...], Replayed]:
    replayed = _replay(rules, session, model)
    segments = {segment for file, number in replayed for segment in files.segments_of(session, file, number)}
    return tuple(sorted(segments)), replayed


def copy(rules: Rules, model: str, segments: tuple[str, ...], replayed: Replayed) -> Steps:
    """Copies the vectors of a segment; whoever writes a vector holds its chunk (rule 20)."""
    if not segments:
        return call(swap, model, replayed)
    named = yield Statement(
        f"read segment {segments[0]}", lambda s: tuple(sorted(set(files.chunks_of(s, segments[:1]))))
    )
    if rules.keep("20 rebuild key share"):
        yield from _copy_vectors(named, model)
    else:
        vectors = yield Statement("read vectors", lambda session: _vectors(session, model, named))
        yield Statement("write vectors", lambda session: _write(session, model, vectors), quiet=True)
    yield COMMIT_AT_ONCE._replace(quiet=rules.keep("20 rebuild key share"))
    return call(copy, model, segments[1:], replayed)


def _copy_vectors(chunks: tuple[str, ...], model: str, *, after_tables: bool = False) -> Steps:
    for chunk in chunks:
        yield Statement(
            f"lock chunk {chunk}", lambda session, chunk=chunk: _lock(session, chunk, after_tables)
        )
    yield Statement(
        "copy their vectors",
        lambda session: _write(session, model, _vectors(session, model, chunks)),
        quiet=True,
    )


def _lock(session: Session, chunk: str, after_tables: bool) -> None:
    if chunk in session.rows("chunks"):
        session.lock("chunks", chunk, KEY_SHARE, in_order=not after_tables)


def _vectors(session: Session, model: str, chunks: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    embeddings = session.rows("embeddings")
    there = session.rows("chunks")
    return tuple((c, embeddings[c, model]) for c in chunks if (c, model) in embeddings and c in there)


def _write(session: Session, model: str, vectors: tuple[tuple[str, str], ...]) -> None:
    for chunk, vector in vectors:
        session.insert_if_absent("search", (chunk, model, "rebuild"), vector)


# --- swap -----------------------------------------------------------------------------------------


def swap(rules: Rules, model: str, replayed: Replayed) -> Steps:
    """Replays the tail, copies what became active, and flips: one transaction under all checkpoints."""
    partitions, known = yield Statement(
        "begin the swap",
        lambda s: (tuple(sorted(s.rows("partitions"))), tuple(sorted(s.rows("files")))),
        quiet=True,
    )
    if rules.keep("21 checkpoints"):
        for partition in partitions:
            yield Statement(
                f"lock checkpoint {partition}",
                lambda session, partition=partition: session.lock("checkpoints", (model, partition), UPDATE),
            )
    for file in known:
        yield Statement(
            f"hold file {file}", lambda session, file=file: session.lock("files", file, KEY_SHARE)
        )
    if rules.keep("21 tables"):
        yield Statement("lock the tables' row", lambda session: session.lock("models", model, UPDATE))
    yield Statement("stop staging", lambda session: session.lock("search_table", model, UPDATE))
    if rules.keep("21 tail"):
        replayed = yield Statement(
            "replay the log", lambda s: _replay(rules, s, model), quiet=rules.keep("21 checkpoints")
        )
    missing = yield Statement(
        "fill the active table", lambda s: _fill(s, model, replayed), quiet=rules.keep("21 checkpoints")
    )
    if rules.keep("21 tail"):
        yield from _copy_vectors(missing, model, after_tables=True)
    yield Statement("flip", lambda session: _flip(session, model, replayed), quiet=rules.keep("21 tables"))
    yield COMMIT_AT_ONCE


def _fill(session: Session, model: str, replayed: Replayed) -> tuple[str, ...]:
    """Membership from the manifests of what is active; returns the chunks whose vector is still missing."""
    active = [
        (chunk, file)
        for file, number in replayed
        for chunk in sorted(set(files.chunks_of(session, files.segments_of(session, file, number))))
    ]
    for chunk, file in active:
        session.insert_if_absent("active_rows", (chunk, model, "rebuild"), file)
    search = session.rows("search")
    return tuple(sorted(chunk for chunk, _ in active if (chunk, model, "rebuild") not in search))


def _flip(session: Session, model: str, replayed: Replayed) -> None:
    """Drops the live tables and renames the others; active versions are brought to what the log says."""
    for table in ("active_rows", "search"):
        _rename(session, table, model)
    wanted = {chunk for chunk, of, table in session.rows("active_rows") if (of, table) == (model, "live")}
    for key in sorted(session.rows("search")):
        if key[1:] == (model, "live") and key[0] not in wanted:
            session.delete("search", key)
    says = dict(replayed)
    for key, active in sorted(session.rows("active").items()):
        if key[1] == model and key[0] not in says and active.version is not None:
            session.update("active", key, active._replace(version=None))
    for file, number in replayed:
        now = session.get("active", (file, model))
        if now is None or now.version != number:
            session.update("active", (file, model), Active(number))
    session.update("models", model, session.get("models", model)._replace(rebuilding=False))


def _rename(session: Session, table: str, model: str) -> None:
    filled = {key[0]: row for key, row in session.rows(table).items() if key[1:] == (model, "rebuild")}
    for key in sorted(key for key in session.rows(table) if key[1] == model):
        session.delete(table, key)
    for chunk, row in sorted(filled.items()):
        session.insert_if_absent(table, (chunk, model, "live"), row)
