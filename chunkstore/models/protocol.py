"""The protocol of a model: a name, the shape of its vectors, the distance they are made for, `embed`.

Ten lines are a model:

    class Lengths:
        name = "lengths"
        dimensions = 2
        distance = "l2"

        def embed(self, texts):
            rows = [(len(text), text.count(" ")) for text in texts]
            return np.array(rows, dtype=np.float32).reshape(len(rows), 2)

    collection = await store.collection("notes", model=Lengths())

Three more protocols are optional: `EmbedsQueries` for a model that reads a query otherwise than a chunk,
`CountsTokens` for one that reads only so many tokens of a text, `Spends` for one that has to be paid for.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

Distance = Literal["cosine", "l2", "ip"]


@runtime_checkable
class Model(Protocol):
    """Turns texts into vectors.

    The same name must always mean the same vectors: the name is what a collection remembers.
    """

    @property
    def name(self) -> str:
        """The name under which a collection keeps this model's vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of every vector."""
        ...

    @property
    def distance(self) -> Distance:
        """The distance by which these vectors are compared."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector a text, in the order of the texts: `(n, dimensions) float32`.

        Blocking; called in a worker thread, one call at a time. May raise anything: the caller
        halves the batch and tries again.
        """
        ...


@runtime_checkable
class EmbedsQueries(Protocol):
    """A model that reads a query otherwise than a chunk: with another prompt, prefix or endpoint option."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query: `(dimensions,) float32`. Without it, a query is embedded like a chunk."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A model that reads at most so many tokens of a text, and can say how many a text has."""

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the model reads, special tokens and prefix included."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model would read of each text if none were cut, all included.

        Blocking; may be called in any thread, also while `embed` runs.
        """
        ...


class Spent(msgspec.Struct, frozen=True):
    """What the calls of a model came to."""

    requests: int = 0
    tokens: int = 0
    cost: float | None = None
    """In the currency of the price that was given; None without a price."""

    def __sub__(self, other: "Spent") -> "Spent":
        cost = None if self.cost is None else self.cost - (other.cost or 0.0)
        return Spent(self.requests - other.requests, self.tokens - other.tokens, cost)


@runtime_checkable
class Spends(Protocol):
    """A model of a service that counts, and bills, what it reads."""

    @property
    def spent(self) -> Spent:
        """What all calls of this object so far came to."""
        ...


class ModelDescription(msgspec.Struct, frozen=True):
    """What a collection keeps of a model, and checks it against later."""

    name: str
    dimensions: int
    distance: Distance
