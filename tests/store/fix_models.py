"""Models that count what they are given, or fail while they are told to."""

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chunkstore.models.hashing import HashingModel


class CountingModel(HashingModel):
    """Counts how often each text was embedded, by all consumers that share it."""

    def __init__(self) -> None:
        super().__init__(8)
        self.texts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._held: tuple[threading.Event, threading.Event] | None = None

    def hold_next(self) -> tuple[threading.Event, threading.Event]:
        """Holds the next call: the first event is set when it has come, and the second lets it go on."""
        self._held = threading.Event(), threading.Event()
        return self._held

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            self.texts.update(texts)
            held, self._held = self._held, None
        if held is not None:
            held[0].set()
            assert held[1].wait(60)
        return super().embed(texts)


class FailingModel(HashingModel):
    """Fails over every text until `fails` is False."""

    def __init__(self) -> None:
        super().__init__(8)
        self.fails = True

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.fails:
            raise ValueError("not today")
        return super().embed(texts)
