"""Lock order: every operation takes its locks in the design's order, or two of them deadlock.

Where an order lies inside one function, a third session, the gate, holds a lock on its way: the function
stops there with what it has, until the gate opens.
"""

import asyncio

import psycopg
import pytest

from chunkstore import log, versions
from chunkstore.events import ModelAdded
from chunkstore.model import ModelId
from projections import collector
from tests.store.rules.fix_interleave import Session, World

EVENT = ModelAdded(collection=1, model=ModelId(1))


async def ended(*tasks: asyncio.Task[object]) -> list[str]:
    """How each task ended: its error's name, or 'done'."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(result).__name__ if isinstance(result, BaseException) else "done" for result in results]


async def opened(
    gate: Session, first: asyncio.Task[object], a: Session, second: asyncio.Task[object]
) -> list[str]:
    """Opens the gate; A ends its transaction when its step is done, then B's step ends as it can."""
    await gate.rollback()
    outcome = await ended(first)
    await a.rollback()
    return outcome + await ended(second)


# --- files before partitions ----------------------------------------------------------------------

FILE_FIRST = 'file = await rows.fetch_value(conn, VERSIONS.lock_file, {"collection": collection, "key": key})'
PARTITION_FIRST = (
    "known = await _state(conn, await rows.fetch_value(conn, VERSIONS.file_of,"
    ' {"collection": collection, "key": key}), None);'
    " await conn.execute(b'SELECT lock_partition(%s)', [known.partition]); " + FILE_FIRST
)


async def an_append_meets_a_pin(world: World) -> None:
    """A holds the file's lock to pin a version when B appends."""
    await world.append("doc", "one")
    a = await world.begun()
    state = await versions.lock_existing(a.conn, world.collection.row.collection, "doc")
    appending = await world.waits(world.append("doc", "two"), on=a)
    try:
        await versions.set_pinned(a.conn, state, 1, pinned=True)
        await a.commit()
    finally:
        await a.rollback()
        await appending


async def test_lock_order_an_append_locks_its_file_before_its_partition(world: World) -> None:
    await an_append_meets_a_pin(world)
    assert [version.pinned for version in await world.collection.history("doc")] == [True, False]


async def test_without_lock_order_an_append_that_begins_at_the_partition_deadlocks(world: World) -> None:
    await world.append("doc", "zero")
    world.without_python(versions, "lock", FILE_FIRST, PARTITION_FIRST)
    with pytest.raises(psycopg.errors.DeadlockDetected):
        await an_append_meets_a_pin(world)


# --- files by id ----------------------------------------------------------------------------------

FILES_BY_ID = "ORDER BY f.file FOR NO KEY UPDATE"
FILES_AS_GIVEN = "ORDER BY array_position(_files, f.file) FOR NO KEY UPDATE"


async def two_projectors_meet_over_the_same_files(world: World) -> list[str]:
    """The projectors of two models switch files 1, 2, 3 and files 3, 1; the gate stands at file 2."""
    keys = await world.keys_in_one_partition(3)
    for key in keys:
        await world.append(key, key)
    await world.collection.add_model("hashing:16")
    files = [await world.file_of(key) for key in keys]
    a, b, gate = await world.begun(), await world.begun(), await world.begun()
    await gate.conn.execute(versions.VERSIONS.lock_known_file, {"file": files[1]})
    first = await world.waits(_activate(world, a, 1, files), on=gate)
    second = await world.waits(_activate(world, b, 2, [files[2], files[0]]), on=a)
    return await opened(gate, first, a, second)


async def _activate(world: World, session: Session, model: int, files: list[int]) -> list[str]:
    partition = await session.value("SELECT partition FROM files WHERE file = %(file)s", file=files[0])
    epoch = await session.value(
        "UPDATE progress SET epoch = epoch + 1 WHERE consumer_group = %(group)s AND partition = %(partition)s"
        " RETURNING epoch",
        group=f"project:{model}",
        partition=partition,
    )
    return await session.values(
        "SELECT outcome FROM activate(%(model)s, %(partition)s, %(epoch)s, %(files)s::bigint[])",
        model=model,
        partition=partition,
        epoch=epoch,
        files=files,
    )


