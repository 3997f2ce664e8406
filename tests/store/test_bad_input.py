"""Bad input: a clear error that names the field, the value and what is allowed, and nothing written."""

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from chunkstore import settings
from chunkstore.collection import Collection
from chunkstore.errors import (
    IdempotencyKeyReused,
    InvalidInput,
    ModelMismatch,
    StaleVersion,
    UnknownCollection,
    UnknownModel,
)
from chunkstore.model import Chunk, Metadata, Place
from chunkstore.models import open_model
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from tests.store.fix_store import MODEL
from tests.store.fix_store import shared_store as store

__all__ = ["store"]

TABLES = ("files", "versions", "chunks", "segments", "events", "idempotency_keys", "collections")


@pytest.fixture(scope="module")
async def collection(store: ChunkStore) -> Collection:
    return await store.collection("docs", model=MODEL)


@pytest.fixture
def key() -> str:
    """A key that no other test has used."""
    return f"doc {uuid4().hex}"


async def written(store: ChunkStore) -> list[int]:
    """The rows of every table that a write touches."""
    async with store.database.transaction() as conn:
        counts: list[int] = []
        for table in TABLES:
            row = await (await conn.execute(f"SELECT count(*) FROM {table}".encode())).fetchone()
            assert row is not None
            counts.append(row[0])
        return counts


async def refused(store: ChunkStore, attempt: Awaitable[object], *says: str) -> InvalidInput:
    """The error of an attempt that must write nothing."""
    before = await written(store)
    with pytest.raises(InvalidInput) as caught:
        await attempt
    for part in (caught.value.field, caught.value.allowed, *says):
        assert part in str(caught.value)
    assert await written(store) == before
    return caught.value


# --- keys -----------------------------------------------------------------------------------------

KEYS: dict[str, Any] = {
    "empty": "",
    "over 1,024 bytes": "k" * 1025,
    "over 1,024 bytes of two-byte letters": "ü" * 513,
    "NUL": "a secret\0",
    "a lone surrogate": "a\udc80b",
    "no text": b"key",
    "nothing": None,
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_a_bad_key_is_refused_by_everything_that_takes_one(
    store: ChunkStore, collection: Collection, key: Any
) -> None:
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: collection.append(key, [Chunk("one")]),
        lambda: collection.delete(key),
        lambda: collection.rollback(key, 1),
        lambda: collection.pin(key, 1),
        lambda: collection.unpin(key, 1),
        lambda: collection.erase(key),
        lambda: collection.history(key),
        lambda: anext(collection.chunks(key, 1)),
    ]
    for attempt in attempts:
        error = await refused(store, attempt(), "1 to 1024 UTF-8 bytes")
        assert error.field == "key"


async def test_the_longest_key_is_taken(collection: Collection) -> None:
    key = "ü" * 512
    await collection.append(key, [Chunk("one")])
    assert [version.key for version in await collection.history(key)] == [key]


@pytest.mark.parametrize("key", ["", "k" * 256, "a\0b", "\ud800", 7], ids=repr)
async def test_a_bad_idempotency_key_is_refused(store: ChunkStore, collection: Collection, key: Any) -> None:
    attempt = collection.append("doc", [Chunk("one")], idempotency_key=key)
    assert (await refused(store, attempt)).field == "idempotency_key"


async def test_an_idempotency_key_with_other_content_is_refused(
    store: ChunkStore, collection: Collection, key: str
) -> None:
    await collection.append(key, [Chunk("one")], idempotency_key="k")
    before = await written(store)
    with pytest.raises(IdempotencyKeyReused, match="idempotency_key"):
        await collection.append(key, [Chunk("two")], idempotency_key="k")
    assert await written(store) == before


# --- chunks ---------------------------------------------------------------------------------------

