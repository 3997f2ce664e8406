"""Says what an ingestion would do, and writes nothing: files are read, cut, and compared by their digests."""

from collections.abc import Callable, Iterable
from pathlib import Path

from anyio import to_thread

from chunkstore import inputs
from chunkstore.batches import ChunkSource, in_batches
from chunkstore.chunks import Hashing
from chunkstore.collection import Collection
from chunkstore.errors import InvalidInput, UnreadableFile
from chunkstore.ingest.changes import Checks
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.contents import chunks_of, fingerprint
from chunkstore.ingest.frames import Cutter, Task
from chunkstore.ingest.pipeline import APPENDED_AT_ONCE
from chunkstore.ingest.plan import Step, for_each, planned
from chunkstore.ingest.process import Limits
from chunkstore.ingest.reports import IngestReport, Outcome, Outdated, Progress, Tally
from chunkstore.ingest.sizing import chunker_for
from chunkstore.ingest.sources import find_sources
from chunkstore.ingest.stamps import digests
from chunkstore.ingest.workers import Workers
from chunkstore.manifests import Segmenter

_NO_METADATA = b"{}"
_NOTHING_TO_COMPARE = Hashing(headings=True, salt=b"")


async def rehearse(
    collection: Collection | None,
    paths: Iterable[str | Path],
    *,
    prune: bool = False,
    chunker: Cutter | None = None,
    checks: Checks | None = None,
    rechunk: bool = False,
    limits: Limits | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_outdated: Callable[[Outdated], None] | None = None,
) -> IngestReport:
    """What `ingest` would report of files; None for a collection that is not there yet.

    Outdated files are told of, and counted as such unless `rechunk` is True. Chunks are not counted.
    """
    found = await to_thread.run_sync(find_sources, list(paths), abandon_on_cancel=True)
    cut = chunker or (Chunker() if collection is None else await to_thread.run_sync(chunker_for, collection))
    live = set[str]() if collection is None else {key async for key in collection.keys()}  # noqa: SIM118
    hashing = _NOTHING_TO_COMPARE if collection is None else collection.row.hashing
    found = found.with_known(live)
    tally = Tally(len(found.sources), on_progress)
    async with Workers(cut, limits or Limits()) as workers:
        plan = await planned(collection, found.sources, checks or Checks(), workers, fingerprint(cut))
        for step in plan.unchanged:
            tally.without_text += _is_blank(step)
            tally.done(step.source.key, "unchanged")
        if plan.outdated and on_outdated is not None:
            on_outdated(plan.counted())
        for step in [] if rechunk else plan.outdated:
            tally.without_text += _is_blank(step)
            tally.done(step.source.key, "outdated")
        to_read = [*plan.to_read, *(plan.outdated if rechunk else ())]
        held = await _held(collection, to_read)

        async def read(step: Step) -> None:
            key = step.source.key
            try:
                inputs.checked_key(key)
                digest, blank = await _digest(workers, step, None if workers.cuts else cut, hashing)
            except (UnreadableFile, InvalidInput) as error:
                tally.failed(key, str(step.source.path), str(error))
                return
            same = digest is None or digest == held.get(key)
            tally.without_text += blank
            outcome: Outcome = "unchanged" if same else "updated" if key in live else "added"
            tally.done(key, outcome)

        await for_each(to_read, read, at_once=workers.most + APPENDED_AT_ONCE)
    lost = await to_thread.run_sync(found.lost, live, abandon_on_cancel=True) if prune else []
    tally.total += len(lost)
    for key in lost:
        tally.done(key, "deleted")
    return tally.report(found.problems, found.left_out)


def _is_blank(step: Step) -> bool:
    """True where the version that is there of the file has no chunks."""
    return step.known is not None and step.known.chunks == 0


async def _held(collection: Collection | None, steps: list[Step]) -> dict[str, bytes]:
    if collection is None or not steps:
        return {}
    return await digests(collection, [step.source.key for step in steps])


async def _digest(
    workers: Workers, step: Step, cut: Cutter | None, hashing: Hashing
) -> tuple[bytes | None, bool]:
    """The digest of the version that the file would be, None if it has not changed; and if it is blank."""
    task = Task(step.source.encoded_path, known=step.compared)
    async with workers.reading(task) as reading:
        if reading.opened.parser is None:
            await reading.done()
            return None, _is_blank(step)
        chunks = await chunks_of(reading, cut)
        return await _digested(chunks, hashing), not chunks


async def _digested(chunks: ChunkSource, hashing: Hashing) -> bytes:
    segmenter = Segmenter()
    async for batch in in_batches(chunks, hashing):
        for _ in segmenter.feed(batch):
            pass
    for _ in segmenter.finish():
        pass
    return segmenter.digest(_NO_METADATA)
