"""The chunks of an append, checked and hashed in batches of bounded count and size."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice

import anyio

from chunkstore import chunks as payload
from chunkstore.chunks import Hashing, Prepared
from chunkstore.errors import InvalidInput
from chunkstore.model import Chunk

BATCH_CHUNKS = 16_384
BATCH_BYTES = 16 * 2**20

ChunkSource = Iterable[Chunk] | AsyncIterable[Chunk]


def fit_one_batch(chunks: Sequence[Chunk]) -> bool:
    """Whether so many chunks, and so much content at the most that its length allows, are one batch."""
    contents = [chunk.content for chunk in chunks if isinstance(chunk, Chunk)]
    most = sum(len(text) * (1 if text.isascii() else 4) for text in contents if isinstance(text, str))
    return len(chunks) <= BATCH_CHUNKS and most < BATCH_BYTES


async def in_batches(source: ChunkSource, hashing: Hashing) -> AsyncIterator[list[Prepared]]:
    """The chunks, checked and hashed, in batches of bounded count and size."""
    batch: list[Prepared] = []
    size = position = 0
    async for piece in _pieces(source):
        for chunk in prepare_each(piece, hashing, position=position):
            batch.append(chunk)
            size += len(chunk.content)
            position += 1
            if len(batch) >= BATCH_CHUNKS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def prepare_each(chunks: Iterable[Chunk], hashing: Hashing, *, position: int = 0) -> Iterator[Prepared]:
    """The chunks, checked and hashed one by one. Raises InvalidInput, naming the chunk by its position."""
    for i, chunk in enumerate(chunks, position):
        if not isinstance(chunk, Chunk):
            raise InvalidInput(f"chunks[{i}]", chunk, "a chunk is a Chunk")
        yield payload.prepare(chunk, hashing, position=i)


async def _pieces(source: ChunkSource) -> AsyncIterator[list[Chunk]]:
    """The source in pieces, so that no async step is paid for each chunk of a plain iterable."""
    if isinstance(source, AsyncIterable):
        async for chunk in source:
            yield [chunk]
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        iterator = iter(source)
        while piece := list(islice(iterator, 256)):
            yield piece
            await anyio.lowlevel.checkpoint()
    else:
        raise InvalidInput("chunks", source, "chunks are an iterable or async iterable of Chunk")
