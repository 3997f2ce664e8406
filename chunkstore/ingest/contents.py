"""The chunks of a file that is being read, in the form that an append takes; a few hundred in memory."""

from collections.abc import AsyncIterator, Iterator
from itertools import islice

from anyio import to_thread

from chunkstore.batches import ChunkSource
from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.frames import FRAME_CHUNKS, Cutter
from chunkstore.ingest.workers import Reading
from chunkstore.model import Chunk


def fingerprint(cut: Cutter) -> str:
    """What names a chunker's cuts; a chunker without a `fingerprint` is named by its own name."""
    own = getattr(cut, "fingerprint", None)
    if isinstance(own, str):
        return own
    named = cut if hasattr(cut, "__qualname__") else type(cut)
    return f"{named.__module__}.{named.__qualname__}"


async def chunks_of(reading: Reading, cut: Cutter | None) -> ChunkSource:
    """The file's chunks: the worker's, or where `cut` is given those that it makes here, in a thread."""
    parts = reading.frames() if cut is None else _cut_here(cut, await reading.document())
    first = await anext(parts, [])
    second = await anext(parts, None)
    return first if second is None else _flattened(first, second, parts)


async def _flattened(
    first: list[Chunk], second: list[Chunk], others: AsyncIterator[list[Chunk]]
) -> AsyncIterator[Chunk]:
    for chunk in first:
        yield chunk
    for chunk in second:
        yield chunk
    async for part in others:
        for chunk in part:
            yield chunk


async def _cut_here(cut: Cutter, document: Document) -> AsyncIterator[list[Chunk]]:
    chunks: Iterator[Chunk] | None = None

    def part() -> list[Chunk]:
        nonlocal chunks
        if chunks is None:
            chunks = iter(cut(document))
        return list(islice(chunks, FRAME_CHUNKS))

    while True:
        try:
            cut_now = await to_thread.run_sync(part)
        except Exception as error:  # whatever a chunker of the user's own raises, it is one file's failure
            raise UnreadableFile(f"the chunker failed: {type(error).__name__}: {error}") from error
        if not cut_now:
            return
        yield cut_now
