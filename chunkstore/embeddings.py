"""Embeddings: what a range owes, copies of equal texts, the store by exact chunk version.

Keeps rules 10 to 13 and invariant 4 (no embedding without its chunk version, one a chunk and model).
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from psycopg import AsyncConnection

from chunkstore import rows
from chunkstore.arrays import Bigints, Vectors
from chunkstore.chunks import model_text
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, CollectionId, ModelId
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
