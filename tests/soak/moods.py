"""A model that does what models do. One file holds its mood, for every consumer of the soak."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import ModelUnavailable
from chunkstore.models.hashing import HashingModel
from tests.faults.models import MODEL

OTHER = HashingModel(MODEL.dimensions // 2)
"""The model that is added under way."""

EMBED_SECONDS = 0.05
"""What a call takes at the least, so that a fault often finds a range in a consumer's hand."""

MOODS = ["raises", "is away", "answers garbage", "answers too few", "is slow", "hangs", "kills its process"]


class Moody(HashingModel):
    """Looks at its mood at every call."""

    def __init__(self, dimensions: int, mood: Path) -> None:
        super().__init__(dimensions)
        self._mood = mood

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        threading.Event().wait(EMBED_SECONDS)
        mood = read(self._mood)
        if mood == "raises":
            raise RuntimeError("the model is in a bad mood")
        if mood == "is away":
            raise ModelUnavailable("the provider does not answer")
        if mood == "answers garbage":
            return np.full_like(vectors, np.nan)
        if mood == "answers too few":
            return vectors[1:]
        if mood == "kills its process" and _take(self._mood):
            os.kill(os.getpid(), signal.SIGKILL)
        if mood == "is slow":
            threading.Event().wait(1)
        while mood == "hangs" and read(self._mood) == "hangs":
            threading.Event().wait(0.1)
        return vectors


def put(path: Path, mood: str | None) -> None:
    """Gives every model the mood, or none."""
    if mood is None:
        path.unlink(missing_ok=True)
        return
    beside = path.with_suffix(".new")
    beside.write_text(mood)
    beside.replace(path)


def read(path: Path) -> str | None:
    """The mood that the models are in."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _take(path: Path) -> bool:
    """Whether this process is the one that the mood strikes."""
    try:
        path.rename(path.with_suffix(".struck"))
    except FileNotFoundError:
        return False
    return True
