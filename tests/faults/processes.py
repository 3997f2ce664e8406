"""What the processes do that the tests kill: upload, consume, project, collect, each until SIGTERM.

Leases and deadlines are short, so that what a killed process held comes back soon.
"""

import itertools
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import anyio
from anyio.abc import TaskStatus

from chunkstore import answers, batches, connections, versions
from chunkstore.errors import Conflict, VersionFenced
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import active
from projections.collector import collect_for_ever
from projections.projector import Projector
from tests.faults.models import MODEL, Gated, Mortal
from tests.faults.searching import Reader, write_down
from tests.faults.stamped import CHUNKS, KEYS, chunks_of

COLLECTION = "files"
LEASE_SECONDS = 1.5
PACE_SECONDS = 0.1
NEW_KEYS = [f"new-{number}.md" for number in range(100)]
FEW_KEYS = KEYS[:6]
COUNTED_KEYS = [f"counted-{number}.md" for number in range(4)]

Role = Callable[[ChunkStore, str, anyio.Event], Awaitable[object]]


async def upload(
    store: ChunkStore, name: str, stop: anyio.Event, keys: Sequence[str] = KEYS, pause: float = 0
) -> None:
    """Uploads the same files again and again, as fast as it can."""
    collection = await persistently(lambda: store.collection(COLLECTION))
    draw = random.Random(Path(name).name)
    run = uuid4().hex[:6]
    for number, key in zip(itertools.count(), itertools.cycle(draw.sample(keys, len(keys))), strict=False):
        if stop.is_set():
            return
        stamp = f"{run}-{number}"
        chunks = chunks_of(key, stamp, CHUNKS + draw.randint(-5, 5))
        try:
            await persistently(partial(collection.append, key, chunks, idempotency_key=stamp))
        except VersionFenced:
            continue  # the server was away for longer than an open version may wait
        with anyio.move_on_after(pause):
            await stop.wait()


async def upload_streamed(
    store: ChunkStore, name: str, stop: anyio.Event, keys: Sequence[str] = KEYS, pause: float = 0
) -> None:
    """The same in many batches under open versions, which a kill abandons."""
    batches.BATCH_CHUNKS = 8
    versions._DEADLINE = timedelta(seconds=2 * LEASE_SECONDS)
    await upload(store, name, stop, keys, pause)


async def upload_few(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Uploads a few files at a pace at which each of them is soon active again."""
    await upload(store, name, stop, FEW_KEYS, PACE_SECONDS)


async def upload_few_streamed(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """The same in many batches."""
    await upload_streamed(store, name, stop, FEW_KEYS, PACE_SECONDS)


async def write_new(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Writes each new key at the instant at which the test lets go of its lock."""
    collection = await store.collection(COLLECTION)
    async with store.database.connection() as gate:
        for number, key in enumerate(NEW_KEYS):
            await gate.execute("SELECT pg_advisory_lock_shared(%s)", (number,))
            await collection.append(key, chunks_of(key, Path(name).name))


async def count_up(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Reads a file's number and writes the next, again and again, where nobody else did meanwhile."""
    collection = await store.collection(COLLECTION)
    draw = random.Random(Path(name).name)
    written = 0
    while not stop.is_set():
        key = draw.choice(COUNTED_KEYS)
        latest = (await collection.history(key))[-1]
        count = latest.metadata["count"] + 1
        try:
            await collection.append(
                key, chunks_of(key, str(count)), expected_version=latest.number, metadata={"count": count}
            )
        except Conflict:
            continue
        written += 1
    Path(name).with_suffix(".written").write_text(str(written))


async def consume(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await EmbeddingConsumer(store, MODEL, batch=64, lease_seconds=LEASE_SECONDS).run(stop=stop)


async def project(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    active.CHECKPOINT_SECONDS = LEASE_SECONDS
    await Projector(store, MODEL.name).run(stop=stop)


async def collect(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await collect_for_ever(store, every=0.2, stop=stop)


async def search(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Searches all the time, and writes down what it finds."""
    collection = await persistently(lambda: store.collection(COLLECTION), stop)
    keys = collection.keys()
    reader = Reader(collection, [key async for key in keys])
    while not stop.is_set():
        await reader.look(stop)
        write_down(reader.checker, Path(f"{name}.searches"))


async def consume_gated(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Embeds ten chunks at a time when the gate opens."""
    model = Gated(Path(name))
    await EmbeddingConsumer(store, model, batch=10, lease_seconds=LEASE_SECONDS).run(stop=stop)


async def consume_mortal(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Embeds eight chunks at a time, and dies of some."""
    await EmbeddingConsumer(store, Mortal(), batch=8, lease_seconds=0.5).run(stop=stop)


ROLES: dict[str, Role] = {
    "upload": upload,
    "upload-streamed": upload_streamed,
    "upload-few": upload_few,
    "upload-few-streamed": upload_few_streamed,
    "write-new": write_new,
    "count-up": count_up,
    "consume": consume,
    "consume-gated": consume_gated,
    "consume-mortal": consume_mortal,
    "project": project,
    "collect": collect,
    "search": search,
}


class Where(NamedTuple):
    """The store of a test, as its processes find it, and the folder for what they leave behind."""

    folder: Path
    schema: str
    dsn: str | None = None

    @property
    def data(self) -> Path:
        """The folder of the embedded server, where no other is named."""
        return self.folder / "data"

    async def open(self, *, migrate: bool = False) -> ChunkStore:
        data = self.data if self.dsn is None else None
        return await ChunkStore.open(self.dsn, schema=self.schema, data=data, migrate=migrate, max_size=4)


def run(role: str, where: Where, name: str, ready: Connection) -> None:
    """What a process does: one role, until SIGTERM. Its errors go to a file."""
    with (where.folder / f"{name}.stderr").open("ab") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    anyio.run(_run, role, where, name, ready)


async def _run(role: str, where: Where, name: str, ready: Connection) -> None:
    connections.IDLE_SECONDS = 2
    answers.FIRST_LOOK, answers.SECOND_LOOK = LEASE_SECONDS, LEASE_SECONDS / 3
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        await tasks.start(_stop_at_sigterm, stop, ready)
        ready.send("ready")
        async with await persistently(where.open) as store:
            await ROLES[role](store, str(where.folder / name), stop)
        tasks.cancel_scope.cancel()


async def _stop_at_sigterm(stop: anyio.Event, ready: Connection, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()
            with suppress(BrokenPipeError):
                ready.send("stopping")
