"""A format whose reader does what the file says: real harm, in the process that reads it.

Imported by name in worker processes, so it stands in a module of its own.
"""

import os
import signal
from pathlib import Path

import pytest

from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.format import Format
from chunkstore.ingest.parsers import register

COUNTED = "CHUNKSTORE_TEST_COUNTED"
"""Names the file in which every call of the reader leaves a byte."""


def read(content: bytes) -> Document:
    """The text, or what its first word says."""
    if COUNTED in os.environ:
        with Path(os.environ[COUNTED]).open("ab") as counted:
            counted.write(b".")
    text = content.decode()
    match text.partition(" ")[0]:
        case "hang":
            while True:
                pass
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "bomb":
            hoard: list[bytearray] = []
            while True:
                hoard.append(bytearray(1 << 24))
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "quit":
            raise SystemExit(4)
        case "print":
            os.write(1, b"\xff" * 1_000)
            print("noise", flush=True)
        case "raise":
            raise KeyError("no such thing")
        case _:
            pass
    return Document(text)


ODD = Format(name="odd", read=read, names=(".odd",))
register(ODD)


class Counted:
    """How often the reader was called, in any process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> int:
        return self._path.stat().st_size


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Counts the calls of the reader from here on."""
    path = tmp_path / "counted"
    path.touch()
    monkeypatch.setenv(COUNTED, str(path))
    return Counted(path)


def age(*paths: Path, seconds: int = 60) -> None:
    """Makes the files look as if they were written a while ago."""
    for path in paths:
        then = path.stat().st_mtime_ns - seconds * 10**9
        os.utime(path, ns=(then, then))
