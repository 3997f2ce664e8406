"""The hashing model: deterministic, never a zero vector, near where words are shared."""

import subprocess
import sys

import numpy as np
import pytest

from chunkstore.models import Model, open_model
from chunkstore.models.hashing import HashingModel


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def similarity(model: Model, a: str, b: str) -> float:
    left, right = model.embed([a, b])
    return float(left @ right)


def test_texts_that_share_words_are_nearer_than_texts_that_share_none() -> None:
    model = open_model("hashing:256")
    text = "The collector removes what no retained version needs"
    near = similarity(model, text, "the COLLECTOR removes what a retained version needs!")
    assert near > 0.6
    assert near > similarity(model, text, "Pour milk over oats and wait five minutes") + 0.4


def test_word_order_counts() -> None:
    assert similarity(HashingModel(1024), "man bites dog", "dog bites man") < 0.95


def test_scripts_without_spaces_are_compared_by_character() -> None:
    model = HashingModel(256)
    assert similarity(model, "検索は正確である", "検索は正確だった") > 0.5


@pytest.mark.parametrize("dimensions", [1, 2, 256])
def test_every_vector_has_length_one_whatever_the_text(dimensions: int) -> None:
    texts = ["", " ", "\n", "!!!", "☃", "a", "a b", "\ud800", "İ", "word " * 10_000, "a b c d e f g h", "𝔘𝔫𝔦"]
    texts += [f"{i} {i * i} {i + 7}" for i in range(500)]  # one in five cancels out in one dimension
    vectors = HashingModel(dimensions).embed(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_text_has_one_vector_alone_in_a_crowd_and_in_another_process() -> None:
    texts = [f"text number {i}, said {i % 7} times" for i in range(3000)]
    crowd = HashingModel(1024).embed(texts)
    np.testing.assert_array_equal(crowd[2999], HashingModel(1024).embed(texts[2999:])[0])
    code = (
        "from chunkstore.models.hashing import HashingModel as H; print(H(1024).embed([%r]).tobytes().hex())"
    )
    assert run_python(code % texts[7]) == crowd[7].tobytes().hex()


def test_vectors_stored_long_ago_still_match() -> None:
    vector = HashingModel(8).embed(["Vectors of today must equal those of last year"])[0]
    frozen = [-0.5164, 0.1291, 0.2582, -0.1291, -0.2582, 0.3873, 0.3873, 0.5164]
    np.testing.assert_allclose(vector, frozen, atol=1e-4)


def test_no_texts_give_no_rows() -> None:
    assert HashingModel(16).embed([]).shape == (0, 16)
