"""Appends a version: in one transaction where it fits a batch, else streamed under an open version.

Atomic either way: the committed manifest is there with every chunk that it names, or nothing is. Memory
is bounded by a batch and a segment, whatever the file's length.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeGuard

import anyio
import msgspec
from psycopg import AsyncConnection

from chunkstore import chunks as payload
from chunkstore import versions
from chunkstore.batches import ChunkSource, fit_one_batch, in_batches, prepare_each
from chunkstore.chunks import Hashing, Prepared
from chunkstore.database import BY_INDEX, Database
from chunkstore.manifests import Draft, Segmenter
from chunkstore.model import Chunk, CollectionId, FileId, Metadata, Version
from chunkstore.reuse import store_first_segments, store_segments
from chunkstore.versions import NOTHING_STORED, Committed, FileState, Stored

# From so many chunks on, those of a new file are on their way to the server while the others are hashed.
SENT_EARLY_FROM = 1_024


_CLEAN_UP_SECONDS = 5
"""For what a cancelled append still does; the deadline of its version does it otherwise."""


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One append as the caller asked for it, checked."""

    collection: CollectionId
    collection_name: str
    key: str
    hashing: Hashing
    expected_version: int | None
    idempotency_key: str | None
    metadata: Metadata
    encoded_metadata: bytes


async def append(database: Database, write: Write, source: ChunkSource) -> Version:
    """Appends the chunks as the file's next version, or finds them unchanged.

    Raises InvalidInput, StaleVersion, IdempotencyKeyReused, VersionFenced.
    """
    if _is_sent_early(source) and await versions.is_new(database, write.collection, write.key):
        version = await _append_new(database, write, source)
        if version is not None:
            return version
    batches = in_batches(source, write.hashing)
    first: list[Prepared] = await anext(batches, [])
    second = await anext(batches, None)
    if second is None:
        return await _append_at_once(database, write, first)
    return await _append_streamed(database, write, _chained(first, second, batches))


async def delete(database: Database, write: Write) -> Version:
    """Appends a tombstone: a version with an empty manifest that ends the file's presence in searches.

    Raises UnknownFile where the key was never appended, StaleVersion.
    """
    digest = Segmenter().digest(b"tombstone" + write.encoded_metadata)
    async with database.transaction(BY_INDEX) as conn:
        state = await versions.lock_existing(conn, write.collection, write.key)
        versions.check_expected(state, write.expected_version)
        if versions.is_unchanged(state, digest, tombstone=True):
            return await _as_it_stands(conn, write, state.latest)
        committed = await versions.insert_committed(
            conn,
            state.file,
            NOTHING_STORED,
            digest=digest,
            metadata=write.encoded_metadata,
            tombstone=True,
        )
        event = versions.committed_event(state, committed.version, tombstone=True)
        await versions.log_version(conn, write.collection, state, committed.version, then=[event])
    return _value(write, state, committed.version, NOTHING_STORED, committed=committed, tombstone=True)


# --- in one transaction -------------------------------------------------------------------------


async def _append_at_once(database: Database, write: Write, batch: Sequence[Prepared]) -> Version:
    segmenter = Segmenter()
    drafts = [*segmenter.feed(batch), *segmenter.finish()]
    digest = segmenter.digest(write.encoded_metadata)
    async with database.transaction(BY_INDEX) as conn:
        state = await versions.lock(conn, write.collection, write.key, write.idempotency_key)
        settled = await _settled(conn, write, state, digest)
        if settled is not None:
            return settled
        stored = await store_segments(conn, state, drafts, streamed=False)
        return await _write_whole(conn, write, state, stored, digest)


def _is_sent_early(source: ChunkSource) -> TypeGuard[Sequence[Chunk]]:
    """Whether the chunks are many, and all at hand, and not too many for one transaction."""
    return isinstance(source, list | tuple) and len(source) >= SENT_EARLY_FROM and fit_one_batch(source)


async def _append_new(database: Database, write: Write, source: Sequence[Chunk]) -> Version | None:
    """Appends to a file that has no version, checking and hashing while the server stores what came before.

    None where another writer came first, whose chunks must be compared.
    """
    segmenter = Segmenter()
    drafts: list[Draft] = []

    def prepared() -> Iterator[Prepared]:
        for chunk in prepare_each(source, write.hashing):
            if (draft := segmenter.add(chunk)) is not None:
                drafts.append(draft)
            yield chunk

    async with database.transaction(BY_INDEX) as conn:
        state = await versions.lock(conn, write.collection, write.key, write.idempotency_key)
        if state.last_version > 0:
            return None
        versions.check_expected(state, write.expected_version)
        chunks = await payload.insert(conn, state.file, prepared(), len(source))
        drafts.extend(segmenter.finish())
        stored = await store_first_segments(conn, state.file, drafts, chunks)
        return await _write_whole(conn, write, state, stored, segmenter.digest(write.encoded_metadata))


async def _write_whole(
    conn: AsyncConnection[Any], write: Write, state: FileState, stored: Stored, digest: bytes
) -> Version:
    committed = await versions.insert_committed(
        conn, state.file, stored, digest=digest, metadata=write.encoded_metadata
    )
    await versions.record_idempotency_key(conn, state.file, write.idempotency_key, committed.version, digest)
    await versions.log_version(
        conn,
        write.collection,
        state,
        committed.version,
        stored=stored,
        manifest=stored.segments,
        then=[versions.committed_event(state, committed.version)],
    )
    return _value(write, state, committed.version, stored, committed=committed)