async def test_lock_order_files_are_locked_by_their_number(world: World) -> None:
    assert await two_projectors_meet_over_the_same_files(world) == ["done", "done"]


async def test_without_lock_order_files_locked_as_they_come_deadlock(world: World) -> None:
    await world.without("activate", FILES_BY_ID, FILES_AS_GIVEN)
    assert "DeadlockDetected" in await two_projectors_meet_over_the_same_files(world)


# --- chunks by id ---------------------------------------------------------------------------------

CHUNKS_BY_ID = "ORDER BY chunk_id FOR KEY SHARE"


async def a_consumer_meets_an_erasure_over_three_chunks(world: World) -> list[str]:
    """The erasure has chunk 1 and stops at the gate, chunk 2, when the consumer comes for all three."""
    await world.append("doc", "one", "two", "three")
    lease = await world.claimed()
    chunks = [await world.chunk(content) for content in ("one", "two", "three")]
    erasure, consumer, gate = await world.begun(), await world.begun(), await world.begun()
    await gate.value("SELECT 1 FROM chunks WHERE chunk_id = %(chunk)s FOR UPDATE", chunk=chunks[1])
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    first = await world.waits(erase, on=gate)
    second = await world.waits(world.complete(consumer, lease, chunks), on=erasure)
    return await opened(gate, first, erasure, second)


async def test_lock_order_chunks_are_locked_by_their_number(world: World) -> None:
    assert await a_consumer_meets_an_erasure_over_three_chunks(world) == ["done", "done"]


async def test_without_lock_order_chunks_locked_backwards_deadlock(world: World) -> None:
    await world.without("complete", CHUNKS_BY_ID, "ORDER BY chunk_id DESC FOR KEY SHARE")
    assert "DeadlockDetected" in await a_consumer_meets_an_erasure_over_three_chunks(world)


# --- embeddings in order of chunk -----------------------------------------------------------------

EMBEDDINGS_BY_CHUNK = "IF _existing <> _chunks THEN"
EMBEDDINGS_AS_GIVEN = "IF cardinality(_existing) <> cardinality(_chunks) THEN"


async def two_consumers_meet_over_the_same_chunks(world: World) -> list[str]:
    """A stores chunks 1, 2, 3 and stops at the gate, an embedding of chunk 2; B stores chunks 3 and 1."""
    await world.append("doc", "one", "two", "three")
    await world.append("other", "more")
    a_lease, b_lease = await world.claimed(batch=3), await world.claimed(batch=3)
    one, two, three = [await world.chunk(content) for content in ("one", "two", "three")]
    a, b, gate = await world.begun(), await world.begun(), await world.begun()
    await gate.conn.execute(
        "INSERT INTO embeddings VALUES (%(chunk)s, %(model)s, '[1,1,1,1,1,1,1,1]')",
        {"chunk": two, "model": world.model},
    )
    first = await world.waits(world.complete(a, a_lease, [one, two, three]), on=gate)
    second = await world.waits(world.complete(b, b_lease, [three, one]), on=a)
    return await opened(gate, first, a, second)


async def test_lock_order_embeddings_are_stored_in_order_of_their_chunks(world: World) -> None:
    assert await two_consumers_meet_over_the_same_chunks(world) == ["done", "done"]


async def test_without_lock_order_embeddings_stored_as_they_come_deadlock(world: World) -> None:
    await world.without("complete", EMBEDDINGS_BY_CHUNK, EMBEDDINGS_AS_GIVEN)
    assert "DeadlockDetected" in await two_consumers_meet_over_the_same_chunks(world)


# --- partitions last ------------------------------------------------------------------------------

LEASE_FIRST = "PERFORM lock_lease(_group, _partition, _lo, _epoch);"


