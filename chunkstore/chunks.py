"""Chunk versions: checks and hashes what comes in, stores payload that the file does not hold yet.

Keeps invariant 2 (a chunk version never changes). The identity of a chunk within its file is the hash of
content and metadata; there is no unique index on it, the file's lock is the guard.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from anyio.lowlevel import checkpoint
from psycopg import AsyncConnection
from psycopg.copy import AsyncLibpqWriter

from chunkstore import inputs, rows
from chunkstore.arrays import Bigints
from chunkstore.model import Chunk, ChunkId, FileId, ModelId, Place, SegmentId
from chunkstore.settings import EVENT_CHUNKS
from chunkstore.statements import load

CHUNKS = load("chunks")

HASH_BYTES = 16

# Below this many rows one INSERT is faster than a COPY's extra round trips. A COPY passes no policies.
_COPY_FROM = 100

# Bytes that may wait here for the server: where they are fewer, it idles while the client hashes.
_UNSENT = 4 * 2**20


class Hashing(msgspec.Struct, frozen=True):
    """How a collection hashes its chunks: whether heading paths are part of a text, and a salt of 16 bytes.

    With a salt that only the collection's readers know, nobody else can compute a hash that is stored.
    """

    headings: bool
    salt: bytes


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A chunk as it will be stored: checked, hashed, encoded.

    `hash` (16 bytes) identifies content and metadata, `text_hash` (16 bytes) the exact text that the
    models are given.
    """

    content: bytes
    metadata: bytes
    hash: bytes
    text_hash: bytes
    place: Place | None


def prepare(chunk: Chunk, hashing: Hashing, *, position: int) -> Prepared:
    """Checks and hashes one chunk. Raises InvalidInput, naming the chunk by its position."""
    content = inputs.checked_content(chunk.content, position)
    place = None if chunk.place is None else inputs.checked_place(chunk.place, position)
    if not chunk.metadata and isinstance(chunk.metadata, dict):
        text_hash = blake2b(content, digest_size=HASH_BYTES, salt=hashing.salt).digest()
        return Prepared(content, b"{}", text_hash, text_hash, place)
    metadata = inputs.checked_metadata(chunk.metadata, f"chunks[{position}].metadata")
    text = model_text(chunk.content, chunk.metadata.get("headings") if hashing.headings else None)
    text_hash = blake2b(text.encode(), digest_size=HASH_BYTES, salt=hashing.salt).digest()
    hashed = blake2b(content, digest_size=HASH_BYTES, salt=hashing.salt, person=b"chunk")
    hashed.update(metadata)
    return Prepared(content, metadata, hashed.digest(), text_hash, place)


def model_text(content: str, headings: object) -> str:
    """The text that a model is given: the heading path on a line of its own, then the content.

    Only a path of texts counts: it reads the same before jsonb has kept it and after.
    """
    if not isinstance(headings, list | tuple) or not headings:
        return content
    path: list[object] = list(headings)  # pyright: ignore[reportUnknownArgumentType]
    titles = [heading for heading in path if isinstance(heading, str)]
    if len(titles) < len(path):
        return content
    return f"{' > '.join(titles)}\n\n{content}"


async def find_by_hash(
    conn: AsyncConnection[Any], file: FileId, wanted: Iterable[Prepared]
) -> dict[bytes, ChunkId]:
    """The file's chunks that equal one of those wanted, by hash."""
    wanted = list(wanted)
    params = {
        "file": file,
        "hashes": b"".join([chunk.hash for chunk in wanted]),
        "text_hashes": b"".join([chunk.text_hash for chunk in wanted]),
    }
    found = await rows.fetch_all(conn, CHUNKS.by_hash, params, row=_ByHash)
    return {row.hash: row.chunk_id for row in found}


class _ByHash(msgspec.Struct, frozen=True):
    chunk_id: ChunkId
    hash: bytes


