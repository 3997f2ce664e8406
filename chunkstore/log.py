"""The log: appends runs of events to a partition and reads them back.

Keeps invariant 1 (offsets are dense): the partition's row is locked, the largest offset is read in the
next statement, and nothing is inserted but behind it (`append_events` in the migrations).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from psycopg import AsyncConnection

from chunkstore import events as log_events
from chunkstore import rows
from chunkstore.events import ChunksAppended, Event
from chunkstore.model import ChunkId, CollectionId, FileId, ModelId
from chunkstore.settings import EVENT_CHUNKS
from chunkstore.statements import load

LOG = load("log")


class Recorded(msgspec.Struct, frozen=True):
    """An event of the log and the offsets `first … last` of its partition that it covers."""

    first: int
    last: int
    event: Event


class _Row(msgspec.Struct, frozen=True):
    last_offset: int
    n: int
    type: str
    file: int | None
    version: int | None
    first_chunk: int | None
    chunks: list[int] | None
    data: Any


async def append(conn: AsyncConnection[Any], partition: int, events: Iterable[Event]) -> int:
    """Appends the events in their order; returns the offset after the last one.

    Takes the partition's lock, the last in the lock order, and holds it until the transaction ends.
    """
    params = {"partition": partition, "events": _encoded_all(events)}
    return await rows.fetch_value(conn, LOG.append, params)


async def read(conn: AsyncConnection[Any], partition: int, start: int, limit: int) -> list[Recorded]:
    """Up to `limit` events that cover offsets from `start` on."""
    params = {"partition": partition, "start": start, "limit": limit}
    found = await rows.fetch_all(conn, LOG.read, params, row=_Row)
    return [_recorded(row) for row in found]


async def append_unless_late(
    conn: AsyncConnection[Any],
    partition: int,
    collection: CollectionId,
    models: Iterable[ModelId],
    events: Iterable[Event],
) -> list[ModelId]:
    """Appends the events as `append` does, unless the collection has models that are not among those given.

    Returns those, as they are under the partition's lock, which it takes either way (rule 9).
    """
    params = {
        "partition": partition,
        "collection": collection,
        "models": list(models),
        "events": _encoded_all(events),
    }
    return await rows.fetch_value(conn, LOG.append_unless_late, params)


def runs_of(file: FileId, version: int, chunks: Sequence[ChunkId]) -> Iterator[ChunksAppended]:
    """Events that log the chunks: consecutive ids in one run, at most 1,024 chunks an event."""
    for start in range(0, len(chunks), EVENT_CHUNKS):
        yield ChunksAppended(file=file, version=version, chunks=tuple(chunks[start : start + EVENT_CHUNKS]))


def _encoded_all(events: Iterable[Event]) -> str:
    return msgspec.json.encode([_encoded(event) for event in events]).decode()


def _encoded(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": log_events.name_of(event), "file": event.file, "version": event.version}
    chunks: Sequence[int] | None = getattr(event, "chunks", None)
    if chunks is not None:
        if event.chunk_offsets:
            fields["n"] = len(chunks)
        if chunks[-1] - chunks[0] == len(chunks) - 1 and event.chunk_offsets:
            fields["first_chunk"] = chunks[0]
        else:
            fields["chunks"] = chunks
    data = log_events.data_of(event)
    if data:
        fields["data"] = data
    return fields


def _recorded(row: _Row) -> Recorded:
    chunks = row.chunks
    if row.first_chunk is not None:
        chunks = list(range(row.first_chunk, row.first_chunk + row.n))
    event = log_events.decode(row.type, row.file, row.version, chunks, row.data)
    return Recorded(row.last_offset - row.n + 1, row.last_offset, event)
