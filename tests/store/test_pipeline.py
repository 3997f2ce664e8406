"""From append to search, end to end: what a search sees at every instant, and how waiting for it ends."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from psycopg.conninfo import make_conninfo

from chunkstore.collection import Collection
from chunkstore.errors import ModelIncomplete, NeverActive, UnknownModel, WaitTimeout
from chunkstore.model import Chunk, Place, Version
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.collector import collect
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import value
from tests.faults.models import BAD, MODEL, Counting, Tripping
from tests.faults.stamped import KEYS, broken, chunks_of
from tests.store.fix_store import store

__all__ = ["store"]

(QUERY,) = MODEL.embed(["file chunk upload"])
OTHER = HashingModel(16)


@pytest.fixture
async def docs(store: ChunkStore) -> Collection:
    return await store.collection("docs", model=MODEL)


async def append(collection: Collection, key: str, *contents: str) -> Version:
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
    monkeypatch.setattr("chunkstore.append.BATCH_CHUNKS", 4)

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


# --- at every instant -----------------------------------------------------------------------------


async def test_a_search_sees_every_file_at_exactly_one_version_at_every_instant(
    store: ChunkStore, docs: Collection
) -> None:
    keys = KEYS[:6]
    for key in keys:
        await docs.append(key, chunks_of(key, "first"))
    await drain(store)
    stop, faults, versions = anyio.Event(), list[str](), set[tuple[str, int]]()

    async def read() -> None:
        while not stop.is_set():
            hits = await docs.search(QUERY, k=1000)
            faults.extend(broken(hits, keys))
            versions.update((hit.key, hit.version) for hit in hits)

    async def write() -> None:
        for upload in range(12):
            for key in keys:
                await docs.append(key, chunks_of(key, f"{upload}", 25 + upload % 10))
                if upload % 4 == 3:
                    await docs.rollback(key, max(1, upload - 1))
            await collect(store)
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, MODEL, batch=40).run(stop=stop))
        tasks.start_soon(lambda: Projector(store, MODEL.name).run(stop=stop))
        tasks.start_soon(read)
        tasks.start_soon(write)
    assert faults == []
    assert len(versions) > 2 * len(keys), "the reader hardly saw a switch"
    await drain(store)
    report = await verify(store)
    assert report.broken == []


# --- waiting --------------------------------------------------------------------------------------


async def test_waiting_returns_when_the_version_or_a_later_one_is_active(
    store: ChunkStore, docs: Collection
) -> None:
    first = await append(docs, "a", "text one")
    second = await append(docs, "a", "text two")
    await drain(store)
    await docs.wait_until_active(first, timeout=0.1)
    await docs.wait_until_active(second, timeout=0.1)


async def test_waiting_lasts_until_the_switch(store: ChunkStore, docs: Collection) -> None:
    version = await append(docs, "a", "text one")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: docs.wait_until_active(version, timeout=30))
        tasks.start_soon(drain, store)
    assert (await docs.history("a"))[0].active


async def test_waiting_without_a_consumer_ends_in_time_and_says_what_may_be_missing(docs: Collection) -> None:
    version = await append(docs, "a", "text one")
    with pytest.raises(WaitTimeout, match="is a consumer and a projector running"):
        await docs.wait_until_active(version, timeout=0.05)


async def collected(store: ChunkStore, docs: Collection, version: Version) -> None:
    for number in range(4):
        await append(docs, "a", f"text of version {number}")
    await collect(store)


async def erased(store: ChunkStore, docs: Collection, version: Version) -> None:
    await docs.erase("a")


async def rolled_back(store: ChunkStore, docs: Collection, version: Version) -> None:
    await docs.rollback("a", 1)


async def given_up(store: ChunkStore, docs: Collection, version: Version) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no")

    await EmbeddingConsumer(store, Tripping(fail)).run(drain=True)


@pytest.mark.parametrize(
    ("happens", "reason"),
    [(collected, "collected"), (erased, "erased"), (rolled_back, "target"), (given_up, "dead letter")],
)
async def test_waiting_for_what_can_not_become_active_is_an_error_at_once(
    store: ChunkStore, docs: Collection, happens: Callable[..., Any], reason: str
) -> None:
    await append(docs, "a", "text")
    version = await append(docs, "a", "text", BAD)
    with pytest.RaisesGroup(pytest.RaisesExc(NeverActive, match=reason)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: docs.wait_until_active(version, timeout=30))
            await happens(store, docs, version)


async def test_waiting_after_a_rollback_waits_for_the_old_version_and_not_the_later_one_that_is_still_active(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "text one")
    await append(docs, "a", "text two")
    await drain(store)
    first = await docs.rollback("a", 1)
    with pytest.raises(WaitTimeout):
        await docs.wait_until_active(first, timeout=0.05)
    await drain(store)
    await docs.wait_until_active(first, timeout=0.05)


# --- models ---------------------------------------------------------------------------------------


async def test_a_model_is_added_filled_and_served(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "text one", "text two")
    await drain(store)
    await docs.add_model(OTHER)
    assert docs.model_names == [MODEL.name, OTHER.name]
    with pytest.raises(ModelIncomplete, match="1 files wait"):
        await docs.serve(OTHER.name)
    assert await drain(store) == 0
    assert await drain(store, OTHER) == 2
    await docs.serve(OTHER.name)
    assert docs.model_names == [OTHER.name, MODEL.name]
    hits = await docs.search(OTHER.embed(["text two"])[0], k=1)
    assert [hit.content for hit in hits] == ["text two"]
    old = await docs.search(QUERY, k=10, model=MODEL.name)
    assert len(old) == 2


async def test_both_models_follow_what_is_appended_after_the_second_came(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "text one")
    await docs.add_model(OTHER)
    await append(docs, "a", "text two")
    await append(docs, "b", "text three")
    assert (await drain(store), await drain(store, OTHER)) == (2, 2)
    await docs.serve(OTHER.name)
    hits = await docs.search(OTHER.embed(["text"])[0], k=10)
    assert sorted(hit.content for hit in hits) == ["text three", "text two"]


async def test_a_model_that_was_not_added_cannot_serve(docs: Collection) -> None:
    with pytest.raises(UnknownModel, match="add it first"):
        await docs.serve(OTHER.name)


# --- indexes --------------------------------------------------------------------------------------


async def test_a_search_is_exact_until_the_first_load_is_over_and_the_index_is_built(
    store: ChunkStore, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 1500)
    for number in range(4):
        await append(docs, f"{number}", *(f"text {number} {chunk}" for chunk in range(500)))
    assert (await docs.search(QUERY)).exact
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    # More came in while the first part was embedded: the load goes on, and there is no index yet.
    for number in range(4, 6):
        await append(docs, f"{number}", *(f"text {number} {chunk}" for chunk in range(500)))
    report = await Projector(store, MODEL.name).run(drain=True)
    assert report.indexes_built == 0
    assert (await docs.search(QUERY)).exact
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    report = await Projector(store, MODEL.name).run(drain=True)
    assert report.indexes_built == 1
    hits = await docs.search(MODEL.embed(["text 3 77"])[0], k=5)
    assert not hits.exact
    assert hits[0].content == "text 3 77"


async def test_a_small_collection_gets_no_index(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", *(f"text {number}" for number in range(50)))
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert (await Projector(store, MODEL.name).run(drain=True)).indexes_built == 0
    assert (await docs.search(QUERY)).exact


async def test_an_index_finds_as_many_hits_as_there_are_however_many_rows_lie_superseded(
    store: ChunkStore, docs: Collection, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 300)
    for key in ("a", "b"):
        await append(docs, key, *(f"text {key} {number}" for number in range(400)))
    await drain(store)
    # A whole new version is embedded and staged, but not switched to.
    await append(docs, "a", *(f"text of the next version {number}" for number in range(400)))
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    # So few rows would be read one by one.
    by_index = make_conninfo(dsn, options="-c enable_seqscan=off")
    async with await ChunkStore.open(by_index, schema=schema) as other:
        reader = await other.collection("docs")
        hits = await reader.search(MODEL.embed(["text of the next version"])[0], k=100)
    assert not hits.exact
    assert len(hits) == 100
    assert {hit.version for hit in hits} == {1}


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
