"""The values that users meet: what goes in (`Chunk`, `Place`) and what comes out (`Version`, `Hit`)."""

from datetime import datetime
from typing import Any, Literal, NewType

import msgspec

FileId = NewType("FileId", int)
ChunkId = NewType("ChunkId", int)
ModelId = NewType("ModelId", int)
CollectionId = NewType("CollectionId", int)
SegmentId = NewType("SegmentId", int)

Metadata = dict[str, Any]

VersionState = Literal["open", "committed", "abandoned", "collected"]


class Place(msgspec.Struct, frozen=True):
    """Where a chunk stands in one version of its file; never part of the chunk's identity.

    `start` and `end` are character offsets into the original text (`text[start:end]`), `page` and
    `line` count from 1. Each may be None where the source has no such thing.
    """

    start: int | None = None
    end: int | None = None
    page: int | None = None
    line: int | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One chunk to append: text, the metadata that describes it (part of its identity), its place."""

    content: str
    metadata: Metadata = msgspec.field(default_factory=dict[str, Any])
    place: Place | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One state of a file.

    `reused` and `added` count this append's chunks by whether the file held them already;
    `unchanged` is True where the append made none: it found the latest version to be the same, or an earlier
    append with its idempotency key.
    """

    collection: str
    key: str
    file: FileId
    """The file's number: a key that was erased and appended again is another file's."""
    number: int
    chunks: int
    reused: int = 0
    added: int = 0
    unchanged: bool = False
    tombstone: bool = False
    state: VersionState = "committed"
    pinned: bool = False
    target: bool = False
    active: bool = False
    replaced_rollback_to: int | None = None
    """The version that a rollback had made the target, where this append replaced it."""
    discarded: int = 0
    """Chunks that are missing from search because their dead letter was discarded."""
    metadata: Metadata = msgspec.field(default_factory=dict[str, Any])
    committed_at: datetime | None = None


class StoredChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of one version, in the version's order; `ordinal` counts from 0."""

    chunk_id: ChunkId
    ordinal: int
    content: str
    metadata: Metadata
    place: Place | None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One search result: enough to cite exactly what was read.

    `score` is the similarity: 1 - distance for cosine, the inner product for `ip`, the negative
    distance for `l2`; higher is nearer.
    """

    key: str
    version: int
    ordinal: int
    place: Place | None
    score: float
    content: str
    metadata: Metadata
    chunk_id: ChunkId


class Hits(list[Hit]):
    """Search results, best first. `exact` says that no approximate index was used."""

    def __init__(self, hits: list[Hit], *, exact: bool) -> None:
        super().__init__(hits)
        self.exact = exact
