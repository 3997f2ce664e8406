"""Vectors on the wire: an array of pgvector's type in binary, without a Python object a number.

The server knows a binary array by the number of its elements' type, which differs from database to database,
so the connections to each carry the number that it has there.
"""

import struct
from typing import ClassVar

import numpy as np
import psycopg
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format


class Vectors:
    """Vectors of `(n, d) float32`, sent as `vector[]`; the statement casts them so."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def adapters(vector_type: int) -> AdaptersMap:
    """What a connection adapts by where `vector` has that type number."""

    class Bound(_VectorsDumper):
        element = vector_type

    adapted = AdaptersMap(psycopg.adapters)
    adapted.register_dumper(Vectors, Bound)
    return adapted


class _VectorsDumper(Dumper):
    format = Format.BINARY
    element: ClassVar[int]

    def dump(self, obj: Vectors) -> bytes:
        """The array: dimensions, null flag, element type, length, lower bound; then the vectors."""
        values = np.ascontiguousarray(obj.values, dtype=np.float32)
        if not values.size:
            return struct.pack(">iii", 0, 0, self.element)
        n, d = values.shape
        layout = [("length", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("values", ">f4", (d,))]
        elements = np.zeros(n, dtype=layout)
        elements["length"] = 4 + 4 * d
        elements["dimensions"] = d
        elements["values"] = values
        return struct.pack(">iiiii", 1, 0, self.element, n, 1) + elements.tobytes()
