"""The collector: decides which versions go, logs that, then sweeps what only they named (rules 3 and 19).

Keeps invariant 9: nothing retained, pinned, open, latest, target or active is removed, and after one run
nothing else is left. Small transactions throughout; it can be interrupted anywhere and run again.
"""

from collections.abc import Callable
from datetime import datetime

import anyio
import msgspec

from chunkstore import catalog, log, rows, versions
from chunkstore.database import BY_INDEX
from chunkstore.errors import InvalidInput
from chunkstore.events import Event, VersionAbandoned, VersionCollected
from chunkstore.model import CollectionId, FileId
from chunkstore.retries import persistently
from chunkstore.statements import load
from chunkstore.store import ChunkStore
from projections import rebuild
from projections.repack import repack_due

COLLECTOR = load("collector")

# How often a sweep looks again at chunks that somebody holds, before it leaves them to the next run.
_LOOKS = 50
_PAUSE = 0.05
# Most chunks that one transaction removes; segments that it looks through for them at first, and at most.
_SWEPT_AT_ONCE = 1000
_FIRST_SEGMENTS = 16
_MOST_SEGMENTS = 64


class Collectable(msgspec.Struct, frozen=True):
    """A version that would go, and why."""

    collection: str
    key: str
    version: int
    chunks: int
    committed_at: datetime | None
    reason: str


class CollectReport(msgspec.Struct):
    """What a run came to; with `dry_run` only `would_collect` is filled."""

    collected: int = 0
    """Versions decided on."""
    abandoned: int = 0
    """Open versions past their deadline."""
    swept: int = 0
    """Chunk versions removed."""
    skipped: int = 0
    """Chunks that somebody held to the end; the next run removes them."""
    indexes_rebuilt: int = 0
    would_collect: list[Collectable] = msgspec.field(default_factory=list[Collectable])

    def add(self, later: "CollectReport") -> None:
        """Adds what a later run came to."""
        self.collected += later.collected
        self.abandoned += later.abandoned
        self.swept += later.swept
        self.skipped += later.skipped
        self.indexes_rebuilt += later.indexes_rebuilt


class _Swept(msgspec.Struct, frozen=True):
    swept: int
    skipped: int
    finished: bool


async def collect(
    store: ChunkStore,
    *,
    collection: str | None = None,
    dry_run: bool = False,
    on_progress: Callable[[CollectReport], None] | None = None,
) -> CollectReport:
    """Collects by each collection's retention, or shows what would go; with `collection`, in that one alone.

    Raises UnknownCollection, InvalidInput.
    """
    number = await _number(store, collection)
    report = CollectReport()
    if dry_run:
        async with store.database.transaction() as conn:
            report.would_collect = await rows.fetch_all(
                conn, COLLECTOR.preview, {"collection": number}, row=Collectable
            )
        return report
    run = _Run(store, report, on_progress or _silent)
    await run.abandon_overdue(number)
    await run.decide(number)
    await run.sweep(number)
    await rebuild.drop_abandoned(store.database, number)
    report.indexes_rebuilt = await repack_due(store.database, number)
    return report


async def collect_for_ever(store: ChunkStore, *, every: float, stop: anyio.Event) -> CollectReport:
    """Collects every `every` seconds until `stop` is set; returns the sums.

    Raises InvalidInput, and DatabaseError's family where trying again is no use.
    """
    if not every > 0:
        raise InvalidInput("every", every, "a number of seconds above 0")
    total = CollectReport()
    while not stop.is_set():
        report = await persistently(lambda: collect(store), stop)
        total.add(report)
        with anyio.move_on_after(every):
            await stop.wait()
    return total


def _silent(_: CollectReport) -> None:
    return


async def _number(store: ChunkStore, collection: str | None) -> CollectionId | None:
    if collection is None:
        return None
    async with store.database.transaction() as conn:
        return (await catalog.find(conn, collection)).collection


class _Run:
    def __init__(
        self, store: ChunkStore, report: CollectReport, on_progress: Callable[[CollectReport], None]
    ) -> None:
        self._database = store.database
        self._report = report
        self._on_progress = on_progress

    async def abandon_overdue(self, collection: CollectionId | None) -> None:
        """Gives up open versions whose writer has not added a batch for their deadline."""
        for file in await self._files(COLLECTOR.overdue, {"collection": collection}):
            self._report.abandoned += await self._mark(file, COLLECTOR.abandon_overdue, VersionAbandoned)

    async def decide(self, collection: CollectionId | None) -> None:
        """Marks what nothing keeps; the decision is in the log before the sweep."""
        for file in await self._files(COLLECTOR.candidates, {"collection": collection}):
            self._report.collected += await self._mark(file, COLLECTOR.decide, VersionCollected)
            self._on_progress(self._report)

    async def sweep(self, collection: CollectionId | None) -> None:
        """Removes what no open or uncollected version names any more."""
        after = FileId(0)
        while files := await self._files(COLLECTOR.to_sweep, {"collection": collection, "after": after}):
            for file in files:
                await self._sweep_file(file)
                self._on_progress(self._report)
            after = files[-1]

    async def _files(self, statement: bytes, params: dict[str, int | None]) -> list[FileId]:
        async with self._database.transaction() as conn:
            return list(dict.fromkeys(await rows.fetch_values(conn, statement, params)))

    async def _mark(self, file: FileId, statement: bytes, event: type[Event]) -> int:
        """Marks versions under the file's lock, with the event of each in the same transaction."""
        async with self._database.transaction() as conn:
            partition = await versions.lock_file(conn, file)
            marked = sorted(await rows.fetch_values(conn, statement, {"file": file}))
            if marked:
                await log.append(conn, partition, [event(file=file, version=version) for version in marked])
        return len(marked)

    async def _sweep_file(self, file: FileId) -> None:
        looks, segments = 0, _FIRST_SEGMENTS
        while True:
            params = {"file": file, "segments": segments, "limit": _SWEPT_AT_ONCE}
            async with self._database.transaction(BY_INDEX) as conn:
                swept = await rows.fetch_one(conn, COLLECTOR.sweep_segments, params, row=_Swept)
            assert swept is not None, "the function returns one row"
            # Many segments with little garbage each are one look through the file, not one for each.
            if swept.swept < _SWEPT_AT_ONCE:
                segments = min(segments * 2, _MOST_SEGMENTS)
            else:
                segments = max(segments // 2, 1)
            self._report.swept += swept.swept
            if swept.finished:
                return
            if swept.skipped:
                looks += 1
                if looks == _LOOKS:
                    self._report.skipped += swept.skipped
                    return
                await anyio.sleep(_PAUSE)
