"""A store and the models of folders: a folder replaced by another model, queries by another back end."""

from pathlib import Path

import numpy as np
import pytest

from chunkstore import Chunk, ChunkStore
from chunkstore.errors import ModelMismatch
from chunkstore.models import open_model
from chunkstore.models.encoder import EncoderModel
from chunkstore.models.sentence_transformers import open_with_torch
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.store.fix_store import store
from tests.unit.models.fix_folders import save

__all__ = ["store"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one name: of 32 dimensions with a prompt for queries, and of 8."""
    root = tmp_path_factory.mktemp("models")
    first = save(root / "a" / "papers", prompts={"query": "query : "})
    return first, save(root / "b" / "papers", dense=True)


@pytest.fixture
async def filled(store: ChunkStore, folders: tuple[Path, Path]) -> ChunkStore:
    """A collection whose chunks sentence-transformers embedded."""
    model = open_with_torch(folders[0], "papers", device="cpu")
    docs = await store.collection("docs", model=model)
    version = await docs.append(
        "a", [Chunk("query : a cat sleeps"), Chunk("old ships leave"), Chunk("mice .")]
    )
    await EmbeddingConsumer(store, model).run(drain=True)
    await Projector(store, model.name).run(drain=True)
    await docs.wait_until_active(version)
    return store


async def test_a_folder_replaced_by_a_model_of_other_dimensions_is_refused(
    filled: ChunkStore, folders: tuple[Path, Path]
) -> None:
    with pytest.raises(ModelMismatch, match=r"papers.*32.*8|papers.*8.*32"):
        await filled.collection("docs", model=f"sentence-transformers:{folders[1]}")
    with pytest.raises(ModelMismatch, match="papers"):
        await EmbeddingConsumer(filled, open_model(f"sentence-transformers:{folders[1]}")).run(drain=True)


async def test_queries_may_come_from_the_other_back_end(
    filled: ChunkStore, folders: tuple[Path, Path]
) -> None:
    docs = await filled.collection("docs", model=f"sentence-transformers:{folders[0]}")
    (hit,) = await docs.search("a cat sleeps", k=1)
    # The model's prompt for queries makes the query the very text of the chunk.
    assert (hit.content, round(hit.score, 3)) == ("query : a cat sleeps", 1.0)
    opened = open_model(f"sentence-transformers:{folders[0]}", device="cpu")
    assert isinstance(opened, EncoderModel)
    again = await docs.search(opened.embed_query("a cat sleeps"), k=3)
    assert again[0].content == hit.content
    assert np.all(np.diff([one.score for one in again]) <= 0)
