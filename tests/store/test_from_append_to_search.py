"""From append to search, end to end: one file's life, and long files."""

from collections.abc import AsyncIterator

import pytest

from chunkstore.collection import Collection
from chunkstore.model import Chunk, Place
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.faults.asking import value
from tests.faults.models import MODEL, Counting
from tests.store.fix_pipeline import append, docs, drain, found
from tests.store.fix_store import store

__all__ = ["docs", "store"]


# --- one file's life ------------------------------------------------------------------------------


async def test_a_hit_says_enough_to_cite_what_was_read(store: ChunkStore, docs: Collection) -> None:
    await docs.append(
        "a.md",
        [
            Chunk("the first", place=Place(start=0, end=9, page=1, line=1)),
            Chunk("quite another thing", {"headings": ["H"]}, Place(start=11, end=30, page=2, line=7)),
        ],
    )
    await drain(store)
    hit = (await docs.search("H quite another thing", k=1))[0]
    assert (hit.key, hit.version, hit.ordinal, hit.place) == ("a.md", 1, 1, Place(11, 30, 2, 7))
    assert (hit.content, hit.metadata) == ("quite another thing", {"headings": ["H"]})
    assert hit.score > 0.8


async def test_an_insertion_moves_every_later_place_and_embeds_one_chunk(
    store: ChunkStore, docs: Collection
) -> None:
    def placed(texts: list[str]) -> list[Chunk]:
        return [
            Chunk(text, place=Place(start=i * 100, end=i * 100 + 90, line=i + 1))
            for i, text in enumerate(texts)
        ]

    texts = [f"paragraph number {number}" for number in range(50)]
    await docs.append("a", placed(texts))
    await drain(store)
    await docs.append("a", placed(["a new beginning", *texts]))
    assert await drain(store) == 1
    hit = (await docs.search("paragraph number 49", k=1))[0]
    assert (hit.version, hit.ordinal, hit.place) == (2, 50, Place(start=5000, end=5090, line=51))


async def test_an_append_is_not_searchable_before_it_is_complete(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "text one")
    await drain(store)
    await append(docs, "a", "text two", "text three")
    await Projector(store, MODEL.name).run(drain=True)
    assert await found(docs) == [("a", 1, 0, "text one")]
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert await found(docs) == [("a", 1, 0, "text one")]
    await Projector(store, MODEL.name).run(drain=True)
    assert await found(docs) == [("a", 2, 0, "text two"), ("a", 2, 1, "text three")]


async def test_a_tombstone_takes_the_file_out_of_searches_and_an_append_brings_it_back(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "text one")
    await append(docs, "b", "text two")
    await drain(store)
    tombstone = await docs.delete("a")
    await drain(store)
    await docs.wait_until_active(tombstone, timeout=5)
    assert await found(docs) == [("b", 1, 0, "text two")]
    await append(docs, "a", "text one")
    assert await drain(store) == 0
    assert await found(docs) == [("a", 3, 0, "text one"), ("b", 1, 0, "text two")]


async def test_an_empty_version_becomes_active(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "text one")
    await drain(store)
    empty = await append(docs, "a")
    await drain(store)
    await docs.wait_until_active(empty, timeout=5)
    assert await found(docs) == []


async def test_a_rollback_makes_the_old_version_active_until_the_next_append(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "text one", "text kept")
    await drain(store)
    await append(docs, "a", "text two", "text kept")
    await drain(store)
    rolled_back = await docs.rollback("a", 1)
    assert await drain(store) == 0
    await docs.wait_until_active(rolled_back, timeout=5)
    assert await found(docs) == [("a", 1, 0, "text one"), ("a", 1, 1, "text kept")]
    third = await append(docs, "a", "text two", "text kept")
    assert (third.number, third.unchanged, third.replaced_rollback_to) == (3, False, 1)
    assert await drain(store) == 0
    assert await found(docs) == [("a", 3, 0, "text two"), ("a", 3, 1, "text kept")]


async def test_a_rollback_of_a_long_file_stages_what_was_cleared_away(
    store: ChunkStore, docs: Collection
) -> None:
    first = [f"text {number}" for number in range(2500)]
    await append(docs, "a", *first)
    await drain(store)
    await append(docs, "a", "text of another time")
    await drain(store)
    (table,) = [model.search_table for model in docs._models]
    assert await value(store, f'SELECT count(*) FROM "{table}"') == 1
    await docs.rollback("a", 1)
    assert await drain(store) == 0
    assert [content for _, _, _, content in sorted(await found(docs, 5000), key=lambda hit: hit[2])] == first


async def test_a_commit_that_comes_late_is_superseded_at_birth(
    store: ChunkStore, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 4)

    async def slowly() -> AsyncIterator[Chunk]:
        for number in range(12):
            if number == 9:
                await append(docs, "a", "text of the quick one")
                await drain(store)
            yield Chunk(f"text {number}")

    late = await docs.append("a", slowly())
    assert (late.number, late.target) == (1, False)
    await drain(store)
    assert await found(docs) == [("a", 2, 0, "text of the quick one")]


async def test_duplicate_chunks_are_found_at_their_first_place(store: ChunkStore, docs: Collection) -> None:
    version = await append(docs, "a", "text other", "text twice", "text twice")
    await drain(store)
    assert version.chunks == 3
    assert await found(docs) == [("a", 1, 0, "text other"), ("a", 1, 1, "text twice")]
    assert [chunk.content async for chunk in docs.chunks("a")] == ["text other", "text twice", "text twice"]


# --- long files -----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_a_file_of_20000_chunks_is_streamed_embedded_switched_and_edited(
    store: ChunkStore, docs: Collection
) -> None:
    def long(changed: str) -> list[Chunk]:
        return [Chunk(changed if number == 12345 else f"text number {number}") for number in range(20_000)]

    async def streamed(chunks: list[Chunk]) -> AsyncIterator[Chunk]:
        for chunk in chunks:
            yield chunk

    version = await docs.append("long", streamed(long("text as it was")))
    assert (version.chunks, version.added) == (20_000, 20_000)
    assert await drain(store) == 20_000
    await docs.wait_until_active(version, timeout=1)
    await drop_index(docs)
    assert (await docs.search("text as it was", k=1))[0].ordinal == 12345

    edited = await docs.append("long", streamed(long("an edited one")))
    assert (edited.number, edited.chunks, edited.reused, edited.added) == (2, 20_000, 19_999, 1)
    model = Counting()
    await drain(store, model)
    assert model.texts == ["an edited one"]
    await drop_index(docs)
    hit = (await docs.search("an edited one", k=1))[0]
    assert (hit.version, hit.ordinal, hit.content) == (2, 12345, "an edited one")
    (active,) = [model.active_table for model in docs._models]
    assert await value(store, f'SELECT count(*) FROM "{active}"') == 20_000


async def drop_index(docs: Collection) -> None:
    """Makes searches exact: an index may miss a vector that is far from all others."""
    async with docs.store.database.connection() as conn:
        await conn.execute(f"DROP INDEX IF EXISTS {docs._models[0].search_table}_hnsw".encode())
