"""Brings files into a collection: found, compared with what is known of them, read, cut, appended.

Files are read in processes of their own while earlier ones are appended. A file that cannot be read
stops nobody: it is reported, and keeps the version that it has. Pruning deletes only what has gone from
the folders given, after the keys were shown.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from anyio import to_thread

from chunkstore import inputs
from chunkstore.collection import Collection
from chunkstore.errors import Conflict, InvalidInput, UnknownFile, UnreadableFile
from chunkstore.ingest.changes import Checks
from chunkstore.ingest.contents import chunks_of, fingerprint
from chunkstore.ingest.frames import Cutter, Opened, Task
from chunkstore.ingest.plan import Step, for_each, planned
from chunkstore.ingest.process import Limits
from chunkstore.ingest.reports import IngestReport, Outcome, Outdated, Progress, Tally
from chunkstore.ingest.sizing import chunker_for
from chunkstore.ingest.sources import Source, find_sources
from chunkstore.ingest.stamps import Stamp, Stamping, log_again
from chunkstore.ingest.workers import Workers
from chunkstore.model import FileId, Version

__all__ = ["Checks", "IngestReport", "Limits", "Outdated", "Progress", "ingest"]

APPENDED_AT_ONCE = 2
"""Files that are appended while as many others as there are workers are read."""

ConfirmPrune = Callable[[Sequence[str]], Awaitable[bool]]
ConfirmRechunk = Callable[[Outdated], Awaitable[bool]]


async def ingest(
    collection: Collection,
    paths: Iterable[str | Path],
    *,
    prune: bool = False,
    chunker: Cutter | None = None,
    checks: Checks | None = None,
    rechunk: bool = False,
    limits: Limits | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    confirm_prune: ConfirmPrune | None = None,
    confirm_rechunk: ConfirmRechunk | None = None,
) -> IngestReport:
    """Appends every file that `paths` mean (files, folders, globs) as a version, and says what came of it.

    A file that `checks` find unchanged is not read. One that an earlier chunker or parser made is left as
    it is, unless `rechunk` says otherwise or `confirm_rechunk` answers True. With `prune`, files of the
    collection that have gone from those folders are deleted; first `confirm_prune` gets their keys, and
    where it answers False, none is. `limits` are what one file may cost.

    Raises InvalidInput where two files would have one key, WorkerFailed where no file can be read here.
    """
    found = await to_thread.run_sync(find_sources, list(paths), abandon_on_cancel=True)
    cut = chunker or await to_thread.run_sync(chunker_for, collection)
    live = {key async for key in collection.keys()}  # noqa: SIM118
    found = found.with_known(live)
    tally = Tally(len(found.sources), on_progress)
    async with Workers(cut, limits or Limits()) as workers, Stamping(collection) as stamping:
        work = _Ingestion(collection, cut, live, workers, stamping, tally)
        plan = await planned(collection, found.sources, checks or Checks(), workers, fingerprint(cut))
        for step in plan.unchanged:
            await work.pass_over(step, "unchanged")
        if plan.outdated and not rechunk:
            rechunk = confirm_rechunk is not None and await confirm_rechunk(plan.counted())
        for step in [] if rechunk else plan.outdated:
            await work.pass_over(step, "outdated")
        await work.append_all([*plan.to_read, *(plan.outdated if rechunk else ())])
    if prune:
        lost = await to_thread.run_sync(found.lost, live, abandon_on_cancel=True)
        await work.delete_all(lost, confirm_prune)
    return tally.report(found.problems, found.left_out)


class _Ingestion:
    """One run: what is done with each file."""

    def __init__(
        self,
        collection: Collection,
        cut: Cutter,
        live: set[str],
        workers: Workers,
        stamping: Stamping,
        tally: Tally,
    ) -> None:
        self._collection = collection
        self._cut = cut
        self._live = live
        self._workers = workers
        self._stamping = stamping
        self._tally = tally
        self._overtaken: list[Step] = []

    async def append_all(self, steps: Iterable[Step]) -> None:
        """Reads and appends the files. An error that is not one file's ends them all."""
        at_once = self._workers.most + APPENDED_AT_ONCE
        waiting = [*steps, *self._overtaken]
        while waiting:
            self._overtaken = []
            await for_each(waiting, self._append, at_once=at_once)
            waiting = self._overtaken

    async def pass_over(self, step: Step, outcome: Outcome) -> None:
        """Leaves a file as it is; what it lacks for a dead letter is logged again."""
        stamp = step.known
        assert stamp is not None, "only a file with a stamp is known not to have changed"
        if stamp.has_dead_letters and not await log_again(self._collection, stamp):
            self._overtaken.append(Step(step.source))  # somebody else has appended to it meanwhile
            return
        if step.opened is not None:
            await self._stamp(
                stamp.file, stamp.version, step.source, step.opened, stamp.parser, stamp.chunker
            )
        self._tally.without_text += stamp.chunks == 0
        self._tally.chunks_reused += stamp.chunks
        self._tally.done(step.source.key, outcome)

    async def _append(self, step: Step) -> None:
        source = step.source
        try:
            inputs.checked_key(source.key)
            task = Task(source.encoded_path, known=step.compared)
            async with self._workers.reading(task) as reading:
                opened = reading.opened
                if opened.parser is None:
                    await reading.done()
                    await self.pass_over(msgspec.structs.replace(step, opened=opened), "unchanged")
                    return
                chunks = await chunks_of(reading, None if self._workers.cuts else self._cut)
                version = await self._collection.append(source.key, chunks)
        except (UnreadableFile, InvalidInput, Conflict) as error:
            self._tally.failed(source.key, str(source.path), str(error))
            return
        await self._stamp(version.file, version.number, source, opened, opened.parser, fingerprint(self._cut))
        self._tally.without_text += version.chunks == 0
        self._tally.chunks_added += version.added
        self._tally.chunks_reused += version.chunks if version.unchanged else version.reused
        self._tally.done(source.key, self._outcome(version))

    async def _stamp(
        self, file: FileId, version: int, source: Source, opened: Opened, parser: str, chunker: str
    ) -> None:
        stamp = Stamp.of(source.key, file, version, opened, parser=parser, chunker=chunker)
        await self._stamping.add(stamp)

    async def delete_all(self, keys: Sequence[str], confirm: ConfirmPrune | None) -> None:
        """Deletes the files of these keys, unless the caller is asked and refuses."""
        if not keys or (confirm is not None and not await confirm(keys)):
            return
        self._tally.total += len(keys)
        for key in keys:
            try:
                await self._collection.delete(key)
            except UnknownFile:  # somebody erased it meanwhile
                self._tally.total -= 1
            else:
                self._tally.done(key, "deleted")

    def _outcome(self, version: Version) -> Outcome:
        if version.unchanged:
            return "unchanged"
        return "updated" if version.key in self._live else "added"
