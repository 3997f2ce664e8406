"""Queries: one model opened once, what was asked before remembered, what cannot be searched by refused."""

from collections.abc import Sequence

import anyio
import numpy as np
import pytest
from numpy.typing import NDArray

from chunkstore.errors import EmbeddingFailed, UnknownModel
from chunkstore.models.protocol import Distance
from chunkstore.models.queries import Queries, query_vector

pytestmark = pytest.mark.anyio


class Recording:
    """Remembers what it was asked."""

    name = "recording"
    dimensions = 2
    distance: Distance = "l2"

    def __init__(self, scale: float = 1) -> None:
        self.asked: list[str] = []
        self.scale = scale

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([[len(text) * self.scale, 1] for text in texts], np.float32)


class Prompted(Recording):
    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self.embed([f"query: {text}"])[0]


async def test_a_query_asked_before_costs_the_model_nothing() -> None:
    queries, model = Queries(), Recording()
    first = await queries.vector(model, "hello")
    assert (await queries.vector(model, "hello")) is first
    assert model.asked == ["hello"]
    np.testing.assert_array_equal(first, [5, 1])


async def test_the_same_query_asked_at_once_is_embedded_once() -> None:
    queries, model = Queries(), Recording()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(queries.vector, model, "hello")
    assert model.asked == ["hello"]


async def test_a_models_own_way_with_queries_is_used() -> None:
    model = Prompted()
    np.testing.assert_array_equal(await Queries().vector(model, "hi"), [9, 1])
    assert model.asked == ["query: hi"]


async def test_two_models_of_one_name_share_no_vector() -> None:
    queries = Queries()
    assert (await queries.vector(Recording(1), "hi"))[0] == 2
    assert (await queries.vector(Recording(10), "hi"))[0] == 20


async def test_the_query_that_was_not_asked_for_longest_is_forgotten() -> None:
    queries, model = Queries(kept=2), Recording()
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        await queries.vector(model, text)
    assert model.asked == ["a", "bb", "ccc", "bb"]


async def test_what_is_remembered_cannot_be_changed_by_a_caller() -> None:
    vector = await Queries().vector(Recording(), "hi")
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 7


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e30])
async def test_a_vector_that_cannot_be_searched_by_is_a_failure_and_not_kept(scale: float) -> None:
    queries, model = Queries(), Recording(scale)
    for _ in range(2):
        with pytest.raises(EmbeddingFailed, match="model recording: the vector holds"):
            await queries.vector(model, "hi")
    assert model.asked == ["hi", "hi"]


async def test_a_spec_is_opened_once() -> None:
    queries = Queries()
    opened = await queries.opened("hashing:8")
    assert (await queries.opened("hashing:8")) is opened
    with pytest.raises(UnknownModel):
        await queries.opened("word2vec")


def test_a_model_that_answers_a_query_with_the_wrong_length_has_failed() -> None:
    class Wrong(Recording):
        def embed_query(self, text: str) -> NDArray[np.float32]:
            return np.full(3, len(text), np.float32)

    with pytest.raises(EmbeddingFailed, match="returned 1 × 3; expected 1 × 2"):
        query_vector(Wrong(), "hi")
