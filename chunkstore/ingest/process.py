"""One process that reads files, as the ingestion sees it: started, asked, timed, and mourned with a reason.

Its answers are waited for in a thread, which the death of the process always ends.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import IO

import anyio
import msgspec
from anyio import CapacityLimiter, to_thread

from chunkstore import environment
from chunkstore.errors import InvalidInput, UnreadableFile, WorkerFailed
from chunkstore.ingest import frames
from chunkstore.ingest.frames import Answer, Ready, Setup, Task

_GIB = 1 << 30
_LEAST_SECONDS, _LEAST_MEMORY = 0.1, 64 << 20


class Limits(msgspec.Struct, frozen=True):
    """What one file may cost: `seconds` until its next chunks, and `memory` in bytes."""

    seconds: float = 60.0
    memory: int = _GIB

    def __post_init__(self) -> None:
        if not self.seconds >= _LEAST_SECONDS:
            raise InvalidInput("seconds", self.seconds, f"a number from {_LEAST_SECONDS} on")
        if not self.memory >= _LEAST_MEMORY:
            raise InvalidInput("memory", self.memory, f"a number of bytes from {_LEAST_MEMORY:,} on")

    @property
    def readable_memory(self) -> str:
        """The memory as a person reads it: `1 GiB`."""
        return f"{self.memory / _GIB:g} GiB" if self.memory >= _GIB else f"{self.memory / (1 << 20):g} MiB"


class Died(UnreadableFile):
    """The worker is dead; `was_used`: it had read other files before, so this one may not be why."""

    def __init__(self, reason: str, *, was_used: bool = False) -> None:
        super().__init__(reason)
        self.was_used = was_used


class WorkerProcess:
    """One process, which reads one file after the other."""

    def __init__(self, setup: Setup, limits: Limits, threads: CapacityLimiter) -> None:
        self._setup = setup
        self._limits = limits
        self._threads = threads
        self._is_ready = False
        self._tasks = 0

    async def start(self) -> None:
        """Starts the process; that it is ready is read with its first answer."""
        self._process = await to_thread.run_sync(_started, self._setup, limiter=self._threads)
        self._read_answer = partial(frames.read, _pipe(self._process.stdout), frames.answers)

    def ask(self, task: Task) -> None:
        """Gives the worker a file. Small, so it never waits; a dead worker shows in the answer."""
        self._tasks += 1
        with suppress(BrokenPipeError):
            frames.write(_pipe(self._process.stdin), task)

    async def next(self) -> Answer:
        """The next answer. Raises Died where there is none in time or the process has ended."""
        answer = await self._read()
        if isinstance(answer, Ready):
            self._is_ready = True
            answer = await self._read()
        return answer

    async def _read(self) -> Answer:
        try:
            with anyio.fail_after(self._limits.seconds):
                answer = await to_thread.run_sync(
                    self._read_answer, abandon_on_cancel=True, limiter=self._threads
                )
        except TimeoutError:
            await self.kill()
            raise Died(self._out_of_time()) from None
        if answer is None:
            await self.kill()
            raise self._dead()
        return answer

    async def exhausted(self) -> Died:
        """What a file has done that needed too much memory; the worker, whose memory is full, goes."""
        await self.kill()
        reason = f"needed more than {self._limits.readable_memory} of memory"
        return Died(reason, was_used=self._tasks > 1)

    async def kill(self) -> None:
        """Ends the process, whatever it does."""
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_ended, self._process)

    def _out_of_time(self) -> str:
        return f"parser killed after {self._limits.seconds:g} s"

    def _dead(self) -> Exception:
        code = self._process.returncode
        if not self._is_ready:
            return WorkerFailed(
                f"a worker process ended with {code} before it was ready;"
                f" `{sys.executable} -m chunkstore.ingest.worker` may say why"
            )
        if code == -signal.SIGALRM:
            return Died(self._out_of_time())
        if code < 0:
            return Died(f"parser crashed: {signal.Signals(-code).name}", was_used=self._tasks > 1)
        return Died(f"parser ended its process with exit code {code}", was_used=self._tasks > 1)


def _started(setup: Setup) -> "subprocess.Popen[bytes]":
    variables = environment.of_parsers() | {"PYTHONPATH": os.pathsep.join(setup.search_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "chunkstore.ingest.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
    )
    with suppress(BrokenPipeError):  # it is dead already, which its first answer says
        frames.write(_pipe(process.stdin), setup)
    return process


def _ended(process: "subprocess.Popen[bytes]") -> None:
    process.poll()
    if process.returncode is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            _pipe(pipe).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "every process is started with both"
    return pipe
