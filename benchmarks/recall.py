"""How often one of the five nearest chunks holds the answer, for each chunker over the same questions."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.chunkers import Part
from benchmarks.questions import Question
from chunkstore.models.protocol import Model

NEAREST = 5


class Recall(msgspec.Struct, frozen=True):
    """Shares of the questions from 0 to 1.

    `most`: a chunk among the five nearest has more than half of the answer; `whole`: all of it; `alone`
    and `topic` are `most` of the questions that do not and that do name their topic.
    """

    most: float
    whole: float
    alone: float
    topic: float


class Retrieval:
    """The questions, embedded once; a text that several chunkers make is embedded once too."""

    def __init__(self, model: Model, questions: Sequence[Question]) -> None:
        self._model = model
        self._questions = questions
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._asked = self._embedded([question.text for question in questions])

    def recall(self, parts: Sequence[Sequence[Part]]) -> Recall:
        """The recall of these chunks, given by document."""
        where = [(number, part) for number, chunks in enumerate(parts) for part in chunks]
        scores = self._asked @ self._embedded([part.text for _, part in where]).T
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
        held = [
            max(_held(question, *where[i]) for i in row)
            for question, row in zip(self._questions, nearest, strict=True)
        ]
        most = np.array([share > 0.5 for share in held])
        topic = np.array([question.has_topic for question in self._questions])
        return Recall(
            most=float(most.mean()),
            whole=float(np.mean([share == 1 for share in held])),
            alone=float(most[~topic].mean()) if not topic.all() else 0.0,
            topic=float(most[topic].mean()) if topic.any() else 0.0,
        )

    def _embedded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for i in range(0, len(new), 256):
            vectors = self._model.embed(new[i : i + 256])
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            self._vectors.update(zip(new[i : i + 256], unit, strict=True))
        return np.stack([self._vectors[text] for text in texts])


def _held(question: Question, document: int, part: Part) -> float:
    """The share of the answer that the chunk holds."""
    if document != question.document:
        return 0.0
    common = min(part.end, question.end) - max(part.start, question.start)
    return max(common, 0) / (question.end - question.start)
