"""Runs a consumer and a projector beside a piece of work, in one process, as `chunkstore up` does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from chunkstore import ChunkStore
from chunkstore.database import FOR_AS_LONG_AS_IT_TAKES
from chunkstore.models import Model
from chunkstore.store import Collection
from consumers.embedding import EmbeddingConsumer
from projections.indexes import INDEXES
from projections.projector import Projector


@asynccontextmanager
async def running(store: ChunkStore, model: Model) -> AsyncIterator[None]:
    """A consumer and a projector of the model, stopped at the end of the block."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, model).run(stop=stop))
        tasks.start_soon(lambda: Projector(store, model.name).run(stop=stop))
        yield
        stop.set()


@asynccontextmanager
async def without_indexes(store: ChunkStore) -> AsyncIterator[Callable[[Collection], Awaitable[None]]]:
    """Gives what keeps the index of a collection from being built until the end, as during a bulk load."""
    async with store.database.transaction(FOR_AS_LONG_AS_IT_TAKES) as guard:

        async def hold(collection: Collection) -> None:
            table = collection._models[0].search_table  # noqa: SLF001
            await guard.execute(INDEXES.try_lock, {"index": f"{table}_hnsw", "table": table})
            await guard.execute(b"SELECT")  # ends the query's portal and with it its snapshot

        yield hold


async def drain(store: ChunkStore, model: Model) -> None:
    """Embeds and projects until nothing is left to do."""
    await EmbeddingConsumer(store, model).run(drain=True)
    await Projector(store, model.name).run(drain=True)
