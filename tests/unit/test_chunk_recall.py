"""What the benchmark of chunkers says of recall: the questions it asks, what is found, how sure it is."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.chunkers import Part
from benchmarks.questions import Question, questions
from benchmarks.recall import ahead, recall
from benchmarks.vectors import Vectors
from chunkstore.ingest.document import Document
from tests.store.fix_models import CountingModel

ANSWER = "Every reader of a lease waits until its owner has renewed the lock or lost it for good."
TEXT = f"""# The warden

Opening words that nobody asks for.

## Leases

{ANSWER} Another sentence follows that one here.
"""


def question(document: int) -> Question:
    return Question("bare", "heading", "title", document, 0, 10)


def test_a_question_is_asked_bare_and_by_its_heading_and_by_the_title() -> None:
    (asked,) = questions([Document(TEXT, "markdown")], 1)
    assert TEXT[asked.start : asked.end] == ANSWER
    assert asked.heading == f"leases {asked.bare}"
    assert asked.title == f"warden {asked.bare}"


def test_recall_counts_a_chunk_with_more_than_half_of_the_answer_and_one_with_all_of_it() -> None:
    (asked,) = questions([Document(TEXT, "markdown")], 1)
    vectors = Vectors(CountingModel())
    middle = (asked.start + asked.end) // 2
    for end, most, whole in ((asked.end, True, True), (middle + 5, True, False), (middle - 5, False, False)):
        found = recall(
            vectors, [asked], [[Part(0, end, TEXT[:end]), *[Part(0, 0, f"{i}") for i in range(4)]]]
        )
        assert found.most.tolist() == [[most]] * 3
        assert found.whole.tolist() == [[whole]] * 3


def test_questions_of_one_document_count_as_one_where_they_agree() -> None:
    ours = np.array([[True] * 4 + [False] * 4])
    theirs = np.array([[False] * 8])
    apart = ahead(ours, theirs, [question(i) for i in range(8)])
    together = ahead(ours, theirs, [question(i // 4) for i in range(8)])
    assert apart.share == together.share == 0.5
    assert apart.error == pytest.approx(0.5 / 8**0.5)
    assert together.error == pytest.approx(0.5 / 2**0.5)


def test_vectors_that_are_kept_are_not_embedded_again_even_after_a_run_that_was_killed(
    tmp_path: Path,
) -> None:
    texts = ["one", "two", "three"]
    made = Vectors(CountingModel(), tmp_path).of(texts)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes() + b"half a row")
    model = CountingModel()
    again = Vectors(model, tmp_path)
    np.testing.assert_array_equal(again.of(texts), made)
    assert not model.texts
    assert again.of(["four"]).shape == (1, model.dimensions)
    assert len(Vectors(model, tmp_path).of([*texts, "four"])) == 4
    assert sum(model.texts.values()) == 1
