"""Dead letters: a chunk is given up; the letter is found, retried or discarded.

Keeps rule 14 (error texts stay out of the log) and, in `retry`, rule 16.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from psycopg import AsyncConnection

from chunkstore import log, rows, versions
from chunkstore.database import Database
from chunkstore.errors import UnknownDeadLetter
from chunkstore.events import DeadLetterDiscarded, DeadLetterRetried
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, CollectionId, FileId, Metadata, ModelId
from chunkstore.statements import load

DEAD_LETTERS = load("dead_letters")

State = Literal["open", "discarded"]


class DeadLetter(msgspec.Struct, frozen=True):
    """One chunk that a consumer gave up on, with its error, whose text stays out of the log (rule 14)."""

    chunk_id: ChunkId
    key: str
    model: str
    state: str
    attempts: int
    error: str
    failed_at: datetime


class FoundDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk that a consumer gave up on; `version` and `ordinal` where a kept version names it."""

    chunk_id: ChunkId
    collection: str
    key: str
    version: int | None
    ordinal: int | None
    model: str
    state: State
    attempts: int
    error: str
    failed_at: datetime


class Content(msgspec.Struct, frozen=True):
    """The chunk that a dead letter is about."""

    content: str
    metadata: Metadata


async def give_up(
    conn: AsyncConnection[Any], lease: Lease, model: ModelId, chunk: ChunkId, *, attempts: int, error: str
) -> bool:
    """Gives up a chunk that is still there and not embedded; marks its range done. Raises LeaseLost."""
    params = lease.key | {"model": model, "chunk": chunk, "attempts": attempts, "error": error}
    return await rows.fetch_value(conn, DEAD_LETTERS.give_up, params)


async def retry(conn: AsyncConnection[Any], collection: CollectionId, chunk: ChunkId, model: ModelId) -> None:
    """Takes a dead letter back and logs its chunk again. Raises UnknownDeadLetter."""
    file, partition, target = await _locked(conn, collection, chunk, model)
    if await rows.fetch_value(conn, DEAD_LETTERS.retry, {"chunk": chunk, "model": model}) is None:
        raise _unknown(chunk)
    await conn.execute(DEAD_LETTERS.reset_cursor, {"file": file, "model": model})
    retried = DeadLetterRetried(file=file, model=model, chunk=chunk)
    await log.append(conn, partition, [retried, *log.runs_of(file, target, [chunk])])


async def discard(
    conn: AsyncConnection[Any], collection: CollectionId, chunk: ChunkId, model: ModelId
) -> None:
    """Lets versions activate without the chunk (rule 16). Raises UnknownDeadLetter."""
    file, partition, _ = await _locked(conn, collection, chunk, model)
    if await rows.fetch_value(conn, DEAD_LETTERS.discard, {"chunk": chunk, "model": model}) is None:
        raise _unknown(chunk)
    await log.append(conn, partition, [DeadLetterDiscarded(file=file, model=model, chunk=chunk)])


async def _locked(
    conn: AsyncConnection[Any], collection: CollectionId, chunk: ChunkId, model: ModelId
) -> tuple[FileId, int, int]:
    """Locks the file of a dead letter; returns it with its partition and its target."""
    params = {"chunk": chunk, "model": model, "collection": collection}
    file = await rows.fetch_value(conn, DEAD_LETTERS.file_of, params)
    if file is None:
        raise _unknown(chunk)
    partition = await versions.lock_file(conn, file)
    return file, partition, await rows.fetch_value(conn, DEAD_LETTERS.target_of, {"file": file})


def _unknown(chunk: ChunkId) -> UnknownDeadLetter:
    return UnknownDeadLetter(f"chunk_id: no dead letter is kept for chunk {chunk} and this model")


# --- finding them -------------------------------------------------------------------------------


async def of_collection(conn: AsyncConnection[Any], collection: CollectionId) -> list[DeadLetter]:
    """The dead letters of a collection, oldest first."""
    return await rows.fetch_all(conn, DEAD_LETTERS.of_collection, {"collection": collection}, row=DeadLetter)


async def find(
    database: Database,
    *,
    collection: str | None = None,
    model: str | None = None,
    state: State | None = None,
    chunks: Sequence[ChunkId] | None = None,
) -> list[FoundDeadLetter]:
    """The dead letters that fit all that is given, oldest first.

    Raises UnknownDeadLetter where one of `chunks` has none that fits.
    """
    params = {
        "collection": collection,
        "model": model,
        "state": state,
        "chunks": None if chunks is None else list(chunks),
    }
    async with database.transaction() as conn:
        found = await rows.fetch_all(conn, DEAD_LETTERS.find, params, row=FoundDeadLetter)
    missing = sorted(set(chunks or ()) - {letter.chunk_id for letter in found})
    if missing:
        raise UnknownDeadLetter(
            f"chunk_id: no dead letter is kept for {', '.join(map(str, missing))};"
            " `chunkstore dead-letters list` shows those that are"
        )
    return found


async def content(database: Database, chunk: ChunkId) -> Content | None:
    """The chunk's text and metadata; None where it was erased or collected meanwhile."""
    async with database.transaction() as conn:
        return await rows.fetch_one(conn, DEAD_LETTERS.content, {"chunk": chunk}, row=Content)
