"""A machine whose clock is a day off takes part: every deadline is the database's, so nothing ends too early.

The clock is libfaketime's, for one process.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from chunkstore import leases
from chunkstore.collection import Collection
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from projections.verify import verify
from tests.faults.asking import eventually, until, value, values
from tests.faults.models import MODEL
from tests.faults.searching import Checker
from tests.faults.stamped import chunks_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(100)]

DAY_OFF = pytest.mark.parametrize("clock", ["+1d", pytest.param("-1d", marks=pytest.mark.soak)])


@pytest.fixture(scope="module")
def library() -> Path:
    """The library that gives a process another clock."""
    installed = find_spec("libfaketime")
    assert installed is not None
    assert installed.origin is not None
    (found,) = Path(installed.origin).parent.rglob("libfaketime.so.1")
    return found


class Elsewhere:
    """A machine with a clock of its own, that runs commands on the store."""

    def __init__(self, library: Path, dsn: str, schema: str, clock: str) -> None:
        self._env = os.environ | {
            "LD_PRELOAD": str(library),
            "FAKETIME": clock,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "CHUNKSTORE_DSN": dsn,
            "CHUNKSTORE_SCHEMA": schema,
        }

    async def python(self, *arguments: str) -> str:
        """What Python prints there."""
        run = partial(subprocess.run, [sys.executable, *arguments], env=self._env, capture_output=True)
        done = await to_thread.run_sync(partial(run, text=True, check=False))
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def chunkstore(self, *arguments: str) -> str:
        """What a command prints there."""
        return await self.python("-m", "chunkstore.cli", *arguments)


@DAY_OFF
async def test_a_clock_that_is_a_day_off_ends_no_lease_no_open_version_and_no_retention(
    store: ChunkStore, dsn: str, schema: str, library: Path, clock: str
) -> None:
    there = Elsewhere(library, dsn, schema, clock)
    off = float(await there.python("-c", "import time; print(time.time())")) - await value(
        store, "SELECT extract(epoch FROM clock_timestamp())::float8"
    )
    assert abs(abs(off) - 86_400) < 60, "the clock was right: nothing was put to the test"

    files = await store.collection("files", model=MODEL, keep_last=1, keep_for=timedelta(hours=12))
    for number in range(3):
        await files.append("kept", [Chunk(f"text number {number}")])
    async with store.database.transaction() as conn:
        group = leases.embedding_group(files._serving.model)
        held = await leases.claim(conn, group, batch=1, seconds=60, owner="test")
    assert held is not None
    began, go = anyio.Event(), anyio.Event()

    async def slowly() -> AsyncIterator[Chunk]:
        for number in range(3):
            yield Chunk(f"streamed {number}")
        began.set()
        await go.wait()

    async with anyio.create_task_group() as tasks:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("chunkstore.batches.BATCH_CHUNKS", 1)
            tasks.start_soon(files.append, "streamed", slowly())
            await began.wait()
            await there.chunkstore("gc")
            assert await value(store, "SELECT count(*) FROM versions WHERE state = 'open'") == 1
            assert await value(store, "SELECT count(*) FROM versions WHERE state = 'committed'") == 3
            go.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(there.chunkstore, "consume", "--drain")
        await until(store, "SELECT count(*) = 4 FROM embeddings", seconds=60)
        async with store.database.transaction() as conn:
            await leases.release(conn, held)  # LeaseLost where the other clock had ended it
    await there.chunkstore("project", "--drain")
    hits = await files.search(MODEL.embed(["text number"])[0])
    assert {(hit.key, hit.content) for hit in hits} == {
        ("kept", "text number 2"),
        *(("streamed", f"streamed {number}") for number in range(3)),
    }
    assert (await verify(store)).broken == []


@DAY_OFF
async def test_a_lease_of_a_machine_whose_clock_is_off_ends_by_the_databases_clock(
    store: ChunkStore, dsn: str, schema: str, library: Path, clock: str
) -> None:
    files = await store.collection("files", model=MODEL)
    await files.append("doc", [Chunk("text")])
    await Elsewhere(library, dsn, schema, clock).chunkstore("consume", "--drain")
    (left,) = await values(
        store, "SELECT extract(epoch FROM expires - clock_timestamp())::float8 FROM leases"
    )
    assert 0 < left <= 60


def seen(searched: Checker, version: int) -> Callable[[], Awaitable[bool]]:
    """Whether the last search saw the version of `doc`."""

    async def look() -> bool:
        return searched.newest["doc"] == version

    return look


@DAY_OFF
async def test_searches_see_every_file_whole_while_machines_whose_clock_is_off_do_the_work(
    store: ChunkStore,
    files: Collection,
    searched: Checker,
    dsn: str,
    schema: str,
    library: Path,
    clock: str,
) -> None:
    there = Elsewhere(library, dsn, schema, clock)
    for stamp in "abcde":  # more than are kept
        version = await files.append("doc", chunks_of("doc", stamp))
        await there.chunkstore("consume", "--drain")
        await there.chunkstore("project", "--drain")
        await eventually(seen(searched, version.number), "somebody searched the new version", seconds=10)
    await there.chunkstore("gc")
    assert await value(store, "SELECT count(*) FROM versions WHERE state = 'collected'") == 3
