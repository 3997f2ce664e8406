"""Several models of one collection, and which of them serves."""

import threading

import anyio
import anyio.to_thread
import pytest

from chunkstore import catalog
from chunkstore.collection import Collection
from chunkstore.errors import ModelIncomplete, UnknownModel
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from tests.faults.models import MODEL
from tests.fix_endpoint import DIMENSIONS, Endpoint, Reply, Request, good
from tests.store.fix_pipeline import QUERY, append, docs, drain
from tests.store.fix_store import store

__all__ = ["docs", "store"]

OTHER = HashingModel(16)


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


class Unopenable(HashingModel):
    """A model that its name alone does not open."""

    name = "my-own"


async def test_a_search_by_another_model_does_not_forget_the_one_that_was_given(store: ChunkStore) -> None:
    own = Unopenable(8)
    docs = await store.collection("own", model=own)
    await docs.add_model(OTHER)
    assert await docs.search("text", model=OTHER.name) == []
    assert await docs.search("text") == []
    assert docs.opener() is own


async def test_opening_a_model_leaves_the_loop_to_others(store: ChunkStore, endpoint: Endpoint) -> None:
    came, asked = threading.Event(), threading.Event()

    def when_the_loop_runs(request: Request) -> Reply:
        came.set()
        assert asked.wait(20), "the loop stood still"
        return good(request)

    endpoint.always = when_the_loop_runs
    async with anyio.create_task_group() as tasks:
        spec = f"openai:tiny,url={endpoint.url},patience=1"
        tasks.start_soon(store.collection, "elsewhere", spec)
        assert await anyio.to_thread.run_sync(came.wait, 20)
        asked.set()
    assert (await store.collection("elsewhere"))._serving.dimensions == DIMENSIONS


async def test_a_model_whose_back_fill_was_cut_off_says_how_to_go_on(
    docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: object) -> None:
        raise ZeroDivisionError

    await append(docs, "a", "text one")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(catalog, "_backfill", killed)
        await docs.add_model(OTHER)
    with pytest.raises(ModelIncomplete, match="add the model again"):
        await docs.serve(OTHER.name)
