"""What the benchmarks store: texts of a given size, vectors in clusters as embeddings lie, a model of no cost."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from chunkstore import Chunk, Place

_WORDS = [
    "".join(random.Random(word).choices("etaoinshrdlucmfwypvbgk", k=2 + word % 9)) for word in range(4_000)
]


def chunks(count: int, *, seed: int = 0, size: int = 800) -> list[Chunk]:
    """Distinct chunks of `size` bytes with places, as a chunker makes them."""
    return list(stream(count, seed=seed, size=size))


def stream(count: int, *, seed: int = 0, size: int = 800) -> Iterator[Chunk]:
    """The same chunks one at a time."""
    rng = random.Random(seed)
    prose = " ".join(rng.choices(_WORDS, k=20_000))
    for i in range(count):
        start = rng.randrange(len(prose) - size)
        content = f"{seed} {i} {prose[start : start + size]}"[:size]
        yield Chunk(content, place=Place(i * size, i * size + size, 1 + i // 4, 1 + i * 10))


def clustered(count: int, dimensions: int, *, seed: int = 0) -> NDArray[np.float32]:
    """`(count, dimensions) float32` of unit length around 200 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((200, dimensions), dtype=np.float32)
    vectors = centres[rng.integers(0, 200, count)]
    vectors += 0.7 * rng.standard_normal((count, dimensions), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class NullModel:
    """Costs nothing: every text gets a vector that was made before."""

    distance = "cosine"

    def __init__(self, dimensions: int = 384) -> None:
        self.name = f"null-{dimensions}"
        self.dimensions = dimensions
        self._vectors = clustered(4096, dimensions)
        self.embedded = 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, the same for every call."""
        self.embedded += len(texts)
        return self._vectors[: len(texts)]
