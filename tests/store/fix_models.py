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

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            self.texts.update(texts)
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
