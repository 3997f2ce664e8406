"""Versions of a file: locked state, open, extend, commit, abandon, target, pins (rules 5 to 9).

Every function but `is_new` runs inside the caller's transaction and under the file's lock, which `lock` takes
first.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from psycopg import AsyncConnection

from chunkstore import chunks, log, rows
from chunkstore.database import Database
from chunkstore.errors import IdempotencyKeyReused, StaleVersion, UnknownFile, UnknownVersion, VersionFenced
from chunkstore.events import Event, Pinned, TargetChanged, Unpinned, VersionAbandoned, VersionCommitted
from chunkstore.manifests import Bases, Manifest
from chunkstore.model import ChunkId, CollectionId, FileId, ModelId, SegmentId, Version
from chunkstore.settings import OPEN_VERSION_DEADLINE
from chunkstore.statements import load

VERSIONS = load("versions")

_DEADLINE = timedelta(seconds=OPEN_VERSION_DEADLINE)


class FileState(msgspec.Struct, frozen=True):
    """What a writer decides by, as it is under the file's lock."""

    file: FileId
    partition: int
    last_version: int
    latest: int
    target: int
    latest_digest: bytes | None
    latest_tombstone: bool
    latest_segments: list[SegmentId]
    target_segments: list[SegmentId]
    idempotent_version: int | None
    idempotent_digest: bytes | None
    models: list[ModelId]

    @property
    def rolled_back_to(self) -> int | None:
        """The target, where a rollback holds it."""
        return self.target if self.target != self.latest else None


class Stored(msgspec.Struct, frozen=True):
    """What storing a batch of segments came to."""

    segments: list[SegmentId] = []
    bases: list[Bases] = []
    shared: list[SegmentId] = []
    """Segments that the file held already."""
    added: list[ChunkId] = []
    """Chunks that the file lacked."""
    carried: list[ChunkId] = []
    """Chunks that the file held already, in segments that are new."""
    carried_from: list[SegmentId] = []
    """The segments that hold all of `carried`; none where some were found by their hash."""
    chunks: int = 0

    @property
    def reused(self) -> int:
        """How many places of the batch name a chunk that was there before."""
        return self.chunks - len(self.added)


NOTHING_STORED = Stored()


class Committed(msgspec.Struct, frozen=True):
    """A version as its commit wrote it."""

    version: int
    committed_at: datetime


async def is_new(database: Database, collection: CollectionId, key: str) -> bool:
    """Whether the key has no version, as far as is known without a lock."""
    params = {"collection": collection, "key": key}
    return not await database.ask(VERSIONS.is_known, params, settings={}, row=dict)


async def lock(
    conn: AsyncConnection[Any], collection: CollectionId, key: str, idempotency_key: str | None = None
) -> FileState:
    """Locks the file of the key, created if it is new; returns its state, read after the lock (rule 1)."""
    file = await rows.fetch_value(conn, VERSIONS.lock_file, {"collection": collection, "key": key})
    return await _state(conn, file, idempotency_key)


async def lock_existing(conn: AsyncConnection[Any], collection: CollectionId, key: str) -> FileState:
    """Locks the file of the key. Raises UnknownFile where there is none, or it was erased meanwhile."""
    found = await rows.fetch_value(conn, VERSIONS.lock_by_key, {"collection": collection, "key": key})
    if found is not None:
        state = await _state(conn, found, None)
        if state.latest > 0:
            return state
    raise UnknownFile(f"key: no file {key!r} in this collection; append it first")


async def lock_file(conn: AsyncConnection[Any], file: FileId) -> int:
    """Locks a file that is known by its number; returns its partition."""
    return await rows.fetch_value(conn, VERSIONS.lock_known_file, {"file": file})


async def file_of(conn: AsyncConnection[Any], collection: CollectionId, key: str) -> FileId | None:
    """The number of the key's file, unlocked; None where it has none."""
    return await rows.fetch_value(conn, VERSIONS.file_of, {"collection": collection, "key": key})


async def lock_open(
    conn: AsyncConnection[Any], file: FileId, version: int, idempotency_key: str | None = None
) -> FileState:
    """Locks the file of an open version. Raises VersionFenced where it is not open any more (rule 5)."""
    await lock_file(conn, file)
    if not await rows.fetch_value(conn, VERSIONS.is_open, {"file": file, "version": version}):
        raise VersionFenced(
            f"version {version} is not open any more: it passed its deadline of {OPEN_VERSION_DEADLINE} s"
            " without a batch, or its file was erased; append again"
        )
    return await _state(conn, file, idempotency_key)


