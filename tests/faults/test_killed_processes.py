"""Processes and the server die with `kill -9` under full load; searches stay whole and nothing is lost."""

import itertools

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import ALL_ACTIVE, until, value
from tests.faults.fix_processes import Fleet
from tests.faults.models import MODEL
from tests.faults.stamped import KEYS, broken, chunks_of

EVERYTHING = 2000


class Reader:
    """Searches for everything again and again, and keeps what it saw that must not be."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.searches = 0
        self.faults: list[str] = []
        self.seen: set[tuple[str, int]] = set()

    async def run(self) -> None:
        (query,) = MODEL.embed(["file chunk upload"])
        while True:
            hits = await persistently(lambda: self._collection.search(query, k=EVERYTHING))
            self.searches += 1
            self.faults += broken(hits)
            self.seen |= {(hit.key, hit.version) for hit in hits}


async def all_whole_and_active(store: ChunkStore, collection: Collection) -> None:
    """Gives the reader a first version of every file to see."""
    for key in KEYS:
        await collection.append(key, chunks_of(key, "first"))
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)


async def nothing_is_broken(store: ChunkStore) -> None:
    """Drains what the processes left, and verifies every invariant, those of a drained store too."""
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)
    report = await verify(store)
    assert report.broken == []
    assert [check.name for check in report.checks if check.skipped] == []


def violations(fleet: Fleet) -> list[str]:
    return [line for line in fleet.log.splitlines() if "violates" in line or "duplicate key" in line]


@pytest.mark.timeout(150)
async def test_one_process_is_killed_every_second_and_no_search_sees_it(
    besieged: Fleet, besieged_store: ChunkStore, besieged_files: Collection
) -> None:
    fleet, store, collection = besieged, besieged_store, besieged_files
    await all_whole_and_active(store, collection)
    fleet.start("upload")
    fleet.start("upload-streamed")
    fleet.start("consume", 3)
    fleet.start("project")
    fleet.start("collect")
    reader = Reader(collection)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.run)
        for victim in itertools.islice(itertools.cycle(fleet.processes.values()), 10):
            await anyio.sleep(1)  # the pace of the killing, not a wait for something
            victim.kill()
            victim.restart()
        await fleet.stop("upload")
        await fleet.stop("upload-streamed")
        await until(store, ALL_ACTIVE)
        tasks.cancel_scope.cancel()
    await fleet.stop()

    assert reader.faults == []
    assert len(reader.seen) > 2 * len(KEYS), (
        "the reader hardly saw a new version: nothing was put to the test"
    )
    assert violations(fleet) == []
    await collect(store)
    await nothing_is_broken(store)


async def test_the_server_is_killed_and_everything_goes_on(
    besieged: Fleet, besieged_store: ChunkStore, besieged_files: Collection
) -> None:
    fleet, store, collection = besieged, besieged_store, besieged_files
    await all_whole_and_active(store, collection)
    for role in ("upload", "consume", "project", "collect"):
        fleet.start(role)
    reader = Reader(collection)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader.run)
        await until(store, f"SELECT count(*) >= {2 * len(KEYS)} FROM versions")
        fleet.kill_server()
        before = await value(store, "SELECT max(last_version) FROM files")
        await until(store, f"SELECT min(last_version) > {before} FROM files")
        await fleet.stop("upload")
        await until(store, ALL_ACTIVE)
        tasks.cancel_scope.cancel()
    await fleet.stop()

    assert reader.faults == []
    assert violations(fleet) == []
    await nothing_is_broken(store)
