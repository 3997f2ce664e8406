"""Arrays on the wire, in binary and without a Python object a number: whole numbers, and pgvector's vectors.

The server knows a binary array by the number of its elements' type. That of `vector` differs from database to
database, so the connections to each carry the number that it has there.
"""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import psycopg
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format


class Bigints:
    """Whole numbers, sent as `bigint[]`."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = values


class Integers:
    """Whole numbers, some of them perhaps None, sent as `integer[]`."""

    def __init__(self, values: Sequence[int | None]) -> None:
        self.values = values


class Vector:
    """One vector of `(d,) float32`, sent as `vector`."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


class Vectors:
    """Vectors of `(n, d) float32`, sent as `vector[]`; the statement casts them so."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def adapters(vector_type: int) -> AdaptersMap:
    """What a connection adapts by where `vector` has that type number."""

    class OfVector(_VectorDumper):
        oid = vector_type

    class OfVectors(_VectorsDumper):
        element = vector_type

    adapted = AdaptersMap(psycopg.adapters)
    adapted.register_dumper(Vector, OfVector)
    adapted.register_dumper(Vectors, OfVectors)
    return adapted


class _BigintsDumper(Dumper):
    format = Format.BINARY
    oid = 1016  # bigint[]

    def dump(self, obj: Bigints) -> bytes:
        elements = np.empty(len(obj.values), dtype=[("length", ">i4"), ("value", ">i8")])
        elements["length"] = 8
        elements["value"] = obj.values
        return _array(20, elements)


class _IntegersDumper(Dumper):
    format = Format.BINARY
    oid = 1007  # integer[]

    def dump(self, obj: Integers) -> bytes:
        if None in obj.values:
            return _header(23, len(obj.values), nulls=True) + b"".join(map(_integer, obj.values))
        elements = np.empty(len(obj.values), dtype=[("length", ">i4"), ("value", ">i4")])
        elements["length"] = 4
        elements["value"] = obj.values
        return _array(23, elements)


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Vector) -> bytes:
        return struct.pack(">hh", len(obj.values), 0) + np.asarray(obj.values, ">f4").tobytes()


class _VectorsDumper(Dumper):
    format = Format.BINARY
    element: ClassVar[int]

    def dump(self, obj: Vectors) -> bytes:
        values = np.ascontiguousarray(obj.values, dtype=np.float32)
        n, d = values.shape if values.size else (0, 0)
        layout = [("length", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("values", ">f4", (d,))]
        elements = np.zeros(n, dtype=layout)
        elements["length"] = 4 + 4 * d
        elements["dimensions"] = d
        elements["values"] = values.reshape(n, d)
        return _array(self.element, elements)


def _array(element: int, elements: "np.ndarray[Any, Any]") -> bytes:
    return _header(element, len(elements)) + elements.tobytes()


def _header(element: int, length: int, *, nulls: bool = False) -> bytes:
    """Dimensions, null flag, the elements' type; then, unless it is empty, length and lower bound."""
    if not length:
        return struct.pack(">iii", 0, 0, element)
    return struct.pack(">iiiii", 1, nulls, element, length, 1)


def _integer(value: int | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">ii", 4, value)


psycopg.adapters.register_dumper(Bigints, _BigintsDumper)
psycopg.adapters.register_dumper(Integers, _IntegersDumper)
