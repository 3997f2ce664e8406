"""What a store holds and what it waits for, at one moment and at a small cost.

Shows invariant 13 on its way: what is not active yet, how far behind each group is, what was given up.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

from chunkstore import rows
from chunkstore.model import CollectionId
from chunkstore.statements import load
from chunkstore.store import ChunkStore

STATUS = load("status")

IndexState = Literal["none", "building", "ready", "broken"]


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a collection stands with one of its models."""

    name: str
    dimensions: int
    distance: str
    serving: bool
    active: int
    """Files whose target searches see."""
    waiting: int
    """Files whose target is not active yet."""
    stale_since: datetime | None
    """Since when the file that waits longest has had another target than searches see."""
    failed: int
    """Chunks with an open dead letter."""
    discarded: int
    """Chunks whose dead letter was discarded."""
    index: IndexState
    """`broken` is left by a build that failed; the projector builds it again."""
    backfilling: bool
    """The model was added to the filled collection, and not everything is logged for it yet."""
    rebuilding: bool
    bytes: int
    """What its search and active tables take on disk."""

    @property
    def exact(self) -> bool:
        """Whether searches compare every vector, because no index stands."""
        return self.index != "ready"


class CollectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection holds."""

    name: str
    files: int
    """Files that are not deleted."""
    deleted: int
    versions: int
    """Committed versions whose content is kept."""
    open: int
    """Versions that are being written."""
    chunks: int
    """Places of the latest versions."""
    models: list[ModelStatus]
    """The serving one first."""

    @property
    def serving(self) -> ModelStatus:
        """The model that searches use unless they name another."""
        return self.models[0]


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a consumer group has come."""

    name: str
    kind: Literal["shared", "ordered"]
    model: str
    lag: int
    """Chunks not finished by a shared group, offsets not read by an ordered one."""
    in_flight: int
    """Chunks of the lag that stand in claimed ranges."""
    leases: int
    """Leases that are held now."""
    oldest: datetime | None
    """When the oldest event that waits was logged."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What tables take on disk with their indexes, in bytes."""

    log: int
    chunks: int
    manifests: int
    embeddings: int
    projections: int
    total: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A store at one moment."""

    schema: str
    partitions: int
    offsets: int
    """The length of the log."""
    sizes: Sizes
    collections: list[CollectionStatus]
    groups: list[GroupStatus]

    @property
    def idle(self) -> bool:
        """Whether nothing is left to embed or to project."""
        return all(group.lag == 0 for group in self.groups)


class _Log(msgspec.Struct, frozen=True):
    partitions: int
    offsets: int


async def status(store: ChunkStore) -> Status:
    """The store's status. Cost follows the number of files and of events that wait, not of chunks."""
    async with store.database.snapshot() as conn:
        log = await rows.fetch_one(conn, STATUS.log, row=_Log)
        sizes = await rows.fetch_one(conn, STATUS.sizes, row=Sizes)
        assert log is not None
        assert sizes is not None
        models: dict[CollectionId, list[ModelStatus]] = {}
        for collection, model in await rows.fetch_all(conn, STATUS.models, row=_model):
            models.setdefault(collection, []).append(model)

        def with_models(collection: CollectionId, **columns: Any) -> CollectionStatus:
            return CollectionStatus(models=models[collection], **columns)

        return Status(
            schema=store.database.schema,
            partitions=log.partitions,
            offsets=log.offsets,
            sizes=sizes,
            collections=await rows.fetch_all(conn, STATUS.collections, row=with_models),
            groups=[
                *await rows.fetch_all(conn, STATUS.shared_groups, row=_shared),
                *await rows.fetch_all(conn, STATUS.ordered_groups, row=_ordered),
            ],
        )


async def shared_groups(store: ChunkStore) -> list[GroupStatus]:
    """How far the consumers of every model are; all of a status that a consumer's role may ask for."""
    async with store.database.transaction() as conn:
        return await rows.fetch_all(conn, STATUS.shared_groups, row=_shared)


async def waiting_chunks(store: ChunkStore, collection: str) -> int:
    """How many embeddings the collection's files lack until searches see their targets."""
    async with store.database.transaction() as conn:
        return await rows.fetch_value(conn, STATUS.waiting_chunks, {"collection": collection})


def _model(collection: CollectionId, **columns: Any) -> tuple[CollectionId, ModelStatus]:
    return collection, ModelStatus(**columns)


def _shared(**columns: Any) -> GroupStatus:
    return GroupStatus(kind="shared", **columns)


def _ordered(**columns: Any) -> GroupStatus:
    return GroupStatus(kind="ordered", **columns)