CONTENTS: dict[str, Any] = {
    "empty": "",
    "NUL": "a\0b",
    "a lone surrogate": "\ud83d",
    "over the limit": "x" * (settings.MAX_CONTENT_BYTES + 1),
    "over the limit in bytes": "ü" * (settings.MAX_CONTENT_BYTES // 2 + 1),
    "bytes": b"content",
    "nothing": None,
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
async def test_bad_content_is_refused_with_the_chunks_position(
    store: ChunkStore, collection: Collection, content: Any
) -> None:
    attempt = collection.append("doc", [Chunk("fine"), Chunk("fine too"), Chunk(content)])
    error = await refused(store, attempt)
    assert error.field == "chunks[2].content"
    assert len(str(error)) < 400, "the error does not repeat a megabyte"
    assert "secret" not in str(error), "errors are logged"


async def test_the_longest_content_is_taken(collection: Collection, key: str) -> None:
    version = await collection.append(key, [Chunk("x" * settings.MAX_CONTENT_BYTES)])
    assert version.added == 1


def nested(depth: int) -> Metadata:
    value: Metadata = {}
    for _ in range(depth - 1):
        value = {"x": value}
    return value


METADATA: dict[str, tuple[Any, str]] = {
    "a list": ([1], "JSON object"),
    "text": ("{}", "JSON object"),
    "too deep": (nested(settings.MAX_METADATA_DEPTH + 1), "32 levels"),
    "too deep by far": (nested(5000), "32 levels"),
    "over the limit": ({"x": "y" * settings.MAX_METADATA_BYTES}, "65536 bytes"),
    "NaN": ({"x": [math.nan]}, "finite"),
    "infinity": ({"x": -math.inf}, "finite"),
    "NUL in a value": ({"x": "a\0"}, "NUL"),
    "NUL in a key": ({"a\0": 1}, "NUL"),
    "a lone surrogate": ({"x": "\udfff"}, "surrogates"),
    "a key that is no text": ({1: "x"}, "text"),
    "a date": ({"x": timedelta(1)}, "JSON"),
    "a set": ({"x": {1}}, "JSON"),
    "bytes": ({"x": b"y"}, "JSON"),
}


@pytest.mark.parametrize(("metadata", "says"), METADATA.values(), ids=METADATA)
async def test_bad_metadata_of_a_chunk_is_refused(
    store: ChunkStore, collection: Collection, metadata: Any, says: str
) -> None:
    error = await refused(store, collection.append("doc", [Chunk("fine"), Chunk("one", metadata)]), says)
    assert error.field.startswith("chunks[1].metadata")


@pytest.mark.parametrize(("metadata", "says"), METADATA.values(), ids=METADATA)
async def test_bad_metadata_of_a_version_is_refused(
    store: ChunkStore, collection: Collection, metadata: Any, says: str
) -> None:
    error = await refused(store, collection.append("doc", [Chunk("one")], metadata=metadata), says)
    assert error.field.startswith("metadata")


@pytest.mark.parametrize("metadata", [[], "", 0, False], ids=repr)
async def test_empty_metadata_of_another_type_is_refused(
    store: ChunkStore, collection: Collection, metadata: Any
) -> None:
    await refused(store, collection.append("doc", [Chunk("one", metadata)]), "JSON object")
    await refused(store, collection.append("doc", [Chunk("one")], metadata=metadata), "JSON object")


@pytest.mark.parametrize("number", [2**53 + 1, -(2**70), 10**400], ids=["2**53+1", "-2**70", "10**400"])
async def test_a_number_that_other_readers_of_json_round_is_kept(
    collection: Collection, key: str, number: int
) -> None:
    await collection.append(key, [Chunk("one", {"n": number})])
    stored = collection.chunks(key)
    assert [chunk.metadata async for chunk in stored] == [{"n": number}]


async def test_a_number_that_cannot_be_written_is_refused(store: ChunkStore, collection: Collection) -> None:
    error = await refused(store, collection.append("doc", [Chunk("one", {"n": 10**5000})]))
    assert error.field.startswith("chunks[0].metadata")


PLACES: dict[str, tuple[Any, str]] = {
    "a negative start": (Place(-1, 4), "start"),
    "an end before the start": (Place(5, 4), "end"),
    "page 0": (Place(page=0), "page"),
    "line 0": (Place(line=0), "line"),
    "a fraction": (Place(start=1.5), "start"),  # pyright: ignore[reportArgumentType]
    "a truth": (Place(line=True), "line"),
    "beyond 31 bits": (Place(0, 2**31), "end"),
    "a tuple": ((0, 4), "place"),
}


@pytest.mark.parametrize(("place", "field"), PLACES.values(), ids=PLACES)
async def test_a_bad_place_is_refused(
    store: ChunkStore, collection: Collection, place: Any, field: str
) -> None:
    error = await refused(store, collection.append("doc", [Chunk("one", {}, place)]))
    assert error.field.startswith("chunks[0].place")
    assert error.field.endswith(field)


@pytest.mark.parametrize("chunks", ["text", b"bytes", 7, None, ["text"], [None]], ids=repr)
async def test_what_is_no_sequence_of_chunks_is_refused(
    store: ChunkStore, collection: Collection, chunks: Any
) -> None:
    error = await refused(store, collection.append("doc", chunks), "Chunk")
    assert error.field.startswith("chunks")


async def test_duplicate_chunks_and_no_chunks_are_allowed(collection: Collection) -> None:
    assert (await collection.append("twice", [Chunk("same"), Chunk("same")])).chunks == 2
    assert (await collection.append("empty", [])).chunks == 0


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [-1, 1.0, "1", True, 2**31], ids=repr)
async def test_a_bad_expected_version_is_refused(
    store: ChunkStore, collection: Collection, key: str, version: Any
) -> None:
    for attempt in (
        collection.append(key, [Chunk("one")], expected_version=version),
        collection.delete(key, expected_version=version),
    ):
        assert (await refused(store, attempt)).field == "expected_version"


async def test_a_stale_expected_version_is_refused(
    store: ChunkStore, collection: Collection, key: str
) -> None:
    before = await written(store)
    with pytest.raises(StaleVersion, match="expected_version: 1 is not the latest version, which is 0"):
        await collection.append(key, [Chunk("one")], expected_version=1)
    assert await written(store) == before


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None, 2**31], ids=repr)
async def test_a_bad_version_number_is_refused(
    store: ChunkStore, collection: Collection, key: str, version: Any
) -> None:
    await collection.append(key, [Chunk("one")])
    for attempt in (
        collection.rollback(key, version),
        collection.pin(key, version),
        collection.unpin(key, version),
    ):
        assert (await refused(store, attempt)).field in ("version", "to")
    if version is not None:
        await refused(store, anext(collection.chunks(key, version)))


