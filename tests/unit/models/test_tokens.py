"""Batches bounded by tokens, and which texts a model would cut."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from chunkstore.models.protocol import CountsTokens, Distance, Model
from chunkstore.models.tokens import batches
from chunkstore.models.truncation import cut_texts


@given(st.lists(st.integers(1, 300), max_size=200), st.integers(1, 1024))
def test_every_text_is_in_one_batch_longest_first_and_none_is_too_large(
    lengths: list[int], most: int
) -> None:
    made = list(batches(lengths, most))
    order = [position for batch in made for position in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[position] for position in order] == sorted(lengths, reverse=True)
    for batch in made:
        padded = len(batch) * max(lengths[position] for position in batch)
        assert padded <= most or len(batch) == 1


def test_a_batch_takes_as_many_as_fit() -> None:
    assert [len(batch) for batch in batches([128] * 17, 1024)] == [8, 8, 1]


class Uncounted:
    name = "uncounted"
    dimensions = 1
    distance: Distance = "l2"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), 1), np.float32)


class Counted(Uncounted):
    max_tokens = 3

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def test_texts_longer_than_the_models_limit_are_named_by_position() -> None:
    assert isinstance(Counted(), CountsTokens)
    assert cut_texts(Counted(), ["a b c", "a b c d", "", "1 2 3 4 5"]) == [1, 3]
    assert cut_texts(Counted(), []) == []


def test_of_a_model_that_counts_nothing_nothing_is_said() -> None:
    assert cut_texts(Uncounted(), ["a " * 10_000]) == []


@pytest.mark.parametrize("model", [Counted(), Uncounted()])
def test_counting_is_no_part_of_what_a_model_must_have(model: object) -> None:
    assert isinstance(model, Model)
