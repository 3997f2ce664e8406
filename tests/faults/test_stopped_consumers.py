"""Real consumer processes that are asked to stop, frozen past their lease, or killed by a chunk."""

import signal

import anyio
import pytest
from psycopg.conninfo import make_conninfo

from chunkstore import leases
from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import MAX_ATTEMPTS, EmbeddingConsumer
from tests.faults.asking import until, value, values
from tests.faults.fix_processes import Fleet, Process
from tests.faults.fix_searched import EMBEDDED, EMBEDDED_EVENTS, TWO_LISTEN, UNFINISHED
from tests.faults.models import BAD, MODEL
from tests.faults.searching import Checker
from tests.faults.stamped import numbered

ONE_IN_HAND = f"SELECT count(*) = 1 FROM {UNFINISHED} AND owner IS NOT NULL"
TWO_IN_HAND = f"SELECT count(*) = 2 FROM {UNFINISHED} AND owner IS NOT NULL"

EMBEDDINGS_LOGGED = "SELECT e::text FROM events e WHERE type = 'chunks_embedded'"

under_the_checker = pytest.mark.usefixtures("searched")
"""Searches go on, and a version of `doc` is there already."""


def open_gate(fleet: Fleet, process: Process) -> None:
    (fleet.where.folder / f"{process.name}.go").touch()


@under_the_checker
async def test_sigterm_finishes_the_range_in_the_model_and_gives_back_what_is_only_read(
    fleet: Fleet, store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(30))
    process = fleet.start("consume-gated")
    await until(store, TWO_IN_HAND)
    await process.terminate()
    open_gate(fleet, process)
    assert await process.ended() == 0, process.errors
    assert await value(store, EMBEDDED) == 10
    assert await values(store, f"SELECT (hi - lo, owner, epoch, attempts)::text FROM {UNFINISHED}") == [
        "(10,,1,0)"
    ]
    report = await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert report.embedded == 20


@under_the_checker
async def test_sigterm_ends_a_consumer_that_waits_for_work(
    fleet: Fleet, store: ChunkStore, files: Collection
) -> None:
    process = fleet.start("consume")
    await until(store, TWO_LISTEN)
    await process.stop()


@pytest.mark.parametrize("role", ["consume", "project", "collect"])
async def test_sigterm_ends_a_process_whose_server_is_gone(
    besieged: Fleet, besieged_store: ChunkStore, besieged_files: Collection, role: str
) -> None:
    # By its address nobody starts the server again.
    address = make_conninfo(EmbeddedServer(besieged.where.data).dsn.conninfo(), application_name=role)
    process = Process(role, besieged.where._replace(dsn=address), role)
    # Connections of a pool end with a COMMIT: it is past its beginning, and looks for work.
    at_work = (
        f"SELECT count(*) > 0 FROM pg_stat_activity WHERE (application_name, query) = ('{role}', 'COMMIT')"
    )
    await until(besieged_store, at_work)
    besieged.kill_server()
    await process.terminate()
    assert await process.ended() is not None, f"{role} hangs"


@under_the_checker
async def test_a_consumer_that_was_frozen_past_its_lease_changes_nothing_when_it_wakes(
    fleet: Fleet, store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(10))
    zombie = fleet.start("consume-gated")
    await until(store, ONE_IN_HAND)
    zombie.signal(signal.SIGSTOP)
    await until(store, f"SELECT expires < clock_timestamp() FROM {UNFINISHED}")
    async with store.database.transaction() as conn:
        taken = await leases.claim(
            conn, leases.embedding_group(files._serving.model), batch=10, seconds=60, owner="test"
        )
    assert taken is not None
    assert (taken.epoch, taken.attempts) == (2, 1)
    held = await values(store, "SELECT l::text FROM leases l")

    zombie.signal(signal.SIGCONT)
    open_gate(fleet, zombie)
    await zombie.stop()

    assert await values(store, "SELECT l::text FROM leases l") == held
    assert await value(store, EMBEDDED) == 0
    assert await value(store, EMBEDDED_EVENTS) == 0
    async with store.database.transaction() as conn:
        await leases.release(conn, taken)


@under_the_checker
async def test_a_frozen_consumer_whose_range_somebody_finished_adds_nothing_to_it(
    fleet: Fleet, store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(10))
    zombie = fleet.start("consume-gated")
    await until(store, ONE_IN_HAND)
    zombie.signal(signal.SIGSTOP)
    report = await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert report.embedded == 10
    events = await values(store, EMBEDDINGS_LOGGED)

    zombie.signal(signal.SIGCONT)
    open_gate(fleet, zombie)
    await zombie.stop()
    assert await values(store, EMBEDDINGS_LOGGED) == events


async def deaths_until(fleet: Fleet, store: ChunkStore, statement: str) -> int:
    """Starts a consumer that dies of bad chunks again and again until the statement holds; counts deaths."""
    deaths = 0
    process = fleet.start("consume-mortal")

    async def revive() -> None:
        nonlocal deaths
        while True:
            assert await process.ended() == -signal.SIGKILL, process.errors
            deaths += 1
            process.restart()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(revive)
        await until(store, statement)
        tasks.cancel_scope.cancel()
    return deaths


@under_the_checker
async def test_a_chunk_that_kills_its_consumer_is_a_dead_letter_after_a_bounded_number_of_deaths(
    fleet: Fleet, store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(12, bad=5))
    deaths = await deaths_until(fleet, store, "SELECT count(*) = 1 FROM dead_letters")
    halvings = 3  # a range of 8, each level at its second expiry
    assert deaths == 2 * halvings + MAX_ATTEMPTS
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    (letter,) = await files.dead_letters()
    assert (letter.key, letter.attempts) == ("doc", MAX_ATTEMPTS)
    assert "died" in letter.error
    assert await value(store, EMBEDDED) == 11


async def test_a_chunk_that_kills_its_consumer_takes_no_chunk_with_it_that_was_only_read(
    fleet: Fleet, store: ChunkStore, files: Collection, searched: Checker
) -> None:
    for number in range(100):
        await files.append(f"doc-{number}", [])
    # One chunk in each of three partitions that follow each other, so that each is a range of its own.
    keys = await values(
        store, "SELECT min(key) FROM files WHERE partition < 3 GROUP BY partition ORDER BY partition"
    )
    searched.unsealed.update(keys)
    for key, text in zip(keys, ["before", BAD, "after"], strict=True):
        await files.append(key, [Chunk(text)])
    await deaths_until(fleet, store, "SELECT count(*) > 0 FROM dead_letters")
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert [letter.key for letter in await files.dead_letters()] == [keys[1]]
    assert await value(store, EMBEDDED) == 2
