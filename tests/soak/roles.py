"""What the processes of the soak do, beside those of the fault tests; leases and deadlines are short."""

import asyncio
import faulthandler
import signal
import sys
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio

from chunkstore import append, batches, versions
from chunkstore.errors import UnknownModel
from chunkstore.models.hashing import HashingModel
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import active, indexes
from projections.projector import Projector
from tests.faults.models import MODEL
from tests.faults.processes import COLLECTION, LEASE_SECONDS, ROLES, Role, Where, collect, project, run
from tests.soak.contents import BATCH_CHUNKS, SENT_EARLY_FROM
from tests.soak.moods import OTHER, Moody
from tests.soak.operating import Operator
from tests.soak.reading import SoakReader
from tests.soak.writing import Writer

MOOD = "mood"
CONSUMED_AT_ONCE = 48
INDEX_FROM_ROWS = 200
"""So that indexes are built and rebuilt under way. A search for everything does not go by them."""
LOOK_SECONDS = 0.5


async def write(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    batches.BATCH_CHUNKS, append.SENT_EARLY_FROM = BATCH_CHUNKS, SENT_EARLY_FROM
    versions._DEADLINE = timedelta(seconds=2 * LEASE_SECONDS)
    await Writer(await persistently(lambda: store.collection(COLLECTION), stop), name, stop).run()


async def read(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await SoakReader(await persistently(lambda: store.collection(COLLECTION), stop), name, stop).run()


async def operate(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await Operator(store, name, stop).run()


async def embed(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await _consume(store, MODEL, name, stop)


async def embed_other(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    await _consume(store, OTHER, name, stop)


async def project_other(store: ChunkStore, name: str, stop: anyio.Event) -> None:
    active.CHECKPOINT_SECONDS = LEASE_SECONDS
    while not stop.is_set():
        try:
            await Projector(store, OTHER.name).run(stop=stop)
        except UnknownModel:
            await anyio.sleep(LOOK_SECONDS)


async def _consume(store: ChunkStore, like: HashingModel, name: str, stop: anyio.Event) -> None:
    model = Moody(like.dimensions, Path(name).with_name(MOOD))
    while not stop.is_set():
        consumer = EmbeddingConsumer(store, model, batch=CONSUMED_AT_ONCE, lease_seconds=LEASE_SECONDS)
        try:
            await consumer.run(stop=stop)
        except UnknownModel:
            await anyio.sleep(LOOK_SECONDS)


def telling(role: Role) -> Role:
    """The role, which says at SIGUSR1 what each of its tasks waits for: for a process that hangs."""

    async def told(store: ChunkStore, name: str, stop: anyio.Event) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
        await role(store, name, stop)

    return told


def tell() -> None:
    """Prints where each task and each thread stands."""
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        print(f"task {task.get_name()}:", file=sys.stderr)
        while frame := getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None):
            print(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}", file=sys.stderr)
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    sys.stderr.flush()
    faulthandler.dump_traceback()


SOAKED: dict[str, Role] = {
    "write": write,
    "read": read,
    "operate": operate,
    "embed": embed,
    "embed-other": embed_other,
    "project": project,
    "project-other": project_other,
    "collect": collect,
}


def run_soaked(role: str, where: Where, name: str, ready: Connection) -> None:
    """What a process of the soak does."""
    indexes.INDEX_FROM_ROWS = INDEX_FROM_ROWS
    ROLES.update({name: telling(role) for name, role in SOAKED.items()})
    run(role, where, name, ready)
