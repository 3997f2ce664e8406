"""Chunk versions: checks and hashes what comes in, stores payload that the file does not hold yet.

Keeps invariant 2 (a chunk version never changes). The identity of a chunk within its file is the hash of
content and metadata; there is no unique index on it, the file's lock is the guard.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from psycopg import AsyncConnection

from chunkstore import inputs, rows
from chunkstore.model import Chunk, ChunkId, FileId, ModelId, Place, SegmentId
from chunkstore.settings import EVENT_CHUNKS
from chunkstore.statements import load

CHUNKS = load("chunks")

HASH_BYTES = 16

# Below this many rows one INSERT is faster than a COPY's extra round trips. A COPY passes no policies.
_COPY_FROM = 100


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


def prepare(chunk: Chunk, *, headings: bool, position: int) -> Prepared:
    """Checks and hashes one chunk. Raises InvalidInput, naming the chunk by its position."""
    content = inputs.checked_content(chunk.content, position)
    place = None if chunk.place is None else inputs.checked_place(chunk.place, position)
    if not chunk.metadata and isinstance(chunk.metadata, dict):
        text_hash = blake2b(content, digest_size=HASH_BYTES).digest()
        return Prepared(content, b"{}", text_hash, text_hash, place)
    metadata = inputs.checked_metadata(chunk.metadata, f"chunks[{position}].metadata")
    text = model_text(chunk.content, chunk.metadata.get("headings") if headings else None)
    text_hash = blake2b(text.encode(), digest_size=HASH_BYTES).digest()
    hashed = blake2b(content, digest_size=HASH_BYTES, key=b"chunk")
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


async def insert(conn: AsyncConnection[Any], file: FileId, new: Sequence[Prepared]) -> list[ChunkId]:
    """Stores chunks that the file lacks; returns their ids, consecutive in runs of up to 1,024."""
    if not new:
        return []
    ids, guarded = await _new_ids(conn, len(new))
    if len(new) < _COPY_FROM or guarded:
        await conn.execute(
            CHUNKS.insert,
            {
                "file": file,
                "ids": ids,
                "hashes": [chunk.hash for chunk in new],
                "text_hashes": [chunk.text_hash for chunk in new],
                "contents": [chunk.content.decode() for chunk in new],
                "metadata": [chunk.metadata.decode() for chunk in new],
            },
        )
    else:
        async with conn.cursor() as cursor, cursor.copy(CHUNKS.copy_in) as copy:
            for block in _binary_rows(file, ids, new):
                await copy.write(block)
    return ids


async def unembedded(
    conn: AsyncConnection[Any],
    file: FileId,
    *,
    segments: Sequence[SegmentId],
    chunks: Sequence[ChunkId],
    models: Iterable[ModelId],
) -> list[ChunkId]:
    """The chunks, among those given and the segments', that some model lacks, in order of id."""
    if not segments and not chunks:
        return []
    params = {
        "file": file,
        "segments": list(segments),
        "chunks": list(chunks),
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


def _binary_rows(file: FileId, ids: Sequence[ChunkId], new: Sequence[Prepared]) -> Iterator[bytes]:
    """The rows in the format of `COPY … (FORMAT binary)`, in blocks of some 64 kB."""
    block = bytearray(_SIGNATURE)
    for chunk_id, chunk in zip(ids, new, strict=True):
        block += _FIXED.pack(6, 8, chunk_id, 8, file, 16, chunk.hash, 16, chunk.text_hash, len(chunk.content))
        block += chunk.content
        block += _METADATA.pack(len(chunk.metadata) + 1, 1)  # jsonb's binary format is version 1
        block += chunk.metadata
        if len(block) > 65536:
            yield bytes(block)
            block.clear()
    yield bytes(block + _TRAILER)
