"""The process that parses and cuts files for an ingestion, so that no file can harm more than itself.

Run as `python -m chunkstore.ingest.worker`, with `chunkstore.ingest.frames` on its standard input and
output. Limited in memory by the kernel and in time by its parent; it ends when its parent does.
"""

import os
import pickle
import select
import signal
import stat
import sys
import threading
from hashlib import blake2b
from pathlib import Path
from typing import IO, Literal

import msgspec

from chunkstore.errors import ChunkstoreError, UnreadableFile
from chunkstore.ingest import frames, parsers
from chunkstore.ingest.document import Document
from chunkstore.ingest.frames import Answer, Cutter, Done, Failed, Opened, Ready, Setup, Task, Text

HASH_BYTES = 16
_READ_BYTES = 1 << 20
_TEXT_CHARACTERS = 1 << 18
_GRACE_SECONDS = 5.0
"""After which the kernel ends a worker that its parent should have killed, and could not."""


def main() -> None:
    """Answers one task after the other until standard input ends."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # there is a worker a core already
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not get among the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process at the terminal
    threading.Thread(target=_end_with_parent, daemon=True).start()
    setup = frames.read(sys.stdin.buffer, frames.questions)
    if not isinstance(setup, Setup):
        return
    worker = _Worker(setup, pipe)
    frames.write(pipe, Ready())
    while isinstance(task := frames.read(sys.stdin.buffer, frames.questions), Task):
        worker.answer(task)


def _end_with_parent() -> None:
    """Ends this process when the other end of its standard input is closed, whatever it is busy with."""
    watched = select.poll()
    watched.register(0, 0)
    watched.poll()
    os._exit(0)


class _Worker:
    """What one process does for every task."""

    def __init__(self, setup: Setup, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._seconds = setup.seconds
        self._broken: Failed | None = None
        self._cut: Cutter | None = None
        self._busy: Literal["parser", "chunker"] = "parser"
        sys.path[:] = setup.search_path
        try:
            for added in pickle.loads(setup.formats):  # noqa: S301 - our own parent pickled it
                parsers.register(added)
            if setup.chunker is not None:
                self._cut = pickle.loads(setup.chunker)  # noqa: S301
        except Exception as error:  # noqa: BLE001 - whatever their modules raise when imported
            reason = f"a parser or chunker cannot be imported in a worker process: {_told(error)}"
            self._broken = Failed(reason, fatal=True)
        _limit_memory(setup.memory)

    def answer(self, task: Task) -> None:
        """Sends the file's chunks, or why there are none."""
        if self._broken is not None:
            self._send(self._broken)
            return
        self._arm()
        self._busy = "parser"
        try:
            self._read(task)
        except ChunkstoreError as error:
            self._send(Failed(str(error)))
        except MemoryError:
            self._send(Failed("", exhausted=True))
        except BrokenPipeError:
            os._exit(0)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a parser may raise anything, and it is one file's failure
            self._send(Failed(f"the {self._busy} failed: {_told(error)}"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _read(self, task: Task) -> None:
        path = Path(os.fsdecode(task.path))
        for _ in range(2):
            before = _state(path)
            try:
                content = _hash(path)
                unwanted = content == task.known or not task.parse
                document = None if unwanted else parsers.parse(path)
            except Exception:
                if _state(path) == before:
                    raise
            else:
                if _state(path) == before:
                    break
        else:
            raise UnreadableFile("it changes while it is read")
        parser = None if document is None else document.parser
        self._send(Opened(before.size, before.mtime_ns, content, parser))
        if document is not None:
            self._busy = "chunker"
            self._send_content(document)
        self._send(Done())

    def _send_content(self, document: Document) -> None:
        if self._cut is None:
            for start in range(0, max(1, len(document.text)), _TEXT_CHARACTERS):
                text = document.text[start : start + _TEXT_CHARACTERS]
                head = document if start == 0 else Document("")
                self._send(Text(msgspec.structs.replace(head, text=text)))
            return
        for frame in frames.grouped(iter(self._cut(document))):
            self._send(frame)

    def _send(self, answer: Answer) -> None:
        # Nobody's time runs while the parent has no room for more.
        signal.setitimer(signal.ITIMER_REAL, 0)
        frames.write(self._pipe, answer)
        self._arm()

    def _arm(self) -> None:
        # With the signal's default action, which no library in an endless loop can put off.
        signal.setitimer(signal.ITIMER_REAL, self._seconds + _GRACE_SECONDS)


class _State(msgspec.Struct, frozen=True):
    """What tells that a file was written to."""

    inode: int
    size: int
    mtime_ns: int


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise UnreadableFile("no such file: it has vanished") from error
    except OSError as error:
        raise UnreadableFile(error.strerror or type(error).__name__) from error
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFile("not a regular file")
    if found.st_size > parsers.MAX_FILE_BYTES:
        most = parsers.MAX_FILE_BYTES
        raise UnreadableFile(f"{found.st_size:,} bytes are more than the {most:,} that a file may have")
    return _State(found.st_ino, found.st_size, found.st_mtime_ns)


def _hash(path: Path) -> bytes:
    """The BLAKE2b of the content, 16 bytes."""
    hashed = blake2b(digest_size=HASH_BYTES)
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_READ_BYTES):
                hashed.update(block)
    except OSError as error:
        raise UnreadableFile(error.strerror or type(error).__name__) from error
    return hashed.digest()


def _limit_memory(size: int) -> None:
    """Lets this process take `size` bytes more than it has."""
    import resource

    # Linux counts private writable memory as data; other systems only heed the address space, if anything.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    for limit, value in ((kind, size + _data_in_use()), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):
            continue  # the administrator's limit is lower, or the system has none


def _data_in_use() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _told(error: BaseException) -> str:
    """The error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


if __name__ == "__main__":
    main()
