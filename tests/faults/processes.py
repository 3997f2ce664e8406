"""What the processes do that the tests kill: upload, consume, project, collect, each until SIGTERM.

Leases and deadlines are short, so that what a killed process held comes back soon.
"""

import itertools
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import anyio
from anyio.abc import TaskStatus

from chunkstore import append, versions
from chunkstore.errors import VersionFenced
from chunkstore.models.hashing import HashingModel
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import projector
from projections.collector import collect_for_ever
from projections.projector import Projector
from tests.faults.stamped import CHUNKS, KEYS, chunks_of

MODEL = HashingModel(32)
SCHEMA = "faults"
COLLECTION = "files"
LEASE_SECONDS = 1.5

Role = Callable[[ChunkStore, str, anyio.Event], Awaitable[object]]


async def upload(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """Uploads the same files again and again, as fast as it can."""
    collection = await persistently(lambda: store.collection(COLLECTION))
    draw = random.Random(name)
    run = uuid4().hex[:6]
    for number, key in zip(itertools.count(), itertools.cycle(draw.sample(KEYS, len(KEYS))), strict=False):
        if stop.is_set():
            return
        stamp = f"{name}-{run}-{number}"
        chunks = chunks_of(key, stamp, CHUNKS + draw.randint(-5, 5))
        try:
            await persistently(partial(collection.append, key, chunks, idempotency_key=stamp))
        except VersionFenced:
            continue  # the server was away for longer than an open version may wait


async def upload_streamed(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    """The same in many batches under open versions, which a kill abandons."""
    append.BATCH_CHUNKS = 8
    versions._DEADLINE = timedelta(seconds=2 * LEASE_SECONDS)
    await upload(store, name, stop)


async def consume(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await EmbeddingConsumer(store, MODEL, batch=64, lease_seconds=LEASE_SECONDS).run(stop=stop)


async def project(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    projector._LEASE_SECONDS = LEASE_SECONDS
    await Projector(store, MODEL.name).run(stop=stop)


async def collect(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await collect_for_ever(store, every=0.2, stop=stop)


ROLES: dict[str, Role] = {
    "upload": upload,
    "upload-streamed": upload_streamed,
    "consume": consume,
    "project": project,
    "collect": collect,
}


def run(role: str, folder: Path, name: str, ready: Connection) -> None:
    """What a process does: one role, until SIGTERM. Its errors go to a file."""
    with (folder / f"{name}.stderr").open("ab") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    anyio.run(_run, ROLES[role], folder / "data", name, ready)


async def _run(role: Role, data: Path, name: str, ready: Connection) -> None:
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        await tasks.start(_stop_at_sigterm, stop)
        ready.send("ready")
        store = await persistently(lambda: ChunkStore.open(data=data, schema=SCHEMA, max_size=4))
        async with store:
            await role(store, name, stop)
        tasks.cancel_scope.cancel()


async def _stop_at_sigterm(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()
