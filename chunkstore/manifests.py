"""Manifests: a version's ordered chunks and places, kept as segments that versions share.

Where a segment ends is decided by the chunks near its end alone (content-defined boundaries), so an edit
rewrites the one or two segments that it touches and every later run finds its segment again, whichever
batch it arrives in. Keeps invariant 3 (every chunk of a manifest exists) together with the file's lock.

Source of the boundary rule: Muthitacharoen, Chen, Mazières, "A low-bandwidth network file system" (2001),
over chunk hashes instead of bytes.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from psycopg import AsyncConnection

from chunkstore import rows
from chunkstore.arrays import Bigints, Integers
from chunkstore.chunks import HASH_BYTES, Prepared
from chunkstore.model import ChunkId, FileId, Place, SegmentId
from chunkstore.settings import SEGMENT_MAX, SEGMENT_MIN
from chunkstore.statements import load

MANIFESTS = load("manifests")

# After SEGMENT_MIN chunks, one in 512 ends its segment: 1,000 chunks on average.
_BOUNDARY_MASK = 511

Offsets = list[int | None] | None


class Bases(msgspec.Struct, frozen=True):
    """What a segment's relative places stand on in one version."""

    ordinal: int
    char: int
    page: int
    line: int


class Draft(msgspec.Struct, frozen=True):
    """A segment to be: its chunks, their relative places, and where it stands in this version."""

    chunks: list[Prepared]
    digest: bytes
    bases: Bases
    starts: Offsets
    ends: Offsets
    pages: Offsets
    lines: Offsets


class Manifest(msgspec.Struct, frozen=True):
    """A version's segments with their bases, in order."""

    segments: list[SegmentId]
    base_ordinals: list[int]
    base_chars: list[int]
    base_pages: list[int]
    base_lines: list[int]

    def __iter__(self) -> Iterator[tuple[SegmentId, Bases]]:
        bases = map(Bases, self.base_ordinals, self.base_chars, self.base_pages, self.base_lines)
        return zip(self.segments, bases, strict=True)


class Segmenter:
    """Cuts a stream of chunks into segments and keeps the running digest of the version."""

    def __init__(self) -> None:
        self._pending: list[Prepared] = []
        self._digest = blake2b(digest_size=HASH_BYTES)
        self.count = 0

    def feed(self, chunks: Iterable[Prepared]) -> Iterator[Draft]:
        """Takes chunks in; yields each segment that is whole."""
        for chunk in chunks:
            if (draft := self.add(chunk)) is not None:
                yield draft

    def add(self, chunk: Prepared) -> Draft | None:
        """Takes one chunk in; returns the segment that it makes whole."""
        self._pending.append(chunk)
        size = len(self._pending)
        if size >= SEGMENT_MIN and (_ends_segment(chunk) or size >= SEGMENT_MAX):
            return self._cut()
        return None

    def finish(self) -> Iterator[Draft]:
        """Yields the last segment, if chunks are left for one."""
        if self._pending:
            yield self._cut()

    def digest(self, metadata: bytes) -> bytes:
        """What 'unchanged' compares: ordered chunk hashes, places and the version's metadata (16 bytes)."""
        whole = self._digest.copy()
        whole.update(metadata)
        return whole.digest()

    def _cut(self) -> Draft:
        draft = _draft(self._pending, self.count)
        self.count += len(self._pending)
        self._pending = []
        bases = draft.bases
        self._digest.update(draft.digest + b"%d,%d,%d;" % (bases.char, bases.page, bases.line))
        return draft


def _ends_segment(chunk: Prepared) -> bool:
    return not int.from_bytes(chunk.hash[-2:], "big") & _BOUNDARY_MASK


def _draft(chunks: list[Prepared], ordinal: int) -> Draft:
    digest = blake2b(b"".join([chunk.hash for chunk in chunks]), digest_size=HASH_BYTES)
    places = [chunk.place for chunk in chunks]
    if not any(places):
        return Draft(chunks, digest.digest(), Bases(ordinal, 0, 0, 0), None, None, None, None)
    char, starts = _relative([place.start if place else None for place in places])
    ends = _relative([place.end if place else None for place in places], base=char)[1]
    page, pages = _relative([place.page if place else None for place in places])
    line, lines = _relative([place.line if place else None for place in places])
    for offsets in (starts, ends, pages, lines):
        digest.update(array("q", [-(2**40) if value is None else value for value in offsets or ()]).tobytes())
        digest.update(b"/")
    return Draft(chunks, digest.digest(), Bases(ordinal, char, page, line), starts, ends, pages, lines)


