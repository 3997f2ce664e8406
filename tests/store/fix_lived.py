"""A store that has lived: appended to, embedded, rolled back, deleted, erased, pinned, collected.

One a module: its tests change it inside transactions that they roll back.
"""

from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import numpy as np
import pytest

from chunkstore import Chunk, Place, migrate, versions
from chunkstore.collection import Collection
from chunkstore.dsn import Dsn
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from tests.fix_server import drop_schema

REFUSED = "refused by the model"


class PickyModel(HashingModel):
    """A hashing model that fails for every text that says so."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if any(REFUSED in text for text in texts):
            raise ValueError("I do not embed that")
        return super().embed(texts)


class Lived:
    """The store with its collection, and the numbers of its files by key."""

    def __init__(self, store: ChunkStore, collection: Collection, model: HashingModel) -> None:
        self.store = store
        self.collection = collection
        self.model = model

    async def append(self, key: str, *contents: str) -> int:
        """Appends a chunk for each content, a line each; returns the version's number."""
        chunks = [
            Chunk(text, place=Place(start=i * 100, end=i * 100 + 9, page=1, line=i + 1))
            for i, text in enumerate(contents)
        ]
        return (await self.collection.append(key, chunks)).number

    async def open_version(self, key: str) -> None:
        """Begins a version of the file and leaves it open."""
        async with self.store.database.transaction() as conn:
            state = await versions.lock(conn, self.collection.row.collection, key)
            await versions.open_version(conn, state.file, b"{}")

    async def drain(self) -> None:
        """Embeds and projects until nothing is left."""
        await EmbeddingConsumer(self.store, self.model).run(drain=True)
        await Projector(self.store, self.model.name).run(drain=True)

    async def numbers(self) -> dict[str, int]:
        """The number of every file by its key; `erased` is the one without a key."""
        async with self.store.database.transaction() as conn:
            found = await (await conn.execute("SELECT coalesce(key, 'erased'), file FROM files")).fetchall()
        return dict(found)


async def live(lived: Lived) -> None:
    """Takes a collection, which keeps two versions, through everything that can happen to a file."""
    collection = lived.collection
    long = [f"long {i}" for i in range(2100)]  # two segments at least
    await lived.append("long", *long)
    await lived.append("changed", "one", "two", "three")
    await lived.append("pinned", "first", "second")
    await collection.pin("pinned", 1)
    await lived.append("rolled_back", "before")
    await lived.append("deleted", "soon gone")
    await lived.append("erased", "secret")
    await lived.append("failed", "fine", f"open: {REFUSED}")
    await lived.append("discarded", "good", f"discarded: {REFUSED}")
    await lived.drain()
    for letter in await collection.dead_letters():
        if letter.key == "discarded":
            await collection.discard(letter.chunk_id)
    for round_ in range(3):
        await lived.append("changed", "one", f"two again {round_}", "three", "three")
        await lived.append("pinned", "first", f"other {round_}")
        await lived.drain()
    await lived.append("rolled_back", "after")
    await lived.drain()
    await collection.rollback("rolled_back", 1)
    await collection.delete("deleted")
    await lived.drain()
    await collection.erase("erased")
    await collect(lived.store)
    await lived.drain()


@pytest.fixture(scope="module")
async def lived(dsn: str) -> AsyncIterator[Lived]:
    """A drained store that has seen everything, with one file that waits on a dead letter."""
    schema = f"test_{uuid4().hex[:16]}"
    migrate.apply(Dsn(dsn), schema)
    try:
        async with await ChunkStore.open(dsn, schema=schema) as store:
            model = PickyModel(8)
            lived = Lived(store, await store.collection("docs", model=model, keep_last=2), model)
            other = await store.collection("other", model=model)
            await other.append("elsewhere", [Chunk("elsewhere")])
            await live(lived)
            yield lived
    finally:
        drop_schema(dsn, schema)
