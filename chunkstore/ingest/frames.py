"""What an ingestion and its workers say to each other: MessagePack values, each behind its length.

A worker says once that it is ready. It answers a task with `Opened`, then with `Cut`s or `Text`s and
`Done`; or with `Failed` at any point.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TypeVar

import msgspec

from chunkstore.ingest.document import Document
from chunkstore.model import Chunk

FRAME_CHUNKS = 512
FRAME_BYTES = 256 * 1024
"""A frame of chunks is sent when either is reached."""

Cutter = Callable[[Document], Iterable[Chunk]]
"""A chunker."""

_LENGTH = struct.Struct(">I")
T = TypeVar("T")


# --- to a worker --------------------------------------------------------------------------------


class Setup(msgspec.Struct, frozen=True, tag=True):
    """What a worker is told once: `chunker` and `formats` are pickled, sizes in bytes."""

    search_path: list[str]
    formats: bytes
    chunker: bytes | None
    """None: the text is wanted, not chunks."""
    seconds: float
    memory: int


class Task(msgspec.Struct, frozen=True, tag=True):
    """One file to read. Where its content hashes to `known`, that alone is the answer."""

    path: bytes
    known: bytes | None = None
    parse: bool = True
    """False: only the hash is wanted."""


# --- from a worker ------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process runs, within its limits."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The file as it stood while it was read; `parser` names what read it, None where nothing did."""

    size: int
    mtime_ns: int
    hash: bytes
    parser: str | None = None


class Cut(msgspec.Struct, frozen=True, tag=True):
    """The file's next chunks."""

    chunks: list[Chunk]


class Text(msgspec.Struct, frozen=True, tag=True):
    """The next part of the file's text; the other fields of `document` are in the first part."""

    document: Document


class Done(msgspec.Struct, frozen=True, tag=True):
    """The file is whole."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The file cannot be read, or not be cut; `fatal`: nor can any other."""

    reason: str
    exhausted: bool = False
    """It needed more memory than there is for it."""
    fatal: bool = False


Question = Setup | Task
Answer = Ready | Opened | Cut | Text | Done | Failed

_encoder = msgspec.msgpack.Encoder()
questions = msgspec.msgpack.Decoder(Question)
answers = msgspec.msgpack.Decoder(Answer)


def write(pipe: IO[bytes], value: Question | Answer) -> None:
    """Sends one value. Raises BrokenPipeError where nobody reads any more."""
    encoded = _encoder.encode(value)
    pipe.write(_LENGTH.pack(len(encoded)) + encoded)
    pipe.flush()


def read(pipe: IO[bytes], decoder: "msgspec.msgpack.Decoder[T]") -> T | None:
    """The next value, or None at the pipe's end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = pipe.read(length)
    return decoder.decode(body) if len(body) == length else None


def grouped(chunks: Iterator[Chunk]) -> Iterator[Cut]:
    """The chunks in frames of bounded count and size."""
    batch: list[Chunk] = []
    size = 0
    for chunk in chunks:
        batch.append(chunk)
        size += len(chunk.content)
        if len(batch) >= FRAME_CHUNKS or size >= FRAME_BYTES:
            yield Cut(batch)
            batch, size = [], 0
    if batch:
        yield Cut(batch)
