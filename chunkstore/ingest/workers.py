"""The processes that read files for an ingestion: started when there is work, replaced when they die.

A file that hangs, needs too much memory or crashes what reads it is that file's failure and nothing more.
A worker that was busy before is not believed at once: the file is tried again in a new one.
"""

import os
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from anyio import CapacityLimiter, Semaphore

from chunkstore.errors import InvalidInput, UnreadableFile, WorkerFailed
from chunkstore.ingest import parsers
from chunkstore.ingest.document import Document
from chunkstore.ingest.frames import Answer, Cut, Done, Failed, Opened, Setup, Task, Text
from chunkstore.ingest.process import Died, Limits, WorkerProcess
from chunkstore.model import Chunk


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """At most `most` processes, one a core unless said otherwise. Ended by the end of an `async with`.

    `chunker` is sent to them. One that cannot be sent (a lambda, a function of the script that runs)
    is not: `cuts` is False then, and a reading gives the document.
    """

    def __init__(self, chunker: object, limits: Limits, *, most: int | None = None) -> None:
        pickled = _pickled(chunker)
        self.cuts = pickled is not None
        self.most = most or cores()
        self._setup = Setup(
            search_path=[os.fspath(path) for path in sys.path],
            formats=_formats(),
            chunker=pickled,
            seconds=limits.seconds,
            memory=limits.memory,
        )
        self._limits = limits
        self._room = Semaphore(self.most)
        # Threads of their own: a reading that is abandoned keeps its thread until its process is dead.
        self._threads = CapacityLimiter(2 * self.most + 2)
        self._idle: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._idle:
            await worker.kill()
        self._idle.clear()

    @asynccontextmanager
    async def reading(self, task: Task) -> "AsyncIterator[Reading]":
        """The file while it is read. Raises UnreadableFile; WorkerFailed where no worker can be used."""
        await self._room.acquire()
        reading = Reading(self)
        try:
            await reading.begin(task)
            yield reading
        finally:
            await reading.end()

    async def take(self) -> WorkerProcess:
        """A worker that nobody uses, or a new one; the caller has room for it."""
        if self._idle:
            return self._idle.pop()
        start = WorkerProcess(self._setup, self._limits, self._threads)
        await start.start()
        return start

    def give_back(self, worker: WorkerProcess | None) -> None:
        """Ends the use of a worker; None where it is dead."""
        if worker is not None:
            self._idle.append(worker)
        self._room.release()


class Reading:
    """One file that a worker reads. `opened` says how the file stood; its parts come once, in order."""

    opened: Opened

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._worker: WorkerProcess | None = None
        self._has_room = True

    async def begin(self, task: Task) -> None:
        """Reads the file's first answer."""
        try:
            answer = await self._first(task)
        except Died as error:
            if not error.was_used:
                raise
            answer = await self._first(task)
        assert isinstance(answer, Opened), "a file's first answer"
        self.opened = answer

    async def _first(self, task: Task) -> Answer:
        self._worker = await self._workers.take()
        self._worker.ask(task)
        return await self._next()

    async def frames(self) -> AsyncIterator[list[Chunk]]:
        """The file's chunks, some hundreds at a time."""
        while isinstance(answer := await self._next(), Cut):
            yield answer.chunks

    async def document(self) -> Document:
        """The file's document, whole."""
        parts: list[Document] = []
        while isinstance(answer := await self._next(), Text):
            parts.append(answer.document)
        return msgspec.structs.replace(parts[0], text="".join(part.text for part in parts))

    async def done(self) -> None:
        """Reads the end of a file of which nothing more is wanted."""
        while not isinstance(await self._next(), Done):
            pass

    async def _next(self) -> Answer:
        assert self._worker is not None
        try:
            answer = await self._worker.next()
        except Died:
            self._worker = None
            raise
        if isinstance(answer, Done | Failed):
            worker, self._worker = self._worker, None
            if isinstance(answer, Failed) and answer.exhausted:
                raise await worker.exhausted()
            self._release(worker)
        if isinstance(answer, Failed):
            if answer.fatal:
                raise WorkerFailed(answer.reason)
            raise UnreadableFile(answer.reason)
        return answer

    async def end(self) -> None:
        """Kills the worker if the file was not read to its end: nobody wants what it has to say."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.kill()
        self._release(None)

    def _release(self, worker: WorkerProcess | None) -> None:
        if self._has_room:
            self._has_room = False
            self._workers.give_back(worker)


def _formats() -> bytes:
    """The formats registered here, pickled. Raises InvalidInput for one that cannot be sent."""
    own = parsers.own_formats()
    for added in own:
        if _pickled(added) is None:
            allowed = "its `read` has to be a function of a module that a worker process can import"
            raise InvalidInput("format", added.name, allowed)
    return pickle.dumps(own)


def _pickled(value: Any) -> bytes | None:
    """The value for another process, or None where that could not find its functions."""
    try:
        pickled = pickle.dumps(value)
    except Exception:  # noqa: BLE001 - which error depends on the value's own methods
        return None
    return None if b"__main__" in pickled else pickled
