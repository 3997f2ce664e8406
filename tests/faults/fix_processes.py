"""Fixtures that give a server of the test's own, a store on it, and real processes around it to be killed."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest

from chunkstore.collection import Collection
from chunkstore.store import ChunkStore
from tests.faults.models import MODEL
from tests.faults.processes import COLLECTION, Where, run
from tests.forked import FORKED

EXIT_SECONDS = 40


class Process:
    """One process with a role of `tests.faults.processes`, which can be killed and started again."""

    def __init__(self, role: str, where: Where, name: str) -> None:
        self.role = role
        self.name = name
        self._where = where
        self.restart()

    def restart(self) -> None:
        self._ready, ready = FORKED.Pipe(duplex=False)
        self.running = FORKED.Process(
            target=run, args=(self.role, self._where, self.name, ready), daemon=True
        )
        self.running.start()
        ready.close()

    def kill(self) -> None:
        """`kill -9`. Fails where the process had ended by itself."""
        assert self.running.is_alive(), f"{self.name} ended by itself: {self.errors}"
        self.end()

    def end(self) -> None:
        """`kill -9`, whatever it is doing."""
        self.running.kill()
        self.running.join()
        self._ready.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.running.pid is not None
        os.kill(self.running.pid, number)

    async def terminate(self) -> None:
        """Asks the process to stop, once it listens; returns when it has heard that."""
        await anyio.to_thread.run_sync(self._ready.recv)
        self.running.terminate()
        with suppress(EOFError):
            await anyio.to_thread.run_sync(self._ready.recv)

    async def ended(self) -> int | None:
        """How the process ended."""
        await anyio.to_thread.run_sync(self.running.join, EXIT_SECONDS, abandon_on_cancel=True)
        return self.running.exitcode

    async def stop(self) -> None:
        """Asks the process to stop; it has to end cleanly."""
        await self.terminate()
        status = await self.ended()
        assert status == 0, f"{self.name} ended with {status}: {self.errors}"

    @property
    def errors(self) -> str:
        return (self._where.folder / f"{self.name}.stderr").read_text(errors="replace")[-4000:]


class Fleet:
    """The processes of one test, by name, and the store that they use."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self.processes: dict[str, Process] = {}

    def start(self, role: str, count: int = 1) -> Process:
        """Starts processes of a role; returns the last."""
        for number in range(1, count + 1):
            name = f"{role}-{number}"
            self.processes[name] = Process(role, self.where, name)
        return self.processes[f"{role}-{count}"]

    def resume(self) -> int:
        """Starts again what was stopped or ended; returns how many."""
        ended = [process for process in self.processes.values() if not process.running.is_alive()]
        for process in ended:
            process.restart()
        return len(ended)

    async def stop(self, role: str | None = None) -> None:
        """Stops the processes of a role, or all."""
        for process in self.processes.values():
            if role in (None, process.role) and process.running.is_alive():
                await process.stop()

    def kill_server(self) -> None:
        """`kill -9` of the server's first process; who needs the server next starts it again."""
        self.stop_server(signal.SIGKILL)

    def stop_server(self, number: signal.Signals) -> None:
        """Sends the signal to the server's first process: SIGQUIT stops in immediate mode."""
        pid = int((self.where.data / "postgres/postmaster.pid").read_text().split()[0])
        psutil.Process(pid).send_signal(number)

    @property
    def log(self) -> str:
        """The server's log."""
        return (self.where.data / "postgres/server.log").read_text(errors="replace")

    def end(self) -> None:
        for process in self.processes.values():
            process.end()


@pytest.fixture
def fleet(tmp_path: Path, dsn: str, schema: str) -> Iterator[Fleet]:
    """Processes of the test's store on the session's server; whatever was started is killed at the end."""
    made = Fleet(Where(tmp_path, schema, dsn))
    yield made
    made.end()


@pytest.fixture
def besieged() -> Iterator[Fleet]:
    """Processes on a server of their own, which may be killed as well, and whose log is theirs alone."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-faults-") as folder:
        made = Fleet(Where(Path(folder), "faults"))
        yield made
        made.end()


@pytest.fixture
async def besieged_store(besieged: Fleet) -> AsyncIterator[ChunkStore]:
    """The test's own use of the store of `besieged`."""
    async with await besieged.where.open(migrate=True) as opened:
        yield opened


@pytest.fixture
async def besieged_files(besieged_store: ChunkStore) -> Collection:
    """The collection that the processes work on."""
    return await besieged_store.collection(COLLECTION, model=MODEL, keep_last=2)


@pytest.fixture
async def files(store: ChunkStore) -> Collection:
    """The collection that the processes of `fleet` work on."""
    return await store.collection(COLLECTION, model=MODEL)
