"""Embeddings: what a range owes, copies of equal texts, the store by exact chunk version, dead letters.

Keeps rules 10 to 14 and invariant 4 (no embedding without its chunk version, one a chunk and model).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from psycopg import AsyncConnection

from chunkstore import log, rows, versions
from chunkstore.arrays import Bigints, Vectors
from chunkstore.chunks import model_text
from chunkstore.errors import UnknownDeadLetter
from chunkstore.events import DeadLetterDiscarded, DeadLetterRetried
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, CollectionId, FileId, ModelId
from chunkstore.statements import load

EMBEDDINGS = load("embeddings")


class Owed(msgspec.Struct, frozen=True):
    """A chunk that needs an embedding, with the exact text that the model is to be given."""

    chunk_id: ChunkId
    collection: CollectionId
    text_hash: bytes
    text: str
    source: ChunkId | None
    """A chunk of the collection with the same text that has its embedding."""
    has_twin: bool = False
    """Some other chunk of the store has the same text."""


class _Copied(msgspec.Struct, frozen=True):
    chunk_id: ChunkId
    vector: list[float]


class DeadLetter(msgspec.Struct, frozen=True):
    """One chunk that a consumer gave up on, with its error, whose text stays out of the log (rule 14)."""

    chunk_id: ChunkId
    key: str
    model: str
    state: str
    attempts: int
    error: str
    failed_at: datetime


async def owed(conn: AsyncConnection[Any], lease: Lease, model: ModelId) -> list[Owed]:
    """The chunks of the range that are needed and lack the model's embedding, in order of id."""
    params = {"partition": lease.partition, "lo": lease.lo, "hi": lease.hi, "model": model}
    return await rows.fetch_all_by_position(conn, EMBEDDINGS.read_range, params, row=_owed)


def _owed(
    chunk: ChunkId,
    collection: CollectionId,
    text_hash: bytes,
    content: str,
    headings: list[Any] | None,
    source: ChunkId | None,
    has_twin: bool,
) -> Owed:
    return Owed(chunk, collection, text_hash, model_text(content, headings), source, has_twin)


async def copies(
    conn: AsyncConnection[Any], wanted: Sequence[Owed], model: ModelId
) -> dict[tuple[CollectionId, bytes], list[float]]:
    """Vectors that the collections hold for these texts, carried by the caller from here on (rule 12)."""
    texts = {
        chunk.source: (chunk.collection, chunk.text_hash) for chunk in wanted if chunk.source is not None
    }
    if not texts:
        return {}
    params = {"sources": Bigints(list(texts)), "model": model}
    found = await rows.fetch_all(conn, EMBEDDINGS.copies, params, row=_Copied)
    return {texts[row.chunk_id]: row.vector for row in found}


async def in_hand(
    conn: AsyncConnection[Any], lease: Lease, model: ModelId, wanted: Sequence[Owed]
) -> set[tuple[CollectionId, bytes]]:
    """The texts, by collection, that another lease has in hand: their vectors can be copied when it is done.

    So equal texts that come at once are embedded once, whoever embeds them.
    """
    shared = list({(chunk.collection, chunk.text_hash) for chunk in wanted if chunk.has_twin})
    if not shared:
        return set()
    await conn.execute(EMBEDDINGS.decide_in_turn, {"group": lease.group})
    params = lease.key | {
        "model": model,
        "collections": [collection for collection, _ in shared],
        "text_hashes": [text_hash for _, text_hash in shared],
    }
    found = await rows.fetch_all(conn, EMBEDDINGS.in_hand, params, row=_InHand)
    return {(row.collection, row.text_hash) for row in found}


class _InHand(msgspec.Struct, frozen=True):
    collection: CollectionId
    text_hash: bytes


async def complete(
    conn: AsyncConnection[Any],
    lease: Lease,
    model: ModelId,
    chunks: Sequence[ChunkId],
    vectors: np.ndarray,
    *,
    finished: bool = True,
) -> list[ChunkId]:
    """Stores `vectors`, `(len(chunks), d) float32` in the order of `chunks`; `finished` marks the range done.

    Chunks that are gone are passed over; a chunk that has its embedding keeps it (rule 13). Returns the
    chunks that were new. Raises LeaseLost, and then nothing was written.
    """
    params = lease.key | {
        "model": model,
        "chunks": Bigints(chunks),
        "vectors": Vectors(vectors),
        "finished": finished,
    }
    return await rows.fetch_value(conn, EMBEDDINGS.complete, params)


async def dead_letter(
    conn: AsyncConnection[Any], lease: Lease, model: ModelId, chunk: ChunkId, *, attempts: int, error: str
) -> bool:
    """Gives up a chunk that is still there and not embedded; marks its range done. Raises LeaseLost."""
    params = lease.key | {"model": model, "chunk": chunk, "attempts": attempts, "error": error}
    return await rows.fetch_value(conn, EMBEDDINGS.dead_letter, params)


# --- dead letters -------------------------------------------------------------------------------


async def dead_letters(conn: AsyncConnection[Any], collection: CollectionId) -> list[DeadLetter]:
    """The dead letters of a collection, oldest first."""
    return await rows.fetch_all(conn, EMBEDDINGS.dead_letters, {"collection": collection}, row=DeadLetter)


async def retry(conn: AsyncConnection[Any], collection: CollectionId, chunk: ChunkId, model: ModelId) -> None:
    """Takes a dead letter back and logs its chunk again. Raises UnknownDeadLetter."""
    file, partition, target = await _locked_dead_letter(conn, collection, chunk, model)
    if await rows.fetch_value(conn, EMBEDDINGS.retry, {"chunk": chunk, "model": model}) is None:
        raise _unknown(chunk)
    await conn.execute(EMBEDDINGS.reset_cursor, {"file": file, "model": model})
    retried = DeadLetterRetried(file=file, model=model, chunk=chunk)
    await log.append(conn, partition, [retried, *log.runs_of(file, target, [chunk])])


async def discard(
    conn: AsyncConnection[Any], collection: CollectionId, chunk: ChunkId, model: ModelId
) -> None:
    """Lets versions activate without the chunk (rule 16). Raises UnknownDeadLetter."""
    file, partition, _ = await _locked_dead_letter(conn, collection, chunk, model)
    if await rows.fetch_value(conn, EMBEDDINGS.discard, {"chunk": chunk, "model": model}) is None:
        raise _unknown(chunk)
    await log.append(conn, partition, [DeadLetterDiscarded(file=file, model=model, chunk=chunk)])


async def _locked_dead_letter(
    conn: AsyncConnection[Any], collection: CollectionId, chunk: ChunkId, model: ModelId
) -> tuple[FileId, int, int]:
    """Locks the file of a dead letter; returns it with its partition and its target."""
    params = {"chunk": chunk, "model": model, "collection": collection}
    file = await rows.fetch_value(conn, EMBEDDINGS.file_of_dead_letter, params)
    if file is None:
        raise _unknown(chunk)
    partition = await versions.lock_file(conn, file)
    return file, partition, await rows.fetch_value(conn, EMBEDDINGS.target_of, {"file": file})


def _unknown(chunk: ChunkId) -> UnknownDeadLetter:
    return UnknownDeadLetter(f"chunk_id: no dead letter is kept for chunk {chunk} and this model")
