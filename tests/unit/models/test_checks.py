"""What a model returned is checked row by row before any of it is stored."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from chunkstore.errors import EmbeddingFailed
from chunkstore.models.checks import checked_vectors
from chunkstore.models.protocol import Distance


class Lengths:
    name = "lengths"
    dimensions = 2
    distance: Distance = "l2"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [(len(text), text.count(" ")) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(rows), 2)


class Cosine(Lengths):
    distance: Distance = "cosine"


def test_good_vectors_pass_as_float32() -> None:
    for good in ([[1, 2], [3, 4]], np.ones((2, 2)), np.ones((2, 2), np.float16)):
        array, bad = checked_vectors(Cosine(), good, 2)
        assert (array.dtype, array.shape, bad) == (np.float32, (2, 2), [])


def test_no_texts_are_no_failure() -> None:
    answers: list[object] = [[], np.empty((0, 2))]
    for empty in answers:
        array, bad = checked_vectors(Cosine(), empty, 0)
        assert (array.shape, bad) == ((0, 2), [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1, float("nan")], "NaN"),
        ([float("-inf"), 1], "infinity"),
        ([1e300, 1], "infinity"),
        ([65505, 1], "beyond ±65504"),
        ([1, -70000], "beyond ±65504"),
        ([0, 0], "is zero, which"),
        ([1e-9, -1e-9], "zero in half precision"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_bad_row_is_named_with_its_reason_and_its_neighbours_are_kept(
    row: list[float], reason: str
) -> None:
    array, bad = checked_vectors(Cosine(), [[1, 0], row, [65504, -65504]], 3)
    assert [position for position, _ in bad] == [1]
    assert reason in bad[0][1]
    np.testing.assert_array_equal(array[[0, 2]], [[1, 0], [65504, -65504]])


def test_a_zero_vector_is_fine_where_the_distance_takes_it() -> None:
    assert checked_vectors(Lengths(), [[0, 0]], 1)[1] == []


@pytest.mark.parametrize(
    "answer",
    [None, "text", [[1, 2]], [[1, 2]] * 3, [[1, 2], [3]], [[1, 2, 3]] * 2, [1, 2], [["a", "b"]] * 2,
     [[1j, 2]] * 2, [[None, 1]] * 2, [[True, False]] * 2, np.ones((2, 2, 1)), iter([[1, 2]] * 2),
     np.empty((0, 2)), [], [[], []]],
)  # fmt: skip
def test_an_unusable_answer_fails_whole(answer: object) -> None:
    with pytest.raises(EmbeddingFailed, match=r"model lengths returned .*expected 2 × 2 numbers"):
        checked_vectors(Lengths(), answer, 2)
