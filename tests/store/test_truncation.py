"""What a model would cut is never cut in silence: chunks are sized in its tokens, and consumers count."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest

from chunkstore import Chunk, ChunkStore
from chunkstore.chunks import model_text
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.pipeline import ingest
from chunkstore.ingest.sizing import chunker_for
from chunkstore.models import open_model
from chunkstore.models.counting import TokenCounter, token_counter
from chunkstore.models.encoder import EncoderModel
from chunkstore.models.hashing import HashingModel
from consumers.embedding import EmbeddingConsumer
from tests.store.fix_store import store

__all__ = ["store"]

pytestmark = pytest.mark.anyio
DENSE = "\n\n".join(f"# Part {i}\n\n" + "qzxjvkqw " * 240 for i in range(4))
"""Text of which tokens are short: an estimate by letters finds too few of them."""


class ThreeWords(HashingModel):
    """Reads three words of a text."""

    max_tokens = 3

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


async def test_a_consumer_counts_the_chunks_of_which_the_model_read_the_beginning(store: ChunkStore) -> None:
    model = ThreeWords(8)
    docs = await store.collection("docs", model=model)
    await docs.append("a", [Chunk("one two three"), Chunk("one two three four"), Chunk("1 2 3 4 5")])
    report = await EmbeddingConsumer(store, model).run(drain=True)
    assert (report.embedded, report.truncated) == (3, 2)
    await docs.append("b", [Chunk("1 2 3 4 5"), Chunk("short")])
    again = await EmbeddingConsumer(store, model).run(drain=True)
    assert (again.embedded, again.copied, again.truncated) == (1, 1, 0)


async def test_of_a_model_that_does_not_count_nothing_is_said_to_be_cut(store: ChunkStore) -> None:
    docs = await store.collection("docs", model="hashing:8")
    await docs.append("a", [Chunk("word " * 5_000)])
    report = await EmbeddingConsumer(store, HashingModel(8)).run(drain=True)
    assert (report.embedded, report.truncated) == (1, 0)


async def test_no_chunk_of_an_ingested_file_is_longer_than_the_model_reads(
    store: ChunkStore, tmp_path: Path
) -> None:
    (tmp_path / "dense.md").write_text(DENSE)
    await store.collection("docs", model="minilm")
    docs = await store.collection("docs")
    report = await ingest(docs, [tmp_path])
    assert report.added == 1, report.failed
    (key,) = [key async for key in docs.keys()]  # noqa: SIM118
    counter = token_counter("minilm")
    assert isinstance(counter, TokenCounter)
    texts = [model_text(c.content, c.metadata.get("headings")) async for c in docs.chunks(key)]
    counts = counter.count_tokens(texts)
    assert max(counts) <= counter.max_tokens == 256
    assert max(counts) > 200  # and none is much smaller than it may be


async def test_a_model_and_its_spec_and_its_name_size_chunks_alike(store: ChunkStore) -> None:
    model = open_model("minilm", device="cpu")
    assert isinstance(model, EncoderModel)
    by_model = chunker_for(await store.collection("docs", model=model))
    by_spec = chunker_for(await store.collection("docs", model="minilm"))
    by_name = chunker_for(await store.collection("docs"))
    assert by_model.fingerprint == by_spec.fingerprint == by_name.fingerprint
    assert pickle.loads(pickle.dumps(by_model)).fingerprint == by_name.fingerprint  # workers can cut by it
    assert "size 240, tokens of all-MiniLM-L6-v2" in by_name.fingerprint


async def test_a_model_that_reads_little_makes_chunks_small_and_one_that_reads_much_does_not(
    store: ChunkStore,
) -> None:
    class Little(ThreeWords):
        max_tokens = 50

    class Much(ThreeWords):
        max_tokens = 8_000

    little = await store.collection("little", model=Little(8))
    much = await store.collection("much", model=Much(16))
    uncounted = await store.collection("uncounted", model="hashing:32")
    assert chunker_for(little).size == 50
    assert chunker_for(little).measure("one two") == 2
    assert chunker_for(much).fingerprint == chunker_for(uncounted).fingerprint == Chunker().fingerprint


async def test_a_collection_whose_model_nobody_knows_is_sized_by_an_estimate(store: ChunkStore) -> None:
    class Own(ThreeWords):
        name = "own"  # type: ignore[misc]

        def __init__(self) -> None:
            self.dimensions = 8  # type: ignore[misc]

    await store.collection("docs", model=Own())
    assert (await store.collection("docs")).opener() is None
    assert chunker_for(await store.collection("docs")).fingerprint == Chunker().fingerprint
