"""Brings files into a collection: found, read and cut in worker threads, appended a few at a time.

A file that cannot be read stops nobody: it is reported, and keeps the version that it has. Pruning
deletes only what has gone from the folders given, after the keys were shown.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec
from anyio import create_task_group, to_thread

from chunkstore.collection import Collection
from chunkstore.errors import Conflict, InvalidInput, UnknownFile, UnreadableFile
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document
from chunkstore.ingest.parsers import parse
from chunkstore.ingest.sources import Found, Source, find_sources
from chunkstore.model import Chunk, Version

FILES_AT_ONCE = 4
_CHUNKS_AT_ONCE = 512

Cut = Callable[[Document], Iterable[Chunk]]
Confirm = Callable[[Sequence[str]], Awaitable[bool]]
Outcome = Literal["added", "updated", "unchanged", "deleted", "failed"]


class Progress(msgspec.Struct, frozen=True):
    """One file is done: the `done`-th of `total`."""

    done: int
    total: int
    key: str
    outcome: Outcome


class IngestReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an ingestion did: files by outcome, and the chunks of the versions that it made or found."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    """Each path that could not be ingested, with the reason."""
    chunks_added: int = 0
    chunks_reused: int = 0
    embedded: int | None = None
    """Chunks that a model embedded for it, where the caller waited for that."""


async def ingest(
    collection: Collection,
    paths: Iterable[str | Path],
    *,
    prune: bool = False,
    chunker: Cut | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    confirm_prune: Confirm | None = None,
) -> IngestReport:
    """Appends every file that `paths` mean (files, folders, globs) as a version, and says what came of it.

    With `prune`, files of the collection that have gone from those folders are deleted; first
    `confirm_prune` gets their keys, and where it answers False, none is. Raises InvalidInput where
    two files would have one key.
    """
    found = await to_thread.run_sync(find_sources, list(paths))
    live = {key async for key in collection.keys()}  # noqa: SIM118
    work = _Ingestion(collection, chunker or Chunker(), live, len(found.sources), on_progress)
    await work.append_all(found.sources)
    if prune:
        await work.delete_all(await _lost(found, live), confirm_prune)
    return work.report([(problem.path, problem.reason) for problem in found.problems])


async def _lost(found: Found, live: set[str]) -> list[str]:
    candidates = sorted(live.difference(source.key for source in found.sources))
    return await to_thread.run_sync(lambda: [key for key in candidates if found.has_lost(key)])


async def _one_by_one(first: list[Chunk], others: Iterator[Chunk]) -> AsyncIterator[Chunk]:
    """The chunks of a large file, cut in a worker thread some hundreds at a time."""
    batch = first
    while batch:
        for chunk in batch:
            yield chunk
        batch = await to_thread.run_sync(lambda: list(islice(others, _CHUNKS_AT_ONCE)))


def _printable(path: str) -> str:
    """The path with the bytes of its name that are no UTF-8 spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


class _Ingestion:
    """One run: the files still to do, and what has come of the others."""

    def __init__(
        self,
        collection: Collection,
        cut: Cut,
        live: set[str],
        total: int,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._collection = collection
        self._cut = cut
        self._live = live
        self._total = total
        self._on_progress = on_progress
        self._outcomes: list[Outcome] = []
        self._failed: list[tuple[str, str]] = []
        self._chunks_added = 0
        self._chunks_reused = 0
        self._error: Exception | None = None

    async def append_all(self, sources: Iterable[Source]) -> None:
        """Appends the files, a few at once. An error that is not one file's ends them all."""
        remaining = iter(sources)
        async with create_task_group() as tasks:
            for _ in range(FILES_AT_ONCE):
                tasks.start_soon(self._append_remaining, remaining, tasks.cancel_scope.cancel)
        if self._error is not None:
            raise self._error

    async def _append_remaining(self, remaining: Iterator[Source], cancel: Callable[[], None]) -> None:
        try:
            for source in remaining:
                await self._append(source)
        except Exception as error:  # noqa: BLE001 - raised again outside the group, by itself
            self._error = error
            cancel()

    async def _append(self, source: Source) -> None:
        try:
            first, others = await to_thread.run_sync(self._read, source.path)
            chunks = _one_by_one(first, others) if len(first) == _CHUNKS_AT_ONCE else first
            version = await self._collection.append(source.key, chunks)
        except (UnreadableFile, InvalidInput, Conflict) as error:
            self._failed.append((str(source.path), str(error)))
            self._done(source.key, "failed")
        else:
            self._count(version)
            self._done(source.key, self._outcome(version))

    def _read(self, path: Path) -> tuple[list[Chunk], Iterator[Chunk]]:
        """The file's first chunks, and the others, still to be cut."""
        chunks = iter(self._cut(parse(path)))
        return list(islice(chunks, _CHUNKS_AT_ONCE)), chunks

    async def delete_all(self, keys: Sequence[str], confirm: Confirm | None) -> None:
        """Deletes the files of these keys, unless the caller is asked and refuses."""
        if not keys or (confirm is not None and not await confirm(keys)):
            return
        self._total += len(keys)
        for key in keys:
            try:
                await self._collection.delete(key)
            except UnknownFile:  # somebody erased it meanwhile
                self._total -= 1
            else:
                self._done(key, "deleted")

    def report(self, problems: list[tuple[str, str]]) -> IngestReport:
        """What was done; `problems` are the paths that led to no file."""
        count = self._outcomes.count
        return IngestReport(
            added=count("added"),
            updated=count("updated"),
            unchanged=count("unchanged"),
            deleted=count("deleted"),
            failed=tuple(sorted((_printable(path), reason) for path, reason in [*problems, *self._failed])),
            chunks_added=self._chunks_added,
            chunks_reused=self._chunks_reused,
        )

    def _outcome(self, version: Version) -> Outcome:
        if version.unchanged:
            return "unchanged"
        return "updated" if version.key in self._live else "added"

    def _count(self, version: Version) -> None:
        self._chunks_added += version.added
        self._chunks_reused += version.chunks if version.unchanged else version.reused

    def _done(self, key: str, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if self._on_progress is not None:
            self._on_progress(Progress(len(self._outcomes), self._total, key, outcome))
