"""A format whose reader does what the file says: real harm, in the process that reads it.

Imported by name in worker processes, so it stands in a module of its own.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.format import Format
from chunkstore.ingest.parsers import register

COUNTED = "TEST_COUNTED"
"""Names the file in which every call of the reader leaves a byte."""


def read(content: bytes) -> Document:
    """The text, or what its first word says."""
    if COUNTED in os.environ:
        with Path(os.environ[COUNTED]).open("ab") as counted:
            counted.write(b".")
    text = content.decode()
    harm = _HARMS.get(text.partition(" ")[0])
    if harm is not None:
        harm()
    return Document(text)


def _hang() -> None:
    while True:
        pass


def _hoard() -> None:
    hoarded: list[bytearray] = []
    while True:
        hoarded.append(bytearray(1 << 24))


def _quit() -> None:
    raise SystemExit(4)


def _raise() -> None:
    raise KeyError("no such thing")


def _print() -> None:
    os.write(1, b"\xff" * 1_000)
    print("noise", flush=True)


_HARMS: dict[str, Callable[[], None]] = {
    "hang": _hang,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "bomb": _hoard,
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "quit": _quit,
    "print": _print,
    "raise": _raise,
}


def read_slowly(content: bytes) -> Document:
    """The text, after a test was told that its bytes were read and has answered."""
    folder = Path(os.environ["TEST_MEANWHILE"])
    (folder / "asked").write_bytes(b"read")
    (folder / "told").read_bytes()
    return Document(content.decode())


ODD = Format(name="odd", read=read, names=(".odd",), is_text=True)
register(ODD)
register(Format(name="slow", read=read_slowly, names=(".slow",)))


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
