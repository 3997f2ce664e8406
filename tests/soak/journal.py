"""What a process did and what it was answered, a line each, in a file that outlives a `kill -9`.

An operation is written down before it is called and again when it is answered. One that was never answered
may have happened or not.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import psycopg

from chunkstore.errors import ChunkstoreError

Outcome = Literal["done", "refused", "unanswered", "wrong"]


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """An operation that is about to be called."""

    number: int
    kind: str
    key: str
    makes: str | None = None
    """The stamp of what the file holds if it happens; None where it changes nothing of that."""
    version: int | None = None
    """The version that it names."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """How it was answered."""

    number: int
    outcome: Outcome
    version: int | None = None
    note: str = ""
    """The error's label, or what is wrong with the answer."""


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """An error that an operation or a search got, and tried again."""

    label: str


class Looked(msgspec.Struct, frozen=True, tag="looked"):
    """One search, checked."""

    files: int
    faults: list[str] = []


class Operation(msgspec.Struct, frozen=True):
    """One operation with what came of it."""

    begun: Begun
    outcome: Outcome
    version: int | None
    note: str


Line = Begun | Ended | Heard | Looked


class Journal:
    """The file of one process, which goes on where its predecessor was killed."""

    def __init__(self, path: Path) -> None:
        self._lines = list(read(path))
        self._number = sum(isinstance(line, Begun) for line in self._lines)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @property
    def next(self) -> int:
        """The number of the next operation."""
        return self._number

    @property
    def before(self) -> list[Operation]:
        """The operations of the predecessors."""
        return operations(self._lines)

    def begin(self, kind: str, key: str, *, makes: str | None = None, version: int | None = None) -> Begun:
        begun = Begun(self._number, kind, key, makes, version)
        self._number += 1
        self.write(begun)
        return begun

    def write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def read(path: Path) -> Iterator[Line]:
    """The lines of a journal; none where there is none yet."""
    if path.exists():
        decoder = msgspec.json.Decoder(Line)
        yield from map(decoder.decode, path.read_bytes().splitlines())


def operations(lines: Iterator[Line] | list[Line]) -> list[Operation]:
    """The operations of a journal, in order; what was never answered as unanswered."""
    begun: dict[int, Begun] = {}
    ended: dict[int, Ended] = {}
    for line in lines:
        if isinstance(line, Begun):
            begun[line.number] = line
        elif isinstance(line, Ended):
            ended[line.number] = line
    return [_operation(each, ended.get(number)) for number, each in begun.items()]


def _operation(begun: Begun, ended: Ended | None) -> Operation:
    if ended is None:
        return Operation(begun, "unanswered", None, "killed")
    return Operation(begun, ended.outcome, ended.version, ended.note)


def label(error: BaseException) -> str:
    """The error's name, and the SQLSTATE of its cause where the name does not say it all."""
    name = type(error).__name__
    cause = error.__cause__
    if name == "DatabaseError" and isinstance(cause, psycopg.Error) and cause.sqlstate:
        return f"{name} {cause.sqlstate}"
    return name if isinstance(error, ChunkstoreError) else f"{name}: {error}"[:300]