def _relative(values: list[int | None], base: int | None = None) -> tuple[int, Offsets]:
    """The first value as the base, and all values relative to it; (0, None) where there is none."""
    if base is None or all(value is None for value in values):
        base = next((value for value in values if value is not None), None)
    if base is None:
        return 0, None
    return base, [None if value is None else value - base for value in values]


class _Known(msgspec.Struct, frozen=True):
    digest: bytes
    segment: SegmentId


class _Hashes(msgspec.Struct, frozen=True):
    chunks: list[ChunkId]
    hashes: bytes


async def known_segments(
    conn: AsyncConnection[Any], file: FileId, drafts: Sequence[Draft]
) -> dict[bytes, SegmentId]:
    """The drafts that the file holds already, by digest. The caller holds the file's lock."""
    params = {"file": file, "digests": [draft.digest for draft in drafts]}
    found = await rows.fetch_all(conn, MANIFESTS.known_segments, params, row=_Known)
    return {row.digest: row.segment for row in found}


async def hashes_of(conn: AsyncConnection[Any], segments: Iterable[SegmentId]) -> dict[bytes, ChunkId]:
    """The chunks of the segments by their hash."""
    found = await rows.fetch_all(conn, MANIFESTS.hashes_of, {"segments": list(segments)}, row=_Hashes)
    return {
        row.hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES]: chunk_id
        for row in found
        for i, chunk_id in enumerate(row.chunks)
    }


async def insert_segments(
    conn: AsyncConnection[Any], file: FileId, drafts: Sequence[Draft], ids: Mapping[bytes, ChunkId]
) -> dict[bytes, SegmentId]:
    """Stores the drafts, whose chunks all exist under `ids` by hash; returns their numbers by digest."""
    each = [_segment_row(file, draft, ids) for draft in drafts]
    numbers = await rows.insert_each(conn, MANIFESTS.insert_segment, each)
    return {draft.digest: number for draft, number in zip(drafts, numbers, strict=True)}


def _segment_row(file: FileId, draft: Draft, ids: Mapping[bytes, ChunkId]) -> dict[str, Any]:
    chunks = [ids[chunk.hash] for chunk in draft.chunks]
    return {
        "file": file,
        "digest": draft.digest,
        "min_chunk": min(chunks),
        "max_chunk": max(chunks),
        "consecutive": chunks == list(range(chunks[0], chunks[0] + len(chunks))),
        "chunks": Bigints(chunks),
        "hashes": b"".join([chunk.hash for chunk in draft.chunks]),
        "starts": _sent(draft.starts),
        "ends": _sent(draft.ends),
        "pages": _sent(draft.pages),
        "lines": _sent(draft.lines),
    }


def _sent(offsets: Offsets) -> Integers | None:
    return None if offsets is None else Integers(offsets)


class ChunkRow(msgspec.Struct, frozen=True):
    """One chunk of a manifest with its absolute place."""

    chunk_id: ChunkId
    ordinal: int
    content: str
    metadata: dict[str, Any]
    start: int | None
    end: int | None
    page: int | None
    line: int | None


async def read_segment(conn: AsyncConnection[Any], segment: SegmentId, bases: Bases) -> list[ChunkRow]:
    """The chunks of one segment of a version, in order."""
    params = {
        "segment": segment,
        "base_ordinal": bases.ordinal,
        "base_char": bases.char,
        "base_page": bases.page,
        "base_line": bases.line,
    }
    return await rows.fetch_all(conn, MANIFESTS.read_chunks, params, row=ChunkRow)


def place_of(row: ChunkRow) -> Place | None:
    """The row's place; None where nothing of it is known."""
    place = Place(row.start, row.end, row.page, row.line)
    return None if place == Place() else place
