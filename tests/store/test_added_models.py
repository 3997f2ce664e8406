"""A model is added to a filled collection, and becomes the serving one, while versions come and go."""

from collections.abc import AsyncIterator

import anyio
import pytest

from chunkstore import catalog, rows
from chunkstore.collection import Collection
from chunkstore.errors import ModelIncomplete, UnknownModel
from chunkstore.model import Chunk
from chunkstore.models import open_model
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.store.fix_store import MODEL
from tests.store.rules.fix_interleave import World

OLD, NEW = "hashing-8", "hashing-16"
ADDED = "hashing:16"


async def append(collection: Collection, key: str, *contents: str) -> None:
    await collection.append(key, [Chunk(content) for content in contents])


async def drain(store: ChunkStore, *specs: str) -> None:
    """Embeds and projects for these models."""
    for spec in specs:
        model = open_model(spec)
        await EmbeddingConsumer(store, model).run(drain=True)
        await Projector(store, model.name).run(drain=True)


async def found(collection: Collection, model: str | None = None) -> list[tuple[str, int, str]]:
    """Key, version and content of everything that a search of the model sees."""
    dimensions = 16 if (model or collection.model_names[0]) == NEW else 8
    hits = await collection.search([1.0] * dimensions, k=100, model=model)
    return sorted((hit.key, hit.version, hit.content) for hit in hits)


async def value(store: ChunkStore, statement: str) -> object:
    async with store.database.transaction() as conn:
        return await rows.fetch_value(conn, statement.encode())


async def test_an_added_model_comes_to_see_what_the_first_sees(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "a", "one")
    await append(collection, "b", "two", "three")
    await append(collection, "gone", "four")
    await collection.delete("gone")
    await drain(store, MODEL)
    await collection.add_model(ADDED)
    assert collection.model_names == [OLD, NEW]
    assert await found(collection, NEW) == []
    await drain(store, ADDED)
    assert (
        await found(collection, NEW)
        == await found(collection, OLD)
        == [
            ("a", 1, "one"),
            ("b", 1, "three"),
            ("b", 1, "two"),
        ]
    )


async def test_a_model_whose_group_already_runs_is_back_filled_file_by_file(
    store: ChunkStore, collection: Collection
) -> None:
    other = await store.collection("other", model=ADDED)
    await append(other, "x", "elsewhere")
    await append(collection, "a", "one")
    await append(collection, "b", "two")
    await drain(store, MODEL, ADDED)
    await collection.add_model(ADDED)
    await drain(store, ADDED)
    assert await found(collection, NEW) == [("a", 1, "one"), ("b", 1, "two")]
    assert await found(other) == [("x", 1, "elsewhere")]


async def test_whoever_adds_a_model_waits_for_no_checkpoint_of_a_group_that_runs(
    store: ChunkStore, collection: Collection
) -> None:
    """Who holds the checkpoint may wait for a partition, and who adds a model has them all: a deadlock."""
    await store.collection("other", model=ADDED)
    async with store.database.transaction() as holder:
        await holder.execute("UPDATE progress SET position = position")
        with anyio.fail_after(10):
            await collection.add_model(ADDED)
        await holder.rollback()


