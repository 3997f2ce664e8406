"""Fixtures that give an open store on a fresh schema, and a collection in it."""

from collections.abc import AsyncIterator

import pytest

from chunkstore.collection import Collection
from chunkstore.store import ChunkStore
from tests.fix_server import free_name

MODEL = "hashing:8"


@pytest.fixture
async def store(dsn: str, schema: str) -> AsyncIterator[ChunkStore]:
    """An open store on a fresh migrated schema."""
    async with await ChunkStore.open(dsn, schema=schema) as opened:
        yield opened


@pytest.fixture(scope="module")
async def shared_store(dsn: str) -> AsyncIterator[ChunkStore]:
    """The same for all tests of a module: what one of them breaks, the next would see."""
    with free_name(dsn) as schema:
        async with await ChunkStore.open(dsn, schema=schema, migrate=True) as opened:
            yield opened


@pytest.fixture
async def collection(store: ChunkStore) -> Collection:
    """A collection of a model that costs nothing."""
    return await store.collection("docs", model=MODEL)