async def _state(conn: AsyncConnection[Any], file: FileId, idempotency_key: str | None) -> FileState:
    params = {"file": file, "idempotency_key": idempotency_key}
    state = await rows.fetch_one(conn, VERSIONS.state, params, row=FileState)
    assert state is not None, "a file's row is never deleted"
    return state


def check_idempotency(state: FileState, digest: bytes) -> int | None:
    """The version that an earlier append with this key wrote, or None (rule 7).

    Raises IdempotencyKeyReused where that append held something else.
    """
    if state.idempotent_version is not None and state.idempotent_digest != digest:
        raise IdempotencyKeyReused(
            f"idempotency_key: it was used for version {state.idempotent_version} of this file with other"
            " content; use a new key for new content"
        )
    return state.idempotent_version


def check_expected(state: FileState, expected_version: int | None) -> None:
    """Raises StaleVersion unless the latest version is the one expected; 0 expects none (rule 7)."""
    if expected_version is not None and expected_version != state.latest:
        raise StaleVersion(
            f"expected_version: {expected_version} is not the latest version, which is {state.latest};"
            " read the file again and decide anew"
        )


def is_unchanged(state: FileState, digest: bytes, *, tombstone: bool = False) -> bool:
    """Whether the latest version is the target and holds just this already (rule 8)."""
    return (
        state.latest > 0
        and state.target == state.latest
        and state.latest_tombstone == tombstone
        and state.latest_digest == digest
    )


async def history(
    conn: AsyncConnection[Any], collection: CollectionId, name: str, key: str, version: int | None = None
) -> list[Version]:
    """The versions of a key's file, or the one of that number, oldest first. `name` is the collection's."""
    params = {"collection": collection, "key": key, "version": version}
    return await rows.fetch_all(
        conn, VERSIONS.history, params, row=partial(Version, collection=name, key=key)
    )


# --- open versions ------------------------------------------------------------------------------


async def open_version(conn: AsyncConnection[Any], file: FileId, metadata: bytes) -> int:
    """Begins an open version; returns its number."""
    params = {"file": file, "metadata": metadata.decode(), "deadline": _DEADLINE}
    return await rows.fetch_value(conn, VERSIONS.open, params)


class Extended(msgspec.Struct, frozen=True):
    """An open version after a batch."""

    version: int
    chunks: int
    reused: int
    added: int
    segments: list[SegmentId]


async def extend(conn: AsyncConnection[Any], file: FileId, version: int, stored: Stored) -> Extended:
    """Adds a batch to an open version and renews its deadline."""
    params = {"file": file, "version": version, "deadline": _DEADLINE, **_columns(stored)}
    extended = await rows.fetch_one(conn, VERSIONS.extend, params, row=Extended)
    assert extended is not None, "lock_open found it open under the file's lock"
    return extended


async def commit(conn: AsyncConnection[Any], file: FileId, version: int, digest: bytes) -> Committed:
    """Commits an open version; the highest committed one is the latest, whichever commits last."""
    params = {"file": file, "version": version, "digest": digest}
    committed_at = await rows.fetch_value(conn, VERSIONS.commit, params)
    assert committed_at is not None, "lock_open found it open under the file's lock"
    return Committed(version, committed_at)


async def abandon(conn: AsyncConnection[Any], state: FileState, version: int) -> None:
    """Gives an open version up and logs it; its chunks are swept by the collector."""
    params = {"file": state.file, "version": version}
    if await rows.fetch_value(conn, VERSIONS.abandon, params) is not None:
        await log.append(conn, state.partition, [VersionAbandoned(file=state.file, version=version)])


async def insert_committed(
    conn: AsyncConnection[Any],
    file: FileId,
    stored: Stored,
    *,
    digest: bytes,
    metadata: bytes,
    tombstone: bool = False,
) -> Committed:
    """Writes a version whole; it becomes the latest and the target."""
    params = {
        "file": file,
        "tombstone": tombstone,
        "digest": digest,
        "metadata": metadata.decode(),
        **_columns(stored),
    }
    committed = await rows.fetch_one(conn, VERSIONS.insert_committed, params, row=Committed)
    assert committed is not None, "the file's row is locked"
    return committed


def _columns(stored: Stored) -> dict[str, Any]:
    return {
        "segments": stored.segments,
        "base_ordinals": [bases.ordinal for bases in stored.bases],
        "base_chars": [bases.char for bases in stored.bases],
        "base_pages": [bases.page for bases in stored.bases],
        "base_lines": [bases.line for bases in stored.bases],
        "chunks": stored.chunks,
        "reused": stored.reused,
        "added": len(stored.added),
    }