# --- collections and models -----------------------------------------------------------------------


async def test_an_unknown_collection_is_an_error(store: ChunkStore) -> None:
    with pytest.raises(UnknownCollection, match="'none'"):
        await store.collection("none")


@pytest.mark.parametrize("name", ["", "n" * 1025, "a\0b", "\udc00", None], ids=repr)
async def test_a_bad_name_of_a_collection_is_refused(store: ChunkStore, name: Any) -> None:
    assert (await refused(store, store.collection(name, model=MODEL))).field == "collection"


@pytest.mark.parametrize("model", ["hashing:0", "hashing:x", "hashing:99999", "", 7], ids=repr)
async def test_a_bad_model_is_refused(store: ChunkStore, model: Any) -> None:
    assert (await refused(store, store.collection("new", model=model))).field == "model"


async def test_a_model_that_nothing_answers_to_is_an_error(store: ChunkStore) -> None:
    with pytest.raises(UnknownModel):
        await store.collection("new", model="none-such")


async def test_a_collection_with_another_model_is_refused(store: ChunkStore, collection: Collection) -> None:
    before = await written(store)
    with pytest.raises(ModelMismatch, match=r"'hashing-16' \(16 dimensions, cosine\) is not 'hashing-8'"):
        await store.collection("docs", model="hashing:16")
    assert await written(store) == before


class Renamed:
    """A model under the name of another, with other dimensions."""

    name = "hashing-8"
    dimensions = 9
    distance = "cosine"

    def embed(self, texts: Any) -> Any:
        return np.ones((len(texts), 9), np.float32)


async def test_a_model_of_another_shape_is_refused_by_another_collection_too(
    store: ChunkStore, collection: Collection
) -> None:
    before = await written(store)
    with pytest.raises(ModelMismatch, match="9 dimensions"):
        await store.collection("other", model=Renamed())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelMismatch, match="9 dimensions"):
        await collection.add_model(Renamed())  # pyright: ignore[reportArgumentType]
    assert await written(store) == before


