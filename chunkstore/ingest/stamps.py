"""Stamps: what the file on disk was that a version was made of, so that an unchanged one is not read again.

A stamp is valid while its version is the latest and the target. It goes with its file's erasure
(invariant 11), and files with dead letters are logged again as an unchanged append would do (rule 8).
"""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
import msgspec

from chunkstore import rows, versions
from chunkstore.collection import Collection
from chunkstore.database import BY_INDEX
from chunkstore.errors import ChunkstoreError, UnknownFile
from chunkstore.ingest.frames import Opened
from chunkstore.model import FileId
from chunkstore.statements import load

SOURCES = load("sources")

_YOUNG_NS = 2_000_000_000
"""A file system may give two writes this near each other the same time of modification."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SAVED_AT_ONCE = 128
_SAVED_AFTER = 1.0
_CLEAN_UP_SECONDS = 5.0


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a key as it was read for a version: its size, time and hash, and what read and cut it."""

    key: str
    file: FileId
    version: int
    size: int
    mtime_ns: int | None
    """None where the file was written just before: a write just after could have left the time as it is."""
    hash: bytes
    parser: str
    chunker: str

    @classmethod
    def of(cls, key: str, file: FileId, version: int, opened: Opened, *, parser: str, chunker: str) -> Self:
        """The stamp of a file that was opened just now."""
        is_young = time.time_ns() - opened.mtime_ns < _YOUNG_NS
        return cls(
            key=key,
            file=file,
            version=version,
            size=opened.size,
            mtime_ns=None if is_young else opened.mtime_ns,
            hash=opened.hash,
            parser=parser,
            chunker=chunker,
        )


class Known(Stamp, frozen=True, kw_only=True):
    """A valid stamp, and what its version holds."""

    chunks: int
    has_dead_letters: bool
    """Some chunk was given up: the file is logged again, or an ingestion would not retry it."""


async def known(collection: Collection, keys: Sequence[str]) -> dict[str, Known]:
    """The valid stamps of the files of those keys, by key; one query."""
    params = {"collection": collection.row.collection, "keys": _storable(keys)}
    async with collection.store.database.transaction() as conn:
        found = await rows.fetch_all(conn, SOURCES.stamps, params, row=Known)
    return {stamp.key: stamp for stamp in found}


class _Digest(msgspec.Struct, frozen=True):
    key: str
    digest: bytes


async def digests(collection: Collection, keys: Sequence[str]) -> dict[str, bytes]:
    """What an append has to equal to be unchanged, by key."""
    params = {"collection": collection.row.collection, "keys": _storable(keys)}
    async with collection.store.database.transaction() as conn:
        found = await rows.fetch_all(conn, SOURCES.digests, params, row=_Digest)
    return {row.key: row.digest for row in found}


async def log_again(collection: Collection, stamp: Stamp) -> bool:
    """Logs what the version lacks, as an unchanged append does; False where it is not the latest any more."""
    row = collection.row.collection
    async with collection.store.database.transaction(BY_INDEX) as conn:
        try:
            state = await versions.lock_existing(conn, row, stamp.key)
        except UnknownFile:
            return False
        if not state.latest == state.target == stamp.version:
            return False
        await versions.log_latest(conn, row, state)
    collection.store.hints.give()
    return True


class Stamping:
    """Saves stamps some at a time; what is still to save is saved at the end of the `async with`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._waiting: list[Stamp] = []
        self._since = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self._save()
            return
        with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True), suppress(ChunkstoreError):
            await self._save()  # what ended the ingestion is the error to report

    async def add(self, stamp: Stamp) -> None:
        """Saves the stamp soon."""
        now = time.monotonic()
        if not self._waiting:
            self._since = now
        self._waiting.append(stamp)
        if len(self._waiting) >= _SAVED_AT_ONCE or now - self._since >= _SAVED_AFTER:
            await self._save()

    async def _save(self) -> None:
        stamps, self._waiting = self._waiting, []
        if stamps:
            await save(self._collection, stamps)


async def save(collection: Collection, stamps: Sequence[Stamp]) -> None:
    """Saves the stamps, one a file."""
    params = {
        "files": [stamp.file for stamp in stamps],
        "versions": [stamp.version for stamp in stamps],
        "sizes": [stamp.size for stamp in stamps],
        "mtimes": [stamp.mtime_ns for stamp in stamps],
        "hashes": [stamp.hash for stamp in stamps],
        "parsers": [stamp.parser for stamp in stamps],
        "chunkers": [stamp.chunker for stamp in stamps],
    }
    async with collection.store.database.transaction() as conn:
        await conn.execute(SOURCES.save, params)


def _storable(keys: Sequence[str]) -> list[str]:
    """Those keys that a store can hold: no others have a stamp."""
    return [key for key in keys if not _UNSTORABLE.search(key)]
