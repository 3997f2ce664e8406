"""The vectors of queries: a model is opened once, and a query that was asked before costs nothing.

What is kept goes by the model object, so two models never share a vector.
"""

from collections import OrderedDict
from functools import partial

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import EmbeddingFailed
from chunkstore.models.checks import checked_vectors
from chunkstore.models.protocol import EmbedsQueries, Model
from chunkstore.models.specs import open_model

_KEPT = 1024


class Queries:
    """Embeds queries for every collection of one open store."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._opened: dict[str, Model] = {}
        self._vectors: OrderedDict[tuple[int, str], tuple[Model, NDArray[np.float32]]] = OrderedDict()
        self._one_at_a_time = anyio.Lock()

    async def opened(self, spec: str) -> Model:
        """The model of the spec, opened by the first call. Raises what `open_model` raises."""
        async with self._one_at_a_time:
            if spec not in self._opened:
                # On the processor: one query is not worth what an accelerator's library takes to start.
                self._opened[spec] = await anyio.to_thread.run_sync(partial(open_model, spec, device="cpu"))
            return self._opened[spec]

    async def vector(self, model: Model, text: str) -> NDArray[np.float32]:
        """The query's vector, `(dimensions,) float32`, read-only; from memory where it was asked before.

        Raises EmbeddingFailed where the model's answer is none that can be searched by.
        """
        if (kept := self._remembered(model, text)) is not None:
            return kept
        async with self._one_at_a_time:
            if (kept := self._remembered(model, text)) is not None:
                return kept
            vector = await anyio.to_thread.run_sync(query_vector, model, text)
            vector.setflags(write=False)
            self._vectors[id(model), text] = model, vector  # the model is held, so its id stays its own
            if len(self._vectors) > self._kept:
                self._vectors.popitem(last=False)
            return vector

    def _remembered(self, model: Model, text: str) -> NDArray[np.float32] | None:
        found = self._vectors.get((id(model), text))
        if found is None:
            return None
        self._vectors.move_to_end((id(model), text))
        return found[1]


def query_vector(model: Model, text: str) -> NDArray[np.float32]:
    """The vector of a query, `(dimensions,) float32`, by the model's `embed_query` where it has one.

    Raises EmbeddingFailed where the model's answer cannot be stored or searched by.
    """
    answer = model.embed_query(text)[None] if isinstance(model, EmbedsQueries) else model.embed([text])
    vectors, bad = checked_vectors(model, answer, 1)
    if bad:
        raise EmbeddingFailed(f"model {model.name}: {bad[0][1]}")
    return vectors[0]
