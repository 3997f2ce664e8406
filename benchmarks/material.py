"""What the benchmarks store: texts of a given size, vectors in clusters, a model that costs nothing."""

import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from chunkstore import Chunk, Place
from chunkstore.models.protocol import Distance

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
    """Costs nothing: each text gets the next of `distinct` vectors that were made before."""

    distance: Distance = "cosine"

    def __init__(self, dimensions: int = 384, *, distinct: int = 4096) -> None:
        self.name = f"null-{dimensions}"
        self.dimensions = dimensions
        self._vectors = clustered(distinct, dimensions)
        self.embedded = 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`."""
        start = self.embedded % len(self._vectors)
        if start + len(texts) > len(self._vectors):
            start = 0
        self.embedded += len(texts)
        return self._vectors[start : start + len(texts)]


def edited(chunks: Sequence[Chunk], positions: Iterable[int], mark: str) -> list[Chunk]:
    """The chunks with other content at those positions."""
    changed = list(chunks)
    for i in positions:
        changed[i] = Chunk(f"{mark} {changed[i].content}"[:800], place=changed[i].place)
    return changed
