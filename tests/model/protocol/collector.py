"""The collector: abandon what is overdue, decide, sweep; each a small transaction (rules 3, 5, 19)."""

from collections.abc import Generator, Iterable
from typing import Any

from tests.model.protocol import files, log, streams, superseded
from tests.model.protocol.postgres import (
    COMMIT,
    COMMIT_AT_ONCE,
    KEY_SHARE,
    SHARE,
    UPDATE,
    Idle,
    Session,
    Statement,
    Violation,
)
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event

Steps = Generator[Statement, Any, Any]


def collect(rules: Rules) -> Steps:
    """Finds something to do, a hint only, and does it under the file's lock."""
    kind, file = yield Statement("look for garbage", lambda session: _hint(rules, session))
    if kind == "abandon":
        yield files.lock_known(file)
        marked = yield Statement("abandon what is overdue", lambda s: _abandon_overdue(s, file), quiet=True)
        yield from _log_marked(rules, file, marked, "version_abandoned")
    elif kind == "decide":
        chosen = None
        if not rules.keep("19 asked under the lock"):
            chosen = yield Statement(
                "choose before the lock", lambda session: _collectable(rules, session, file)
            )
        yield files.lock_known(file)
        marked = yield Statement("decide", lambda s: _decide(rules, s, file, chosen), quiet=True)
        yield from _log_marked(rules, file, marked, "version_collected")
    else:
        yield from _sweep(rules, file)


def _hint(rules: Rules, session: Session) -> tuple[str, str]:
    versions = sorted(session.rows("versions").items())
    for (file, _), version in versions:
        if version.state == "open" and version.overdue:
            return "abandon", file
    for (file, _), _ in versions:
        if rules.keep("19 decided first") and _collectable(rules, session, file):
            return "decide", file
    for (file, _), version in versions:
        if version.state in ("abandoned", "collected") and version.segments:
            return "sweep", file
        if not rules.keep("19 decided first") and _unswept(session, file, _collectable(rules, session, file)):
            return "sweep", file
    raise Idle


def _unswept(session: Session, file: str, numbers: Iterable[int]) -> bool:
    return any(
        chunk in session.rows("chunks")
        for number in numbers
        for chunk in files.chunks_of(session, files.segments_of(session, file, number))
        if chunk not in _named_by_others(session, file, set(numbers))
    )


def _named_by_others(session: Session, file: str, numbers: set[int]) -> set[str]:
    versions = files.versions_of(session, file, "open", "committed")
    return {
        chunk
        for number, version in versions.items()
        if number not in numbers
        for chunk in files.chunks_of(session, version.segments)
    }


def _abandon_overdue(session: Session, file: str) -> tuple[int, ...]:
    overdue = [n for n, version in files.versions_of(session, file, "open").items() if version.overdue]
    for number in overdue:
        if session.get("versions", (file, number)).deadline_from == session.rows("time")["now"]:
            raise Violation(
                "deadline", f"version {number} is abandoned at once after a batch renewed its deadline"
            )
        streams.abandon(session, file, number)
    return tuple(sorted(overdue))


def _collectable(rules: Rules, session: Session, file: str) -> tuple[int, ...]:
    """Committed versions that nothing keeps: not pinned, latest, target, active, nor by the retention."""
    row = session.get("files", file)
    committed = files.versions_of(session, file, "committed")
    active = {a.version for (of, _), a in session.rows("active").items() if of == file}
    kept = set[int | None]()
    if rules.keep("19 latest"):
        kept.add(row.latest)
    if rules.keep("19 target"):
        kept.add(row.target)
    if rules.keep("19 active"):
        kept |= active
    return tuple(
        number
        for number, version in sorted(committed.items())
        if number not in kept
        and not (version.pinned and rules.keep("19 pinned"))
        and sum(newer > number for newer in committed) >= rules.keep_last
    )


def _decide(rules: Rules, session: Session, file: str, chosen: tuple[int, ...] | None) -> tuple[int, ...]:
    numbers = _collectable(rules, session, file) if chosen is None else chosen
    for number in numbers:
        row = session.get("versions", (file, number))
        session.update("versions", (file, number), row._replace(state="collected"))
    return numbers


def _log_marked(rules: Rules, file: str, marked: tuple[int, ...], kind: str) -> Steps:
    if marked:
        partition = yield Statement("read its partition", lambda s: log.partition_of(s, file), quiet=True)
        yield from log.append(rules, partition, [Event(kind, 1, file, number) for number in marked])
    yield COMMIT_AT_ONCE


# --- sweep ----------------------------------------------------------------------------------------


def _sweep(rules: Rules, file: str) -> Steps:
    """Sweeps a file's garbage: reachability is read again under the file's lock (rule 19)."""
    garbage = None
    if not rules.keep("19 read again"):
        garbage = yield Statement("find its garbage", lambda session: _garbage(rules, session, file))
    yield files.lock_known(file)
    if garbage is None:
        garbage = yield Statement(
            "find its garbage", lambda session: _garbage(rules, session, file), quiet=True
        )
    segment, unreachable = garbage
    if segment is None:
        if rules.keep("18 swept segment"):
            yield Statement(
                "remove superseded search rows", lambda s: _remove_listed(rules, s, file), quiet=True
            )
        yield Statement("forget its manifests", lambda session: _forget(session, file), quiet=True)
        yield COMMIT_AT_ONCE
        return
    if not rules.keep("order of a sweep"):
        yield from _remove_shared(rules, file, segment, unreachable)
    seen = None
    if not rules.keep("3 sweep"):  # one statement: its snapshot is from before it has the chunks
        seen = yield Statement("see what stands on them", lambda session: standing_on(session, unreachable))
    chunks = yield Statement(
        "lock the chunks that nobody holds",
        lambda s: tuple(chunk for chunk in unreachable if s.lock_or_skip("chunks", chunk, UPDATE)),
    )
    if seen is not None:
        yield Statement("delete it and the chunks", lambda session: delete_seen(session, seen, chunks))
    else:
        yield from delete_chunks(rules, chunks)
    if rules.keep("order of a sweep"):
        yield from _remove_shared(rules, file, segment, unreachable)
    swept = len(chunks) == len(unreachable) or not rules.keep("manifests swept last")
    if swept and rules.keep("19 decided first"):
        yield Statement("delete the segment", lambda session: session.delete("segments", segment), quiet=True)
    yield COMMIT


