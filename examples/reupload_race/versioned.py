"""This pipeline: append a version, embed by ranges of the log, switch when it is complete."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import numpy as np
from psycopg import AsyncConnection

from chunkstore import Chunk, ChunkStore
from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.leases import Lease
from chunkstore.models import Model
from chunkstore.models.protocol import Distance
from chunkstore.search_tables import ModelRow
from consumers.embedding import EmbeddingConsumer, Work
from consumers.loop import Handler
from examples.reupload_race.ledger import Ledger, now
from projections.projector import Projector


class Versioned:
    """Nothing is deleted before the next version is complete, and nothing is queued by chunk."""

    name = "chunkstore"
    batch = 16
    """Chunks of one range, and so texts of one call of the model."""

    def __init__(self, store: ChunkStore, reports: Collection, model: Model, server: EmbeddedServer) -> None:
        self._store = store
        self._reports = reports
        self._model = model
        self._log = server.log
        self._violations_before = self._logged_violations()

    async def upload(self, key: str, texts: list[str]) -> int:
        """Replaces a file's chunks; returns a number that grows with every upload of the file."""
        return (await self._reports.append(key, [Chunk(text) for text in texts])).number

    async def work(self, worker: int, ledger: Ledger, stop: anyio.Event) -> None:
        """Embeds until the stop."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(Projector(self._store, self._model.name).run, stop=stop))
            await _Watched(self._store, self._model, self.batch, worker, ledger).run(stop=stop)

    async def drain(self) -> None:
        """Embeds what waits."""
        await EmbeddingConsumer(self._store, self._model).run(drain=True)
        await Projector(self._store, self._model.name).run(drain=True)

    async def search(self, query: np.ndarray, k: int) -> list[str]:
        """The content of the k nearest chunks."""
        return [hit.content for hit in await self._reports.search(query, k=k)]

    def violations(self) -> int:
        """How often the server logged that a foreign key was violated."""
        return self._logged_violations() - self._violations_before

    def _logged_violations(self) -> int:
        return self._log.read_text(errors="replace").count("violates foreign key")


class _Watched(EmbeddingConsumer):
    """The consumer as it is, with a ledger of what it reads and gives to the model."""

    def __init__(self, store: ChunkStore, model: Model, batch: int, worker: int, ledger: Ledger) -> None:
        super().__init__(store, _NotedModel(model, worker, ledger), batch=batch)
        self._ledger = ledger

    def handler(self, known: ModelRow) -> Handler[Any, Any]:
        return _NotedReads(super().handler(known), self._ledger)


class _NotedModel:
    """A model whose calls are noted."""

    def __init__(self, inner: Model, worker: int, ledger: Ledger) -> None:
        self.name = inner.name
        self.dimensions = inner.dimensions
        self.distance: Distance = inner.distance
        self._inner = inner
        self._worker = worker
        self._ledger = ledger

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        given = now()
        vectors = self._inner.embed(texts)
        self._ledger.called(self._worker, texts, given)
        return vectors


class _NotedReads:
    """A handler whose reads are noted."""

    def __init__(self, inner: Handler[Any, Any], ledger: Ledger) -> None:
        self._read = inner.read
        self.work = inner.work
        self.settle = inner.settle
        self._ledger = ledger

    async def read(self, conn: AsyncConnection[Any], lease: Lease) -> Work | None:
        began = now()
        work: Work | None = await self._read(conn, lease)
        if work is not None:
            self._ledger.read(work.texts.values(), began)
        return work
