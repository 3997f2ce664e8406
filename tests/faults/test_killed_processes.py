"""Processes and the server die with `kill -9` under full load; searches stay whole and nothing is lost."""

import itertools

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.store import ChunkStore
from projections.collector import collect
from tests.faults.asking import ALL_ACTIVE, until, value
from tests.faults.fix_processes import Fleet
from tests.faults.searching import Reader
from tests.faults.siege import all_whole_and_active, nothing_is_broken, violations
from tests.faults.stamped import KEYS


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

    assert reader.checker.faults == []
    assert reader.checker.switches > len(KEYS), (
        "the reader hardly saw a new version: nothing was put to the test"
    )
    assert violations(fleet.log) == []
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

    assert reader.checker.faults == []
    assert violations(fleet.log) == []
    await nothing_is_broken(store)
