"""Fixtures that give a server of the test's own, a store on it, and real processes around it to be killed."""

import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import psutil
import pytest

from chunkstore.store import ChunkStore, Collection
from tests.faults.processes import COLLECTION, MODEL, SCHEMA, run

EXIT_SECONDS = 20

# Forked from a process that has imported everything already, so that a restart takes no second.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.faults.processes"])


class Process:
    """One process with a role of `tests.faults.processes`, which can be killed and started again."""

    def __init__(self, role: str, folder: Path, name: str) -> None:
        self.role = role
        self.name = name
        self._folder = folder
        self.restart()

    def restart(self) -> None:
        self._ready, ready = FORKED.Pipe(duplex=False)
        self.running = FORKED.Process(
            target=run, args=(self.role, self._folder, self.name, ready), daemon=True
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

    async def stop(self) -> None:
        """Asks the process to stop; it has to end cleanly."""
        await anyio.to_thread.run_sync(self._ready.recv)
        self.running.terminate()
        await anyio.to_thread.run_sync(self.running.join, EXIT_SECONDS)
        status = self.running.exitcode
        assert status == 0, f"{self.name} ended with {status}: {self.errors}"

    @property
    def errors(self) -> str:
        return (self._folder / f"{self.name}.stderr").read_text(errors="replace")[-4000:]


class Fleet:
    """The processes of one test, by name, and the server that they use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}

    def start(self, role: str, count: int = 1) -> None:
        for number in range(1, count + 1):
            name = f"{role}-{number}"
            self.processes[name] = Process(role, self.folder, name)

    async def stop(self, role: str | None = None) -> None:
        """Stops the processes of a role, or all."""
        for process in self.processes.values():
            if role in (None, process.role) and process.running.is_alive():
                await process.stop()

    def kill_server(self) -> None:
        """`kill -9` of the server's first process; who needs the server next starts it again."""
        pid = int((self.folder / "data/postgres/postmaster.pid").read_text().split()[0])
        psutil.Process(pid).kill()

    @property
    def log(self) -> str:
        """The server's log."""
        return (self.folder / "data/postgres/server.log").read_text(errors="replace")

    def end(self) -> None:
        for process in self.processes.values():
            process.end()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Nothing yet, in a folder of its own; whatever was started is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-faults-") as folder:
        made = Fleet(Path(folder))
        yield made
        made.end()


@pytest.fixture
async def store(fleet: Fleet) -> AsyncIterator[ChunkStore]:
    """The test's own use of the store, on an embedded server of its own."""
    async with await ChunkStore.open(data=fleet.folder / "data", schema=SCHEMA, migrate=True) as opened:
        yield opened


@pytest.fixture
async def collection(store: ChunkStore) -> Collection:
    return await store.collection(COLLECTION, model=MODEL, keep_last=2)
