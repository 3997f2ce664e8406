"""What the tests from append to search share: a collection, an append, a drain, all that a search finds."""

from typing import Any

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.model import Chunk, Version
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.faults.models import MODEL

(QUERY,) = MODEL.embed(["file chunk upload"])


@pytest.fixture
async def docs(store: ChunkStore) -> Collection:
    """A collection of a model that costs nothing."""
    return await store.collection("docs", model=MODEL)


async def append(collection: Collection, key: str, *contents: str) -> Version:
    """Appends chunks of those contents."""
    return await collection.append(key, [Chunk(content) for content in contents])


async def drain(store: ChunkStore, model: HashingModel = MODEL) -> int:
    """Embeds and projects what is left; returns how many texts the model was given."""
    consumer = EmbeddingConsumer(store, model)
    with anyio.fail_after(90):
        await consumer.run(drain=True)
        await Projector(store, model.name).run(drain=True)
    return consumer.report.embedded


async def found(collection: Collection, k: int = 1000, **options: Any) -> list[tuple[str, int, int, str]]:
    """All that a search finds: key, version, ordinal and content."""
    hits = await collection.search(MODEL.embed(["text"])[0], k=k, **options)
    return sorted((hit.key, hit.version, hit.ordinal, hit.content) for hit in hits)
