"""Vectors that were paid for in a call that failed: the next call need not pay for them again.

Without it, a batch of more requests than a rate limit lets through in one call would never come to its end.
"""

from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST_BYTES: Final = 33_554_432


class Kept:
    """Vectors by text, up to 32 MiB; the oldest go first. Safe for several threads."""

    def __init__(self) -> None:
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._bytes = 0
        self._lock = Lock()

    def put(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Keeps the vectors of these texts."""
        with self._lock:
            for text, vector in vectors.items():
                self._drop(text)
                self._vectors[text] = vector
                self._bytes += len(text) + vector.nbytes
            while self._bytes > _MOST_BYTES:
                self._drop(next(iter(self._vectors)))

    def take(self, texts: dict[int, str]) -> dict[int, NDArray[np.float32]]:
        """The vectors of those texts that are kept, which then are no longer."""
        with self._lock:
            found = {at: self._vectors[text] for at, text in texts.items() if text in self._vectors}
            for at in found:
                self._drop(texts[at])
        return found

    def _drop(self, text: str) -> None:
        vector = self._vectors.pop(text, None)
        if vector is not None:
            self._bytes -= len(text) + vector.nbytes
