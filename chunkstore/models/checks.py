"""Says what is wrong with the vectors that a model returned, row by row, before any is stored.

A vector with NaN, infinity or the wrong length, one that half precision cannot hold, or a zero
vector under cosine, is an embedding failure.
"""

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import EmbeddingFailed
from chunkstore.models.protocol import Model

HALF_MAX = 65504.0
"""The largest finite number of half precision, in which search tables keep vectors."""


def checked_vectors(
    model: Model, vectors: object, n: int
) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """The vectors as `(n, dimensions) float32`, and the rows that must not be stored, with the reason.

    Raises EmbeddingFailed where the whole answer is unusable: not an array of numbers, ragged,
    not one row a text, or of other dimensions than the model says.
    """
    array = _as_matrix(model, vectors, n)
    bad: dict[int, str] = {}
    for reason, rows in _faults(model, array):
        for row in np.flatnonzero(rows).tolist():
            bad.setdefault(row, reason)
    return array, sorted(bad.items())


def _as_matrix(model: Model, vectors: object, n: int) -> NDArray[np.float32]:
    expected = f"expected {n} × {model.dimensions} numbers"
    try:
        array = np.asarray(vectors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EmbeddingFailed(f"model {model.name} returned no array ({error}); {expected}") from error
    if array.dtype.kind not in "fiu":
        raise EmbeddingFailed(f"model {model.name} returned an array of {array.dtype}; {expected}")
    if array.shape != (n, model.dimensions) and not n == array.size == 0:
        shape = " × ".join(map(str, array.shape)) or "a single number"
        raise EmbeddingFailed(f"model {model.name} returned {shape}; {expected}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32).reshape(n, model.dimensions)


def _faults(model: Model, array: NDArray[np.float32]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Each possible fault with the rows that have it, the most telling first."""
    magnitudes: NDArray[np.float32] = np.abs(array)
    largest: NDArray[np.float32] = magnitudes.max(axis=1, initial=0.0)
    with np.errstate(over="ignore"):
        largest_half: NDArray[np.float16] = magnitudes.astype(np.float16).max(axis=1, initial=0.0)
    faults: list[tuple[str, NDArray[np.bool_]]] = [
        ("the vector holds NaN", np.any(np.isnan(array), axis=1)),
        ("the vector holds infinity", np.any(np.isinf(array), axis=1)),
        (f"the vector holds a number beyond ±{HALF_MAX:g}, the range of half precision", largest > HALF_MAX),
    ]
    if model.distance == "cosine":
        faults += [
            ("the vector is zero, which has no cosine distance", largest == 0),
            ("the vector is zero in half precision", largest_half == 0),
        ]
    return faults
