"""Any value at all: it goes in and comes out as it was, or is refused by name with nothing written."""

import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chunkstore.collection import Collection
from chunkstore.errors import Conflict, InvalidInput, NeverActive, NotFound
from chunkstore.model import Chunk, FileId, Place, Version
from chunkstore.settings import MAX_K
from chunkstore.store import ChunkStore
from tests.fix_server import drop_schema
from tests.store.fix_store import MODEL

Run = Callable[[Callable[[Collection], Coroutine[Any, Any, Any]]], Any]
"""Calls a coroutine function with the collection, from a test that is none: Hypothesis drives none."""

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.fixture(scope="module")
def run(dsn: str) -> Iterator[Run]:
    schema = f"test_{uuid4().hex[:16]}"

    async def opened(stack: AsyncExitStack) -> Collection:
        store = await stack.enter_async_context(await ChunkStore.open(dsn, schema=schema, migrate=True))
        return await store.collection("docs", model=MODEL)

    with start_blocking_portal() as portal:
        stack = AsyncExitStack()
        collection = portal.call(opened, stack)
        yield lambda call: portal.call(call, collection)
        portal.call(stack.aclose)
    drop_schema(dsn, schema)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
text = words | st.text(st.characters() | st.sampled_from("\0\ud800\udfff"), max_size=9)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
anything = (
    json | st.binary(max_size=9) | st.complex_numbers() | st.dates() | st.sets(st.integers(), max_size=2)
)
numbers = st.none() | st.integers(-1, 2**31) | st.integers() | st.floats() | st.booleans()


def is_text(value: object, most: int) -> bool:
    try:
        return isinstance(value, str) and 1 <= len(value.encode()) <= most and "\0" not in value
    except UnicodeEncodeError:
        return False


def is_json(value: object) -> bool:
    match value:
        case dict():
            return all(isinstance(k, str) and _holds(k) and is_json(v) for k, v in value.items())
        case list():
            return all(map(is_json, value))
        case str():
            return _holds(value)
        case float():
            return math.isfinite(value)
        case _:
            return value is None or isinstance(value, int)


def same(stored: Any, given: Any) -> bool:
    """Whether the values are equal, a whole float as the integer that JSON makes of it."""
    match given:
        case dict():
            return stored.keys() == given.keys() and all(same(stored[name], given[name]) for name in given)
        case list() | tuple():
            return len(stored) == len(given) and all(map(same, stored, given))
        case float():
            return float(stored) == given
        case _:
            return type(stored) is type(given) and stored == given


def is_place(place: Place) -> bool:
    for value, least in ((place.start, 0), (place.end, 0), (place.page, 1), (place.line, 1)):
        if value is not None and (type(value) is not int or not least <= value < 2**31):
            return False
    return place.start is None or place.end is None or place.start <= place.end


def is_vector(value: object) -> bool:
    try:
        with np.errstate(over="ignore"):
            halved = np.asarray(value, np.float32).astype(np.float16)
    except (TypeError, ValueError):
        return False
    return halved.shape == (8,) and bool(np.isfinite(halved).all()) and bool(halved.any())


def _holds(text: str) -> bool:
    return text == "" or is_text(text, 1 << 20)


async def _stored(collection: Collection, version: Version) -> list[tuple[str, Any, Place | None]]:
    found = collection.chunks(version.key, version.number)
    return [(chunk.content, chunk.metadata, chunk.place) async for chunk in found]


one_of_them_bad = (
    st.tuples(text | anything, words, st.just({}))
    | st.tuples(words, text | anything, st.just({}))
    | st.tuples(words, words, st.dictionaries(text, json, max_size=3) | anything)
)


@given(given=one_of_them_bad)
@many
def test_what_is_text_and_json_is_kept_and_all_else_is_refused(run: Run, given: tuple[Any, Any, Any]) -> None:
    key, content, metadata = given
    good = (
        is_text(key, 1024) and is_text(content, 1 << 20) and isinstance(metadata, dict) and is_json(metadata)
    )

    async def attempt(collection: Collection) -> None:
        chunk = Chunk(content, metadata)
        if not good:
            with pytest.raises(InvalidInput) as refused:
                await collection.append(key, [chunk], metadata=metadata)
            assert refused.value.field.split(".")[0].split(" ")[0].split("[")[0] in (
                "key",
                "chunks",
                "metadata",
            )
            return
        version = await collection.append(key, [chunk], metadata=metadata)
        assert (version.key, version.chunks) == (key, 1)
        assert same(await _stored(collection, version), [(content, metadata, None)])

    run(attempt)


@given(
    metadata=st.dictionaries(
        words, st.recursive(numbers | words, lambda i: st.lists(i) | st.dictionaries(words, i))
    )
)
@pytest.mark.slow
@many
def test_metadata_comes_out_as_it_went_in(run: Run, metadata: Any) -> None:
    async def attempt(collection: Collection) -> None:
        version = await collection.append(uuid4().hex, [Chunk("one", metadata)], metadata=metadata)
        assert same(await _stored(collection, version), [("one", metadata, None)])

    if is_json(metadata):
        run(attempt)


@given(place=st.builds(Place, numbers, numbers, numbers, numbers))
@many
def test_a_place_is_kept_or_refused(run: Run, place: Any) -> None:
    good = is_place(place)

    async def attempt(collection: Collection) -> None:
        append = collection.append(uuid4().hex, [Chunk("one", {}, place)])
        if good:
            kept = None if place == Place() else place
            assert await _stored(collection, await append) == [("one", {}, kept)]
        else:
            with pytest.raises(InvalidInput, match=r"chunks\[0\]\.place"):
                await append

    run(attempt)


@given(
    vector=st.lists(st.floats(width=16), min_size=7, max_size=9) | anything | st.lists(anything, max_size=9)
)
@many
def test_any_vector_is_searched_by_or_refused(run: Run, vector: Any) -> None:
    good = is_vector(vector) or is_text(vector, 65_536)

    async def attempt(collection: Collection) -> None:
        if good:
            await collection.search(vector)
        else:
            with pytest.raises(InvalidInput, match=r"vector|query"):
                await collection.search(vector)

    run(attempt)


@given(k=anything | st.integers(-2, 3))
@many
def test_k_is_an_integer_from_one_on(run: Run, k: Any) -> None:
    good = type(k) is int and 1 <= k <= MAX_K

    async def attempt(collection: Collection) -> None:
        if good:
            assert len(await collection.search([1.0] * 8, k=k)) <= k
        else:
            with pytest.raises(InvalidInput, match=r"^k: "):
                await collection.search([1.0] * 8, k=k)

    run(attempt)


@given(number=anything, key=text)
@many
def test_any_number_of_a_version_is_taken_or_refused(run: Run, number: Any, key: str) -> None:
    name = f"key {uuid4().hex}"

    async def attempt(collection: Collection) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: collection.append(name, [Chunk("one")], expected_version=number),
            lambda: collection.append(name, [Chunk("one")], idempotency_key=number),
            lambda: collection.rollback(name, number),
            lambda: collection.pin(name, number),
            lambda: collection.wait_until_active(
                Version(collection="docs", key=key, file=FileId(10**9), number=1, chunks=1), number
            ),
        ]
        for call in calls:
            try:
                await call()
            except (InvalidInput, Conflict, NotFound, NeverActive):
                continue  # anything else is not promised

    run(attempt)