@pytest.mark.parametrize("keep_last", [0, -1, 1.5, True, "3", 2**31], ids=repr)
async def test_a_bad_retention_is_refused(store: ChunkStore, keep_last: Any) -> None:
    attempt = store.collection("new", model=MODEL, keep_last=keep_last)
    assert (await refused(store, attempt)).field == "keep_last"


@pytest.mark.parametrize(
    "keep_for", [timedelta(seconds=-1), timedelta.max, timedelta(days=36_501), 5, "30d"], ids=repr
)
async def test_a_bad_retention_time_is_refused(store: ChunkStore, keep_for: Any) -> None:
    attempt = store.collection("new", model=MODEL, keep_for=keep_for)
    assert (await refused(store, attempt)).field == "keep_for"


# --- searches -------------------------------------------------------------------------------------

VECTORS: dict[str, Any] = {
    "too short": [1.0] * 7,
    "complex": [1j] * 8,
    "too large for a float": [10**400] * 8,
    "text": ["1"] * 8,
    "too long": [1.0] * 9,
    "a matrix": [[1.0] * 8],
    "a number": 1.0,
    "no numbers": ["x"] * 8,
    "NaN": [math.nan] * 8,
    "infinity": [1.0] * 7 + [math.inf],
    "beyond half precision": [1.0] * 7 + [70000.0],
    "zero": [0.0] * 8,
    "empty": [],
    "nothing": None,
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
async def test_a_bad_query_vector_is_refused(store: ChunkStore, collection: Collection, vector: Any) -> None:
    assert (await refused(store, collection.search(vector))).field == "vector"


@pytest.mark.parametrize("k", [0, -1, 1_000_000, settings.MAX_K + 1, 1.0, True, "10", None], ids=repr)
async def test_a_bad_k_is_refused(store: ChunkStore, collection: Collection, k: Any) -> None:
    error = await refused(store, collection.search([1.0] * 8, k=k), f"from 1 to {settings.MAX_K}")
    assert error.field == "k"


@pytest.mark.parametrize(
    "query", ["", "\0", "\ud800", "x" * 65537], ids=["empty", "NUL", "surrogate", "long"]
)
async def test_a_bad_query_text_is_refused(store: ChunkStore, collection: Collection, query: str) -> None:
    assert (await refused(store, collection.search(query))).field == "query"


async def test_a_search_by_a_model_that_the_collection_lacks_is_an_error(collection: Collection) -> None:
    with pytest.raises(UnknownModel, match="has no model 'other'; it has hashing-8"):
        await collection.search([1.0] * 8, model="other")


@pytest.mark.parametrize(
    "timeout", [-1, math.nan, "1", True, None, 10**400], ids=lambda value: repr(value)[:8]
)
async def test_a_bad_timeout_is_refused(
    store: ChunkStore, collection: Collection, key: str, timeout: Any
) -> None:
    version = await collection.append(key, [Chunk("one")])
    assert (await refused(store, collection.wait_until_active(version, timeout=timeout))).field == "timeout"


@pytest.mark.parametrize(
    "chunk_id", ["x", True, 1.5, None, [1], -1, 2**63, 10**5000], ids=lambda value: type(value).__name__
)
async def test_a_bad_chunk_id_is_refused(store: ChunkStore, collection: Collection, chunk_id: Any) -> None:
    assert (await refused(store, collection.retry(chunk_id))).field == "chunk_id"
    assert (await refused(store, collection.discard(chunk_id))).field == "chunk_id"


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "3", 65_537, 10**30], ids=repr)
async def test_a_bad_batch_is_refused(store: ChunkStore, batch: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        EmbeddingConsumer(store, open_model(MODEL), batch=batch)
    assert caught.value.field == "batch"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


async def test_a_value_whose_repr_fails_is_refused_by_name(store: ChunkStore, collection: Collection) -> None:
    error = await refused(store, collection.append(Unprintable(), []))  # pyright: ignore[reportArgumentType]
    assert "this Unprintable is not allowed" in str(error)
