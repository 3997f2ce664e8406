"""A side: one process that writes, embeds, projects and collects, made of the parts of which each is made."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import msgspec

from chunkstore import leases
from chunkstore.database import BY_INDEX
from chunkstore.events import VersionAbandoned, VersionCollected
from chunkstore.leases import Lease
from chunkstore.model import FileId
from chunkstore.models.hashing import HashingModel
from chunkstore.search_tables import ModelRow
from chunkstore.store import ChunkStore
from consumers.batching import Batching
from consumers.embedding import EmbeddingConsumer, Work
from consumers.loop import Handler, Loop
from projections import collector
from projections.collector import COLLECTOR
from projections.projector import Projector
from tests.interleavings.gates import Watch

MODELS = (HashingModel(8), HashingModel(9))


class Held(NamedTuple):
    """A range that a consumer has in hand."""

    lease: Lease
    work: Work


class Side:
    """One process: its store, and what its consumer, projector and collector are made of."""

    def __init__(self, store: ChunkStore, watch: Watch, known: Sequence[ModelRow]) -> None:
        self.store = store
        self.database = store.database
        self.watch = watch
        self.models = [row.model for row in known]
        self.handlers: list[Handler[Any, Any]] = [
            EmbeddingConsumer(store, model).handler(row) for model, row in zip(MODELS, known, strict=True)
        ]
        self.projectors = [Projector(store, model.name) for model in MODELS]
        self.collector = collector._Run(store, collector.CollectReport(), collector._silent)

    def loop(self, model: int = 0, *, batch: int = 2) -> Loop:
        """A consumer that has claimed nothing yet."""
        group = leases.embedding_group(self.models[model])
        return Loop(
            self.database,
            group,
            self.handlers[model],
            batching=Batching(batch),
            lease_seconds=60.0,
            model_seconds=60.0,
        )

    async def settle(self, held: Held, error: str | None = None) -> None:
        """Ends a range as its consumer does: with vectors, or with the model's error."""
        handler, (lease, work) = self.handlers[0], held
        result = handler.work(work, nullcontext())
        if error is not None:
            failed = dict.fromkeys(work.texts, error)
            copied = {text: vector for text, vector in result.vectors.items() if text in work.copied}
            result = msgspec.structs.replace(result, vectors=copied, errors=failed)
        async with self.database.transaction(BY_INDEX) as conn:
            await handler.settle(conn, lease, work, result)

    async def project(self, partition: int, model: int = 0) -> None:
        """One batch of events of the partition."""
        group = leases.projector_group(self.models[model])
        await self.projectors[model]._project(group, self.models[model], partition)

    async def decide(self, file: FileId) -> None:
        await self.collector._mark(file, COLLECTOR.decide, VersionCollected)

    async def abandon_overdue(self, file: FileId) -> None:
        await self.collector._mark(file, COLLECTOR.abandon_overdue, VersionAbandoned)

    async def sweep(self, file: FileId) -> None:
        await self.collector._sweep_file(file)

    # --- until nothing is left ------------------------------------------------------------------

    async def consume(self, models: int = len(MODELS)) -> None:
        """Embeds all that is owed, for the first so many models."""
        for model, handler in enumerate(self.handlers[:models]):
            loop = self.loop(model, batch=256)
            while claimed := await loop._claim_and_read():
                lease, work = claimed
                if work is not None:
                    result = handler.work(work, nullcontext())
                    async with self.database.transaction(BY_INDEX) as conn:
                        await handler.settle(conn, lease, work, result)

    async def project_all(self, models: int = len(MODELS)) -> None:
        """Projects all events, for the first so many models."""
        for number, model in enumerate(self.models[:models]):
            while True:
                async with self.database.transaction(BY_INDEX) as conn:
                    behind = await leases.partitions_behind(conn, leases.projector_group(model))
                if not behind:
                    break
                for partition in behind:
                    await self.project(partition, number)