async def test_without_the_back_fill_a_running_group_never_hears_of_the_files(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        return

    monkeypatch.setattr(catalog, "_backfill_file", nothing)
    await store.collection("other", model=ADDED)
    await append(collection, "a", "one")
    await drain(store, MODEL, ADDED)
    await collection.add_model(ADDED)
    await drain(store, ADDED)
    assert await found(collection, NEW) == []


async def test_a_back_fill_that_was_cut_off_is_finished_by_the_next_call(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.collection("other", model=ADDED)
    for i in range(5):
        await append(collection, f"file {i}", f"content {i}")
    await drain(store, MODEL, ADDED)
    fill = catalog._backfill_file
    filled: list[int] = []

    async def dying(conn: object, file: int, *rest: object) -> None:
        if len(filled) == 3:
            raise ZeroDivisionError
        filled.append(file)
        await fill(conn, file, *rest)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "_backfill_file", dying)
        with pytest.raises(ZeroDivisionError):
            await collection.add_model(ADDED)
    again = await store.collection("docs")
    with pytest.raises(ModelIncomplete):
        await again.serve(NEW)
    await again.add_model(ADDED)
    await drain(store, ADDED)
    assert len(await found(again, NEW)) == 5
    assert await value(store, "SELECT count(*) FROM events WHERE type = 'model_added'") == 1
    await again.serve(NEW)


async def test_a_model_serves_when_it_is_complete(store: ChunkStore, collection: Collection) -> None:
    await append(collection, "a", "one")
    await append(collection, "b", "two")
    await drain(store, MODEL)
    with pytest.raises(UnknownModel):
        await collection.serve(NEW)
    await collection.add_model(ADDED)
    with pytest.raises(ModelIncomplete, match="2 files"):
        await collection.serve(NEW)
    await drain(store, ADDED)
    await collection.serve(NEW)
    assert collection.model_names == [NEW, OLD]
    assert (await store.collection("docs")).model_names == [NEW, OLD]
    assert await found(collection) == [("a", 1, "one"), ("b", 1, "two")]


async def test_what_is_active_is_so_for_each_model(store: ChunkStore, collection: Collection) -> None:
    await append(collection, "a", "one")
    await collection.add_model(ADDED)
    await drain(store, MODEL, ADDED)
    await append(collection, "a", "two")
    await drain(store, MODEL)
    assert await found(collection, OLD) == [("a", 2, "two")]
    assert await found(collection, NEW) == [("a", 1, "one")]
    with pytest.raises(ModelIncomplete):
        await collection.serve(NEW)
    await drain(store, ADDED)
    assert await found(collection, NEW) == [("a", 2, "two")]


async def test_the_serving_model_is_switched_while_a_version_is_in_flight(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "a", "one")
    await collection.add_model(ADDED)
    await drain(store, MODEL, ADDED)
    await append(collection, "a", "two")
    await collection.serve(NEW)
    assert await found(collection) == [("a", 1, "one")]
    await drain(store, MODEL, ADDED)
    assert await found(collection) == [("a", 2, "two")]


async def test_a_model_that_is_ahead_of_the_serving_one_may_serve(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "a", "one")
    await collection.add_model(ADDED)
    await drain(store, MODEL, ADDED)
    await append(collection, "a", "two")
    await drain(store, ADDED)
    await collection.serve(NEW)
    assert await found(collection) == [("a", 2, "two")]


async def test_a_model_is_added_while_a_version_is_streamed(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 600)
    await store.collection("other", model=ADDED)
    await drain(store, MODEL, ADDED)

    async def adding() -> AsyncIterator[Chunk]:
        for i in range(3000):
            if i == 2000:
                await collection.add_model(ADDED)
                await drain(store, MODEL, ADDED)
            yield Chunk(f"content {i}")

    await collection.append("a", adding())
    await drain(store, MODEL, ADDED)
    for model in (OLD, NEW):
        table = next(m.active_table for m in collection._models if m.name == model)
        assert await value(store, f"SELECT count(*) FROM {table}") == 3000


async def test_two_callers_that_add_the_same_model_at_once_add_it_once(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "a", "one")
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon((await store.collection("docs")).add_model, ADDED)
    assert await value(store, "SELECT count(*) FROM events WHERE type = 'model_added'") == 1
    await drain(store, MODEL, ADDED)
    assert await found(await store.collection("docs"), NEW) == [("a", 1, "one")]


async def test_two_callers_that_create_one_collection_at_once_get_the_same(store: ChunkStore) -> None:
    made: list[int] = []

    async def create() -> None:
        made.append((await store.collection("new", model=MODEL)).row.collection)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(create)
    assert len(set(made)) == 1


async def test_a_model_is_added_while_a_version_switches(world: World) -> None:
    """The switch holds its file and partition when the adder comes for all partitions."""
    await world.append("doc", "one")
    await world.drain()
    projector = await world.begun()
    assert await world.activate("doc", session=projector) == {"doc": "active"}
    adding = await world.waits(world.collection.add_model(ADDED), on=projector)
    await projector.commit()
    await adding
    await drain(world.store, ADDED)
    assert await found(world.collection, OLD) == await found(world.collection, NEW) == [("doc", 1, "one")]


async def test_a_collection_opened_before_another_model_served_searches_it(store: ChunkStore) -> None:
    early = await store.collection("docs", model="hashing:8")
    version = await early.append("a", [Chunk("one two")])
    await drain(store, "hashing:8")
    late = await store.collection("docs")
    await late.add_model("hashing:16")
    await drain(store, "hashing:16")
    await late.serve("hashing-16")
    await store.hints.close()
    assert [hit.key for hit in await early.search("one two", k=1)] == ["a"]
    assert early.model_names[0] == "hashing-16"
    await early.wait_until_active(version, timeout=1)