def _garbage(rules: Rules, session: Session, file: str) -> tuple[str | None, tuple[str, ...]]:
    """A segment that no open or uncollected version lists, and its chunks that none names."""
    versions = files.versions_of(session, file, "open", "committed")
    going = set() if rules.keep("19 decided first") else set(_collectable(rules, session, file))
    live = {segment for n, version in versions.items() if n not in going for segment in version.segments}
    named = set(files.chunks_of(session, live)) if rules.keep("19 reachable") else set[str]()
    listed = {
        *files.versions_of(session, file, "abandoned", "collected").values(),
        *(versions[number] for number in going),
    }
    for segment in sorted({segment for version in listed for segment in version.segments}):
        if segment not in live and segment in session.rows("segments"):
            chunks = (c for c in files.chunks_of(session, [segment]) if c not in named)
            return segment, tuple(sorted({chunk for chunk in chunks if chunk in session.rows("chunks")}))
    return None, ()


def _remove_shared(rules: Rules, file: str, segment: str, unreachable: tuple[str, ...]) -> Steps:
    """Removes superseded search rows of what the segment shares with a version that stays (rule 18)."""
    if rules.keep("18 swept chunk"):
        yield Statement(
            "remove superseded search rows",
            lambda session: superseded.remove_swept(
                rules,
                session,
                file,
                [chunk for chunk in files.chunks_of(session, [segment]) if chunk not in unreachable],
            ),
            quiet=True,
        )


def _remove_listed(rules: Rules, session: Session, file: str) -> None:
    """The same of segments that a version which stays lists too."""
    for version in files.versions_of(session, file, "abandoned", "collected").values():
        superseded.remove_swept(rules, session, file, files.chunks_of(session, version.segments))


def _forget(session: Session, file: str) -> None:
    for number, version in files.versions_of(session, file, "abandoned", "collected").items():
        if version.segments:
            session.update("versions", (file, number), version._replace(segments=()))


def standing_on(session: Session, chunks: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """What a statement that deletes everything at once sees when it begins."""
    return tuple(
        (table, key)
        for table in ("embeddings", "search", "active_rows", "dead_letters")
        for key in sorted(session.rows(table))
        if key[0] in chunks
    )


def delete_seen(session: Session, seen: tuple[tuple[str, Any], ...], chunks: tuple[str, ...]) -> None:
    """Deletes that and the chunks."""
    for table, key in seen:
        if key[0] in chunks:
            session.delete(table, key)
    for chunk in chunks:
        session.delete("chunks", chunk)


# --- deleting -------------------------------------------------------------------------------------


def delete_chunks(
    rules: Rules, chunks: tuple[str, ...], tables: tuple[tuple[str, str], ...] | None = None
) -> Steps:
    """Deletes what stands on chunks that are locked, then the chunks, in statements of their own (rule 3)."""
    if not chunks:
        return
    yield Statement("delete embeddings", lambda s: _delete_by_chunk(s, "embeddings", chunks), quiet=True)
    models = yield Statement("hold the models", _hold_models)
    listed = tables or (yield Statement("list the tables that hold vectors", search_tables, quiet=True))
    for model in models:
        yield _delete_search_rows_of(model, chunks, listed)
    yield Statement("delete dead letters", lambda s: _delete_by_chunk(s, "dead_letters", chunks), quiet=True)
    yield Statement("delete chunks", lambda session: _delete_chunk_rows(rules, session, chunks), quiet=True)


def _delete_chunk_rows(rules: Rules, session: Session, chunks: tuple[str, ...]) -> None:
    for chunk in chunks:
        if rules.keep("20 delete"):
            session.delete("chunks", chunk)
        else:
            session.blank("chunks", chunk, session.get("chunks", chunk)._replace(text=""))


def _hold_models(session: Session) -> tuple[str, ...]:
    models = tuple(sorted(session.rows("models")))
    for model in models:
        session.lock("models", model, SHARE)
    return models


def search_tables(session: Session) -> tuple[tuple[str, str], ...]:
    """Every table that holds vectors, a rebuild's included (rule 20)."""
    return tuple(
        (model, table)
        for model, row in sorted(session.rows("models").items())
        for table in (("live", "rebuild") if row.rebuilding else ("live",))
    )


def _delete_by_chunk(session: Session, table: str, chunks: tuple[str, ...]) -> None:
    for key in sorted(key for key in session.rows(table) if key[0] in chunks):
        session.delete(table, key)


def _delete_search_rows_of(
    model: str, chunks: tuple[str, ...], tables: tuple[tuple[str, str], ...]
) -> Statement:
    return Statement(
        f"delete search and active rows of {model}",
        lambda session: _delete_search_rows(session, chunks, model, tables),
        quiet=True,
    )


def _delete_search_rows(
    session: Session, chunks: tuple[str, ...], model: str, tables: tuple[tuple[str, str], ...]
) -> None:
    session.lock("search_table", model, KEY_SHARE)
    for rows in ("search", "active_rows"):
        for key in sorted(key for key in session.rows(rows) if key[0] in chunks and key[1] == model):
            if key[1:] in tables:
                session.delete(rows, key)