async def insert(
    conn: AsyncConnection[Any], file: FileId, new: Iterable[Prepared], at_most: int
) -> dict[bytes, ChunkId]:
    """Stores chunks that the file lacks, each once; returns their ids by hash.

    The ids are consecutive in runs of up to 1,024. `new`, of `at_most` chunks, is read while those before are
    on their way to the server, so it may hash as it goes.
    """
    if not at_most:
        return {}
    ids, guarded = await _new_ids(conn, at_most)
    stored: dict[bytes, ChunkId] = {}
    numbered = _numbered(new, ids, stored)
    if at_most >= _COPY_FROM and not guarded:
        async with conn.cursor() as cursor:
            writer = AsyncLibpqWriter(cursor, flush_threshold=_UNSENT)
            async with cursor.copy(CHUNKS.copy_in, writer=writer) as copy:
                for block in _binary_rows(file, numbered):
                    await copy.write(block)
                    await checkpoint()
        return stored
    chunks = [chunk for _, chunk in numbered]
    await conn.execute(
        CHUNKS.insert,
        {
            "file": file,
            "ids": list(stored.values()),
            "hashes": [chunk.hash for chunk in chunks],
            "text_hashes": [chunk.text_hash for chunk in chunks],
            "contents": [chunk.content.decode() for chunk in chunks],
            "metadata": [chunk.metadata.decode() for chunk in chunks],
        },
    )
    return stored


async def unembedded(
    conn: AsyncConnection[Any],
    file: FileId,
    *,
    segments: Sequence[SegmentId],
    chunks: Sequence[ChunkId] = (),
    found_in: Sequence[SegmentId] = (),
    models: Iterable[ModelId],
) -> list[ChunkId]:
    """The chunks, among those given and the segments', that some model lacks, in order of id.

    `found_in` are segments that together hold all of `chunks`, if they are known: where all of them are
    active, none of the chunks is looked up (rule 16).
    """
    if not segments and not chunks:
        return []
    params = {
        "file": file,
        "segments": list(segments),
        "chunks": Bigints(chunks),
        "found_in": list(found_in),
        "models": list(models),
    }
    return await rows.fetch_value(conn, CHUNKS.unembedded, params)


class _Block(msgspec.Struct, frozen=True):
    block: int
    guarded: bool


async def _new_ids(conn: AsyncConnection[Any], count: int) -> tuple[list[ChunkId], bool]:
    """Ids from blocks of the sequence, so that a run of chunks is one event of consecutive ids.

    With them, whether policies guard the table that the chunks go to.
    """
    params = {"blocks": -(-count // EVENT_CHUNKS)}
    blocks = await rows.fetch_all(conn, CHUNKS.new_blocks, params, row=_Block)
    ids: list[ChunkId] = []
    for row in blocks:
        size = min(EVENT_CHUNKS, count - len(ids))
        ids.extend(ChunkId(row.block * EVENT_CHUNKS + i) for i in range(size))
    return ids, blocks[0].guarded


_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_FIXED = struct.Struct(">hiqiqi16si16si")
_METADATA = struct.Struct(">iB")


def _numbered(
    new: Iterable[Prepared], ids: Sequence[ChunkId], stored: dict[bytes, ChunkId]
) -> Iterator[tuple[ChunkId, Prepared]]:
    """The chunks that are not stored yet, each with an id, noted by its hash."""
    for chunk in new:
        if chunk.hash not in stored:
            stored[chunk.hash] = chunk_id = ids[len(stored)]
            yield chunk_id, chunk


def _binary_rows(file: FileId, new: Iterable[tuple[ChunkId, Prepared]]) -> Iterator[bytes]:
    """The rows in the format of `COPY … (FORMAT binary)`, in blocks of some 64 kB."""
    block = bytearray(_SIGNATURE)
    for chunk_id, chunk in new:
        block += _FIXED.pack(6, 8, chunk_id, 8, file, 16, chunk.hash, 16, chunk.text_hash, len(chunk.content))
        block += chunk.content
        block += _METADATA.pack(len(chunk.metadata) + 1, 1)  # jsonb's binary format is version 1
        block += chunk.metadata
        if len(block) > 65536:
            yield bytes(block)
            block.clear()
    yield bytes(block + _TRAILER)
