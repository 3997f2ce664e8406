"""Claim, read and acknowledge with a model that costs nothing, against a visibility-timeout queue.

Neither side stores vectors: what is measured is how work reaches a consumer and leaves it.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from psycopg import AsyncConnection

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, Timed, against
from benchmarks.peers import Queue
from chunkstore import ChunkStore, embeddings, leases, log, rows
from chunkstore.collection import Collection
from chunkstore.embeddings import Owed
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, ModelId
from consumers.batching import Batching
from consumers.loop import Loop

BATCH = 256
_NOTHING = np.empty((0, 384), np.float32)


async def main(setup: Setup) -> list[Result]:
    """20,480 chunks in 20 files; the queue sends, reads, archives 256 at a time and fetches the content."""
    async with setup.store() as store:
        every, ours = await acknowledging(store, files=5 if setup.quick else 20)
        with setup.peer() as conn:
            queue = Queue(conn)
            content = (
                f'SELECT chunk_id, content FROM "{store.database.schema}".chunks WHERE chunk_id = ANY (%s)'
            )

            async def peer(_: int) -> float:
                with Stopwatch() as watch:
                    for start in range(0, len(every), BATCH):
                        queue.send(every[start : start + BATCH])
                    while messages := queue.read(BATCH):
                        conn.execute(content, ([chunk for _, chunk in messages],)).fetchall()
                        queue.archive([message for message, _ in messages])
                return watch.seconds

            return [
                await against(
                    "log, claim, read and acknowledge, null model",
                    ours,
                    peer,
                    name="visibility-timeout queue, batches of 256, and fetching the content",
                    rounds=setup.rounds(7),
                    target=Target("≥", 5),
                    per=len(every),
                )
            ]


async def acknowledging(store: ChunkStore, *, files: int) -> tuple[list[ChunkId], Timed]:
    """The chunks of that many files of 1,024, and what logs, claims, reads and acknowledges them all."""
    collection = await store.collection("bench", model=material.NullModel())
    logged = [await _append(store, collection, i) for i in range(files)]
    model = collection._models[0].model  # noqa: SLF001
    await _drain(store, model)

    async def ours(_: int) -> float:
        with Stopwatch() as watch:
            for partition, file, version, ids in logged:
                async with store.database.transaction() as conn:
                    await log.append(conn, partition, log.runs_of(file, version, ids))
            await _drain(store, model)
        return watch.seconds

    return [chunk for _, _, _, ids in logged for chunk in ids], ours


class _Acknowledging:
    """A handler that reads what a range owes and marks it done, with nothing stored."""

    def __init__(self, model: ModelId) -> None:
        self._model = model
        self.batching = Batching()
        self.read_chunks = 0

    async def read(self, conn: AsyncConnection[Any], lease: Lease) -> list[Owed]:
        return await embeddings.owed(conn, lease, self._model)

    def work(self, work: list[Owed], turn: AbstractContextManager[None]) -> None:
        with turn:
            self.read_chunks += len(work)
            self.batching.took(len(work), 0.0)

    async def settle(
        self, conn: AsyncConnection[Any], lease: Lease, _work: list[Owed], _result: None
    ) -> None:
        await embeddings.complete(conn, lease, self._model, [], _NOTHING)


async def _append(store: ChunkStore, collection: Collection, number: int) -> tuple[int, Any, int, list[Any]]:
    version = await collection.append(f"file-{number}", material.stream(1024, seed=number))
    found = "SELECT file FROM files ORDER BY file DESC LIMIT 1"
    async with store.database.transaction() as conn:
        file = await rows.fetch_value(conn, found)
        partition = await rows.fetch_value(
            conn, "SELECT partition FROM files WHERE file = %(f)s", {"f": file}
        )
        ids = await rows.fetch_values(
            conn, "SELECT chunk_id FROM chunks WHERE file = %(f)s ORDER BY chunk_id", {"f": file}
        )
    return partition, file, version.number, ids


async def _drain(store: ChunkStore, model: ModelId) -> None:
    handler = _Acknowledging(model)
    group = leases.embedding_group(model)
    loop = Loop(store.database, group, handler, batching=handler.batching, lease_seconds=60, model_seconds=60)
    await loop.run(drain=True)
    assert handler.read_chunks, "every chunk of the log is owed, since none was embedded"
