"""What the model is not asked twice: renamed files and identical ones keep what was embedded."""

import shutil
from functools import partial
from pathlib import Path

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.ingest.pipeline import ingest
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from projections.verify import verify
from tests.store.fix_models import CountingModel, FailingModel
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


@pytest.mark.parametrize("consumers", [1, 2])
async def test_identical_files_that_come_together_are_embedded_once(
    store: ChunkStore, collection: Collection, model: CountingModel, folder: Path, consumers: int
) -> None:
    for name in ("two", "three", "four", "five"):
        shutil.copy(folder / "one.md", folder / f"{name}.md")
    await ingest(collection, [folder])
    await make_active(store, model, consumers)
    asked_once(model, 40)
    assert len(await collection.search("What part 7 says.", k=200)) == 200
    assert (await verify(store)).ok


async def test_texts_that_come_while_the_same_texts_are_embedded_wait_for_them(
    store: ChunkStore, collection: Collection, model: CountingModel, folder: Path
) -> None:
    await ingest(collection, [folder])
    shutil.copy(folder / "one.md", folder / "two.md")
    entered, go_on = model.hold_next()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make_active, store, model, 2)
        await anyio.to_thread.run_sync(entered.wait, 30)
        await ingest(collection, [folder])
        await anyio.sleep(0.5)  # both consumers have looked at the second file's ranges by now
        go_on.set()
    await make_active(store, model)
    asked_once(model, 40)
    assert (await verify(store)).ok


async def test_a_text_whose_first_embedding_fails_is_embedded_for_the_other_file(
    store: ChunkStore, folder: Path
) -> None:
    model = FailingModel()
    collection = await store.collection("failing", model=model)
    (folder / "one.md").write_text("# One\n\nA text.\n\n# Two\n\nAnother text.\n")
    shutil.copy(folder / "one.md", folder / "two.md")
    await ingest(collection, [folder])
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(partial(EmbeddingConsumer(store, model, batch=8).run, drain=True))
    assert len(await collection.dead_letters()) == 4, "each chunk has its own"
    model.fails = False
    await ingest(collection, [folder])
    await EmbeddingConsumer(store, model).run(drain=True)
    assert await collection.dead_letters() == []
