"""The simplest race of all: two processes write the same file at the same instant."""

import pytest

from chunkstore.collection import Collection
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import until, value
from tests.faults.fix_processes import Fleet
from tests.faults.models import MODEL
from tests.faults.processes import COUNTED_KEYS, NEW_KEYS
from tests.faults.stamped import broken, chunks_of

WAITING = "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND objid = {} AND NOT granted"


async def every_file_is_whole(store: ChunkStore, files: Collection, keys: list[str]) -> None:
    """Drains, and searches for everything."""
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)
    assert (await verify(store)).broken == []
    hits = await files.search(MODEL.embed(["file chunk upload"])[0], k=4000)
    assert broken(hits, keys) == []


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_two_processes_write_the_same_new_key_a_hundred_times(
    store: ChunkStore, files: Collection, fleet: Fleet
) -> None:
    async with store.database.connection() as gate:
        await gate.execute("SELECT pg_advisory_lock(n) FROM generate_series(0, 99) AS n")
        fleet.start("write-new", 2)
        for number in range(len(NEW_KEYS)):
            await until(store, WAITING.format(number))
            await gate.execute("SELECT pg_advisory_unlock(%s)", (number,))
    for process in fleet.processes.values():
        assert await process.ended() == 0, process.errors
    assert await value(store, "SELECT count(*) FROM versions") == 2 * len(NEW_KEYS)
    assert await value(store, "SELECT count(*) FROM files WHERE latest = 2 AND target = 2") == len(NEW_KEYS)
    await every_file_is_whole(store, files, NEW_KEYS)


async def writers_that_expect_a_version(
    store: ChunkStore, files: Collection, fleet: Fleet, versions: int
) -> None:
    """Two processes count up the same files until they have written so many versions."""
    for key in COUNTED_KEYS:
        await files.append(key, chunks_of(key, "0"), metadata={"count": 0})
    fleet.start("count-up", 2)
    await until(store, f"SELECT sum(last_version) >= {versions} FROM files", seconds=120)
    await fleet.stop()
    written = [int((fleet.where.folder / f"{name}.written").read_text()) for name in fleet.processes]
    counts = [(await files.history(key))[-1].metadata["count"] for key in COUNTED_KEYS]
    assert min(written) > 0, "one process never got its turn: nothing was put to the test"
    assert sum(counts) == sum(written)
    await every_file_is_whole(store, files, COUNTED_KEYS)


async def test_no_update_of_a_writer_that_expects_a_version_is_lost(
    store: ChunkStore, files: Collection, fleet: Fleet
) -> None:
    await writers_that_expect_a_version(store, files, fleet, 200)


@pytest.mark.soak
@pytest.mark.timeout(180)
async def test_no_such_update_is_lost_in_a_minute(store: ChunkStore, files: Collection, fleet: Fleet) -> None:
    await writers_that_expect_a_version(store, files, fleet, 5000)