async def record_idempotency_key(
    conn: AsyncConnection[Any], file: FileId, key: str | None, version: int, digest: bytes
) -> None:
    """Remembers, at commit only, which version a retried append must be given (rule 7)."""
    if key is not None:
        params = {"file": file, "key": key, "version": version, "digest": digest}
        await conn.execute(VERSIONS.record_idempotency_key, params)


# --- what a version logs ------------------------------------------------------------------------


async def log_version(
    conn: AsyncConnection[Any],
    collection: CollectionId,
    state: FileState,
    version: int,
    *,
    stored: Stored = NOTHING_STORED,
    manifest: Sequence[SegmentId] = (),
    then: Sequence[Event] = (),
) -> None:
    """Logs every chunk that some model lacks, then the events of `then`.

    What was added is new and lacks every embedding; shared segments and carried chunks are looked up
    (rule 8). The models are read again under the partition's lock: for one that came meanwhile, the whole
    `manifest` is looked up (rule 9).
    """
    missing = set(
        await chunks.unembedded(
            conn,
            state.file,
            segments=stored.shared,
            chunks=stored.carried,
            found_in=stored.carried_from,
            models=state.models,
        )
    )
    events = [*_appended(state, version, stored.added, missing), *then]
    late = await log.append_unless_late(conn, state.partition, collection, state.models, events)
    if late:
        missing |= set(await chunks.unembedded(conn, state.file, segments=manifest, models=late))
        await log.append(conn, state.partition, [*_appended(state, version, stored.added, missing), *then])


async def log_latest(conn: AsyncConnection[Any], collection: CollectionId, state: FileState) -> None:
    """Logs what the latest version still lacks, which is what retries dead letters (rule 8)."""
    held = Stored(shared=state.latest_segments)
    await log_version(conn, collection, state, state.latest, stored=held, manifest=held.shared)


def _appended(
    state: FileState, version: int, added: Sequence[ChunkId], missing: set[ChunkId]
) -> Iterator[Event]:
    yield from log.runs_of(state.file, version, added)
    yield from log.runs_of(state.file, version, sorted(missing - set(added)))


def committed_event(state: FileState, version: int, *, tombstone: bool = False) -> VersionCommitted:
    """The event of a commit; it becomes the target unless a higher version came first."""
    if version < state.latest:
        return VersionCommitted(file=state.file, version=version, target=False, tombstone=tombstone)
    return VersionCommitted(
        file=state.file, version=version, target=True, tombstone=tombstone, replaced=state.rolled_back_to
    )


# --- target and pins ----------------------------------------------------------------------------


async def roll_back(conn: AsyncConnection[Any], collection: CollectionId, state: FileState, to: int) -> None:
    """Makes an earlier version the target and logs what it lacks (rules 8 and 9).

    Raises UnknownVersion unless `to` is committed and uncollected.
    """
    manifest = await manifest_of(conn, state.file, to)
    if state.target == to:
        return
    await conn.execute(VERSIONS.set_target, {"file": state.file, "version": to})
    await log_version(
        conn,
        collection,
        state,
        to,
        stored=Stored(shared=manifest.segments),
        manifest=manifest.segments,
        then=[TargetChanged(file=state.file, version=to, previous=state.target)],
    )


async def set_pinned(conn: AsyncConnection[Any], state: FileState, version: int, *, pinned: bool) -> None:
    """Pins or unpins a version. Raises UnknownVersion unless it is committed and uncollected."""
    if not await rows.fetch_value(conn, VERSIONS.uncollected, {"file": state.file, "version": version}):
        raise unknown_version(version)
    params = {"file": state.file, "version": version, "pinned": pinned}
    await conn.execute(VERSIONS.set_pinned, params)
    kind = Pinned if pinned else Unpinned
    await log.append(conn, state.partition, [kind(file=state.file, version=version)])


async def manifest_of(conn: AsyncConnection[Any], file: FileId, version: int) -> Manifest:
    """A version's manifest. Raises UnknownVersion unless it is committed and uncollected."""
    params = {"file": file, "version": version}
    manifest = await rows.fetch_one(conn, VERSIONS.segments_of, params, row=Manifest)
    if manifest is None:
        raise unknown_version(version)
    return manifest


def unknown_version(version: int) -> UnknownVersion:
    """The error for a version that is not there; the caller raises it."""
    return UnknownVersion(
        f"version: {version} is not a committed version of this file, or its content was collected;"
        " `history` lists those that are kept"
    )
