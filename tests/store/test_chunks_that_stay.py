"""An edited document in a real store: what the model is given again, and where a hit says that it stands."""

from itertools import pairwise
from pathlib import Path

import pytest

from chunkstore.chunks import model_text
from chunkstore.collection import Collection
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document
from chunkstore.model import Chunk, Place
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.store.fix_models import CountingModel
from tests.store.fix_store import store

__all__ = ["store"]

TEXTS = Path(__file__).parents[2] / "examples" / "texts"
NEWS = "Nobody had expected the inspector to arrive eleven minutes early that day."


@pytest.fixture
def model() -> CountingModel:
    """A model that counts how often it was given each text."""
    return CountingModel()


@pytest.fixture
async def collection(store: ChunkStore, model: CountingModel) -> Collection:
    """A collection of that model."""
    return await store.collection("docs", model=model)


def given(model: CountingModel) -> set[str]:
    """The texts that the model was given until now."""
    return set(model.texts)


async def bring_in(
    store: ChunkStore, collection: Collection, model: CountingModel, document: Document
) -> list[Chunk]:
    """The document as the next version of one file, embedded and active; its chunks."""
    chunks = list(Chunker()(document))
    await collection.append("file", chunks)
    await EmbeddingConsumer(store, model).run(drain=True)
    await Projector(store, model.name).run(drain=True)
    return chunks


async def stored_places(collection: Collection) -> list[tuple[str, Place | None]]:
    return [(chunk.content, chunk.place) async for chunk in collection.chunks("file")]


@pytest.mark.parametrize(
    "name", ["sqlite-write-ahead-log.md", "hamlet.txt", "python-sorting.rst", "zlib-gzjoin.c"]
)
async def test_after_an_insertion_at_the_front_all_spans_are_right_and_only_changed_chunks_are_embedded(
    store: ChunkStore, collection: Collection, model: CountingModel, name: str
) -> None:
    text = (TEXTS / name).read_text()[:40_000]
    kind = {"md": "markdown", "c": "code"}.get(name.rpartition(".")[2], "text")
    old = Document(text, kind)  # pyright: ignore[reportArgumentType]
    new = Document(f"{NEWS}\n\n{text}", kind)  # pyright: ignore[reportArgumentType]
    before = {model_text(chunk.content, chunk.metadata.get("headings")) for chunk in Chunker()(old)}
    await bring_in(store, collection, model, old)
    assert given(model) == before

    chunks = await bring_in(store, collection, model, new)
    after = {model_text(chunk.content, chunk.metadata.get("headings")) for chunk in chunks}
    assert given(model) - before == after - before
    assert 1 <= len(after - before) <= 2
    assert max(model.texts.values()) == 1
    places = await stored_places(collection)
    assert len(places) == len(chunks)
    for content, place in places:
        assert place is not None
        assert new.text[place.start : place.end] == content
        assert place.line == new.text[: place.start].count("\n") + 1


async def test_the_span_and_page_of_a_hit_are_those_of_the_active_version(
    store: ChunkStore, collection: Collection, model: CountingModel
) -> None:
    pages = [f"{word.capitalize()} is on page {i}. " * 40 for i, word in enumerate(("ape", "bee", "cow"), 1)]
    text = "\f\n".join(pages)
    starts = tuple(sum(len(page) + 2 for page in pages[:i]) for i in range(3))
    await bring_in(store, collection, model, Document(text, "text", pages=starts))
    moved = f"{NEWS}\n\f\n"
    new = Document(moved + text, "text", pages=(0, *(start + len(moved) for start in starts)))
    await bring_in(store, collection, model, new)
    hits = await collection.search("Cow is on page 3.", k=5)
    assert hits
    for hit in hits:
        assert hit.place is not None
        assert new.text[hit.place.start : hit.place.end] == hit.content
        assert hit.place.page == sum(start <= (hit.place.start or 0) for start in new.pages)


async def test_a_moved_section_keeps_its_embeddings(
    store: ChunkStore, collection: Collection, model: CountingModel
) -> None:
    parts = [
        f"## Part {i}\n\n" + " ".join(f"Part {i} says {i * j} of it." for j in range(90)) for i in range(8)
    ]
    await bring_in(store, collection, model, Document("# Top\n\n" + "\n\n".join(parts), "markdown"))
    before = given(model)
    moved = [*parts[:2], parts[6], *parts[2:6], parts[7]]
    assert sum(a != b for a, b in zip(parts, moved, strict=True)) > 4
    chunks = await bring_in(store, collection, model, Document("# Top\n\n" + "\n\n".join(moved), "markdown"))
    assert given(model) == before
    starts = [chunk.place.start for chunk in chunks if chunk.place and chunk.place.start is not None]
    assert all(a < b for a, b in pairwise(starts))
