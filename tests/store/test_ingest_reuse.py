"""What the model is not asked twice: renamed files and identical ones keep what was embedded."""

import shutil
from pathlib import Path

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.ingest.pipeline import ingest
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.store.fix_models import CountingModel
from tests.store.fix_store import store

__all__ = ["store"]


@pytest.fixture
def model() -> CountingModel:
    """A model that counts how often it was given each text."""
    return CountingModel()


@pytest.fixture
async def collection(store: ChunkStore, model: CountingModel) -> Collection:
    """A collection of that model."""
    return await store.collection("docs", model=model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of several chunks."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "one.md").write_text("\n\n".join(f"# Part {i}\n\nWhat part {i} says." for i in range(40)))
    return folder


async def make_active(store: ChunkStore, model: CountingModel, consumers: int = 1) -> None:
    async def consume() -> None:
        await EmbeddingConsumer(store, model, batch=8).run(drain=True)

    async with anyio.create_task_group() as tasks:
        for _ in range(consumers):
            tasks.start_soon(consume)
    await Projector(store, model.name).run(drain=True)


def asked_once(model: CountingModel, texts: int) -> None:
    assert model.texts.most_common(1)[0][1] == 1
    assert model.texts.total() == texts


async def test_a_renamed_file_keeps_its_embeddings(
    store: ChunkStore, collection: Collection, model: CountingModel, folder: Path
) -> None:
    await ingest(collection, [folder])
    await make_active(store, model)
    asked_once(model, 40)
    (folder / "one.md").rename(folder / "two.md")
    report = await ingest(collection, [folder], prune=True)
    assert (report.added, report.deleted) == (1, 1)
    await make_active(store, model)
    asked_once(model, 40)
    hits = await collection.search("What part 7 says.", k=40)
    assert {hit.key for hit in hits} == {"f/two.md"}
    assert len(hits) == 40


async def test_identical_files_are_embedded_once(
    store: ChunkStore, collection: Collection, model: CountingModel, folder: Path
) -> None:
    await ingest(collection, [folder])
    await make_active(store, model)
    shutil.copy(folder / "one.md", folder / "two.md")
    await ingest(collection, [folder])
    await make_active(store, model)
    asked_once(model, 40)
    assert len(await collection.search("What part 7 says.", k=80)) == 80