async def a_consumer_meets_an_erasure_that_has_its_chunk(world: World) -> list[str]:
    """The erasure has its chunks and stops at the gate, a segment; its event's partition is still to come."""
    await world.append("doc", "one")
    lease = await world.claimed()
    chunk = await world.chunk("one")
    erasure, consumer, gate = await world.begun(), await world.begun(), await world.begun()
    await gate.value("SELECT 1 FROM segments FOR UPDATE")
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    first = await world.waits(erase, on=gate)
    second = await world.waits(world.complete(consumer, lease, [chunk]), on=erasure)
    return await opened(gate, first, erasure, second)


async def test_lock_order_a_consumer_locks_the_partition_last(world: World) -> None:
    assert await a_consumer_meets_an_erasure_that_has_its_chunk(world) == ["done", "done"]


async def test_without_lock_order_a_consumer_that_begins_at_the_partition_deadlocks(world: World) -> None:
    await world.without("complete", LEASE_FIRST, f"{LEASE_FIRST} PERFORM lock_partition(_partition);")
    assert "DeadlockDetected" in await a_consumer_meets_an_erasure_that_has_its_chunk(world)


# --- partitions by id -----------------------------------------------------------------------------


async def a_new_model_meets_a_transaction_that_logs_twice(world: World) -> list[str]:
    """A has logged in partition 3 and goes on to partition 7; B locks all of them."""
    a, b = await world.begun(), await world.begun()
    await log.append(a.conn, 3, [EVENT])
    second = await world.waits(b.value("SELECT lock_all_partitions()"), on=a)
    first = asyncio.create_task(log.append(a.conn, 7, [EVENT]))
    outcome = await ended(first)
    await a.rollback()
    return outcome + await ended(second)


async def test_lock_order_partitions_are_locked_by_their_number(world: World) -> None:
    assert await a_new_model_meets_a_transaction_that_logs_twice(world) == ["done", "done"]


async def test_without_lock_order_partitions_locked_backwards_deadlock(world: World) -> None:
    await world.without("lock_all_partitions", "ORDER BY partition", "ORDER BY partition DESC")
    assert "DeadlockDetected" in await a_new_model_meets_a_transaction_that_logs_twice(world)


# --- the search tables' row before search rows ------------------------------------------------------

CHUNKS_GO = "PERFORM delete_chunks(_collection, _locked);"
SEARCH_ROWS_FIRST = (
    "PERFORM remove_superseded(cm.model, _file, _reachable)"
    f" FROM collection_models cm WHERE cm.collection = _collection; {CHUNKS_GO}"
)


async def a_sweep_that_clears_search_rows_meets_a_swap(world: World) -> list[str]:
    """The swap has the row that names the search table when the sweep comes, and goes on to the table."""
    await world.append("doc", "one", "shared")
    await world.collection.pin("doc", 1)
    await world.append("doc", "two", "shared")
    await world.drain()
    await world.activate("doc")
    for content in ("three", "four", "five"):
        await world.append("doc", content)
    await world.drain()
    await world.activate("doc")
    await collector._Run(world.store, collector.CollectReport(), collector._silent).decide(None)
    file = await world.file_of("doc")
    swap, sweeper = await world.begun(), await world.begun()
    await swap.value("SELECT 1 FROM collection_models FOR UPDATE")
    sweep = sweeper.value("SELECT sweep_segments(%(file)s, 1, 1000)", file=file)
    sweeping = await world.waits(sweep, on=swap)
    table = f"LOCK TABLE {world.search_table} IN SHARE ROW EXCLUSIVE MODE"
    outcome = await ended(asyncio.create_task(swap.conn.execute(table.encode())))
    await swap.rollback()
    return outcome + await ended(sweeping)


async def test_lock_order_a_sweep_holds_the_search_tables_before_their_rows(world: World) -> None:
    assert await a_sweep_that_clears_search_rows_meets_a_swap(world) == ["done", "done"]


async def test_without_lock_order_a_sweep_that_begins_at_the_search_rows_deadlocks(world: World) -> None:
    await world.without("sweep_segments", CHUNKS_GO, SEARCH_ROWS_FIRST)
    assert "DeadlockDetected" in await a_sweep_that_clears_search_rows_meets_a_swap(world)