async def _settled(
    conn: AsyncConnection[Any], write: Write, state: FileState, digest: bytes
) -> Version | None:
    """The version that holds this append already: an earlier try's, or the latest, unchanged."""
    earlier = versions.check_idempotency(state, digest)
    if earlier is not None:
        return await _as_it_stands(conn, write, earlier)
    versions.check_expected(state, write.expected_version)
    if not versions.is_unchanged(state, digest):
        return None
    await versions.record_idempotency_key(conn, state.file, write.idempotency_key, state.latest, digest)
    await versions.log_latest(conn, write.collection, state)
    return await _as_it_stands(conn, write, state.latest)


# --- streamed -----------------------------------------------------------------------------------


async def _append_streamed(
    database: Database, write: Write, batches: AsyncIterator[Sequence[Prepared]]
) -> Version:
    segmenter = Segmenter()
    async with database.transaction(BY_INDEX) as conn:
        state = await versions.lock(conn, write.collection, write.key, write.idempotency_key)
        version = earlier = None
        if state.idempotent_version is None:
            versions.check_expected(state, write.expected_version)
            version = await versions.open_version(conn, state.file, write.encoded_metadata)
        else:
            earlier = await _as_it_stands(conn, write, state.idempotent_version)
    if version is None:
        assert earlier is not None, "one or the other"
        return await _compared_with_earlier(write, state, earlier, segmenter, batches)
    try:
        async for batch in batches:
            await _add_batch(database, write, state.file, version, list(segmenter.feed(batch)))
        return await _commit(database, write, state.file, version, segmenter)
    except BaseException:
        with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
            await _give_up(database, state, version)
        raise


async def _compared_with_earlier(
    write: Write,
    state: FileState,
    earlier: Version,
    segmenter: Segmenter,
    batches: AsyncIterator[Sequence[Prepared]],
) -> Version:
    async for batch in batches:
        for _ in segmenter.feed(batch):
            pass
    for _ in segmenter.finish():
        pass
    versions.check_idempotency(state, segmenter.digest(write.encoded_metadata))
    return earlier


async def _add_batch(
    database: Database, write: Write, file: FileId, version: int, drafts: Sequence[Draft]
) -> None:
    async with database.transaction(BY_INDEX) as conn:
        state = await versions.lock_open(conn, file, version)
        stored = await store_segments(conn, state, drafts, streamed=True)
        extended = await versions.extend(conn, file, version, stored)
        await versions.log_version(
            conn,
            write.collection,
            state,
            version,
            stored=stored,
            manifest=extended.segments,
        )


async def _commit(
    database: Database, write: Write, file: FileId, version: int, segmenter: Segmenter
) -> Version:
    last = list(segmenter.finish())
    digest = segmenter.digest(write.encoded_metadata)
    async with database.transaction(BY_INDEX) as conn:
        state = await versions.lock_open(conn, file, version, write.idempotency_key)
        settled = await _settled(conn, write, state, digest)
        if settled is not None:
            await versions.abandon(conn, state, version)
            return settled
        stored = await store_segments(conn, state, last, streamed=True)
        whole = await versions.extend(conn, file, version, stored)
        committed = await versions.commit(conn, file, version, digest)
        await versions.record_idempotency_key(conn, file, write.idempotency_key, version, digest)
        await versions.log_version(
            conn,
            write.collection,
            state,
            version,
            stored=stored,
            manifest=whole.segments,
            then=[versions.committed_event(state, version)],
        )
    return msgspec.structs.replace(
        _value(write, state, version, NOTHING_STORED, committed=committed),
        chunks=whole.chunks,
        reused=whole.reused,
        added=whole.added,
    )


async def _give_up(database: Database, state: FileState, version: int) -> None:
    """Abandons the open version; where the database is gone, its deadline does."""
    try:
        async with database.transaction(BY_INDEX) as conn:
            await versions.lock_file(conn, state.file)
            await versions.abandon(conn, state, version)
    except Exception:  # noqa: BLE001 - the error that ended the append is the one to report
        return


async def _chained(
    first: list[Prepared], second: list[Prepared], rest: AsyncIterator[list[Prepared]]
) -> AsyncIterator[list[Prepared]]:
    yield first
    yield second
    async for batch in rest:
        yield batch


async def _as_it_stands(conn: AsyncConnection[Any], write: Write, number: int) -> Version:
    """The version that this append found, and need not write."""
    found = await versions.history(conn, write.collection, write.collection_name, write.key, number)
    return msgspec.structs.replace(found[0], reused=found[0].chunks, added=0, unchanged=True)


def _value(
    write: Write,
    state: FileState,
    number: int,
    stored: Stored,
    *,
    committed: Committed,
    tombstone: bool = False,
) -> Version:
    return Version(
        collection=write.collection_name,
        key=write.key,
        file=state.file,
        number=number,
        chunks=stored.chunks,
        reused=stored.reused,
        added=len(stored.added),
        tombstone=tombstone,
        target=number > state.latest or number == state.target,
        replaced_rollback_to=None if number < state.latest else state.rolled_back_to,
        metadata=write.metadata,
        committed_at=committed.committed_at,
    )
