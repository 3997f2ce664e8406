"""Hints: given after the commit that they tell of, two at once and then no more than ten a second."""

import anyio.lowlevel
import psycopg
import pytest

from chunkstore import hints
from chunkstore.collection import Collection
from chunkstore.hints import QUIET_SECONDS, Hints
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from tests.faults.models import MODEL
from tests.store.fix_store import store

__all__ = ["store"]


@pytest.fixture
async def docs(store: ChunkStore) -> Collection:
    return await store.collection("docs", model=MODEL)


async def test_a_hint_of_vectors_comes_after_their_commit(
    store: ChunkStore, docs: Collection, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await docs.append("a", [Chunk("one"), Chunk("two")])
    seen: list[int] = []

    def look(_: Hints) -> None:
        with psycopg.connect(dsn) as other:
            row = other.execute(f'SELECT count(*) FROM "{schema}".embeddings').fetchone()
        assert row is not None
        seen.append(row[0])

    monkeypatch.setattr(Hints, "give", look)
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert seen == [2]


async def test_two_hints_go_at_once_and_the_next_when_two_tenths_are_over(
    store: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = 100.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(hints, "monotonic", lambda: now)
    monkeypatch.setattr(hints.asyncio, "sleep", sleep)
    for _ in range(5):
        store.hints.give()
        await store.hints.close()
    assert slept == pytest.approx([0, 0, 2 * QUIET_SECONDS, 0, 2 * QUIET_SECONDS])
