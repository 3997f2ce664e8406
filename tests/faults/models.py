"""Models that do what models do: raise, answer nonsense, take their time, kill their process, or are away."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import ModelUnavailable
from chunkstore.models.hashing import HashingModel

MODEL = HashingModel(32)
BAD = "poison"
"""A text with this word in it is what the models trip over."""

Answer = Callable[[NDArray[np.float32], list[int]], object]


class Counting(HashingModel):
    """Keeps the texts of every call."""

    def __init__(self) -> None:
        super().__init__(MODEL.dimensions)
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        return super().embed(texts)

    @property
    def texts(self) -> list[str]:
        """Every text that was paid for, in order."""
        return [text for call in self.calls for text in call]


class Tripping(Counting):
    """Answers as it should, until a text is bad: then what `answer` makes of the vectors and the bad rows."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer
        self.cured = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        bad = [row for row, text in enumerate(texts) if BAD in text]
        return vectors if self.cured or not bad else self._answer(vectors, bad)  # type: ignore[return-value]


class Away(Counting):
    """A provider that is away for the first so many calls."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        if len(self.calls) <= self.times:
            raise ModelUnavailable("the provider does not answer")
        return vectors


class Held(Counting):
    """Every call waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.go = threading.Event()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        self.began.set()
        assert self.go.wait(60), "the test never let the model go"
        return vectors


class HeldByBad(Held):
    """The same for calls with a bad text; others are answered."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().embed(texts) if any(BAD in text for text in texts) else HashingModel.embed(self, texts)


class Gated(HashingModel):
    """The same across processes: waits for a file of this name, ending in `.go`."""

    def __init__(self, gate: Path) -> None:
        super().__init__(MODEL.dimensions)
        self._gate = gate.with_suffix(".go")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        pause = threading.Event()
        while not self._gate.exists():
            pause.wait(0.01)
        return super().embed(texts)


class Mortal(HashingModel):
    """Takes its process with it over a bad text, as a library in C does, in the middle of its work."""

    def __init__(self) -> None:
        super().__init__(MODEL.dimensions)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any(BAD in text for text in texts):
            threading.Event().wait(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(texts)
