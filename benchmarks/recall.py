"""How often one of the five nearest chunks holds the answer, for each chunker over the same questions."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.chunkers import Part
from benchmarks.questions import WAYS, Question
from benchmarks.vectors import Vectors

NEAREST = 5
_AT_ONCE = 256
"""Questions that are compared with every chunk together: bounds memory."""


class Recall(msgspec.Struct, frozen=True):
    """Which questions were answered: `[way, question]`, `(3, n) bool`.

    A way is how the question is asked. `most`: a chunk among the five nearest has more than half of the
    answer; `whole`: all of it.
    """

    most: NDArray[np.bool_]
    whole: NDArray[np.bool_]


class Ahead(msgspec.Struct, frozen=True):
    """How much larger a share of the same questions one chunker answers than another; from -1 to 1."""

    share: float
    error: float
    """The standard error of the share."""

    def __str__(self) -> str:
        return f"{100 * self.share:+.1f} ± {100 * self.error:.1f}"


def recall(vectors: Vectors, questions: Sequence[Question], parts: Sequence[Sequence[Part]]) -> Recall:
    """The recall of these chunks, given by document; every question asked in every way."""
    where = [(number, part) for number, chunks in enumerate(parts) for part in chunks]
    chunks = vectors.of([part.text for _, part in where]).T
    held = np.zeros((len(WAYS), len(questions)))
    for way, name in enumerate(WAYS):
        asked = vectors.of([getattr(question, name) for question in questions])
        for i in range(0, len(questions), _AT_ONCE):
            scores = asked[i : i + _AT_ONCE] @ chunks
            nearest = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
            for j, row in enumerate(nearest, i):
                held[way, j] = max(_held(questions[j], *where[k]) for k in row)
    return Recall(most=held > 0.5, whole=held == 1)


def ahead(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], questions: Sequence[Question]) -> Ahead:
    """How far ours is ahead in the mean of the ways, question by question.

    The error is that of a paired comparison, its questions taken together by document, as neighbours are
    found or missed together: Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference (2015).
    """
    differences = (ours.astype(float) - theirs.astype(float)).mean(axis=0)
    share = float(differences.mean())
    of_documents = np.zeros(1 + max(question.document for question in questions))
    np.add.at(of_documents, [question.document for question in questions], differences - share)
    return Ahead(share, float(np.sqrt((of_documents**2).sum()) / len(questions)))


def _held(question: Question, document: int, part: Part) -> float:
    """The share of the answer that the chunk holds."""
    if document != question.document:
        return 0.0
    common = min(part.end, question.end) - max(part.start, question.start)
    return max(common, 0) / (question.end - question.start)
