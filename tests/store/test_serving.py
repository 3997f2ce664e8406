"""Several models of one collection, and which of them serves."""

import pytest

from chunkstore.collection import Collection
from chunkstore.errors import ModelIncomplete, UnknownModel
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from tests.faults.models import MODEL
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
