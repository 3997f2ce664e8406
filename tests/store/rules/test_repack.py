"""A repack copies a search table beside those who use it: rule 20, and what its swap makes up for."""

import asyncio

import pytest

from chunkstore import rows
from chunkstore.errors import DatabaseError
from projections import collector
from projections.repack import REPACK, Repack
from tests.store.rules.fix_interleave import Session, World


def repacking(world: World) -> Repack:
    """A repack that the test takes step by step."""
    return Repack(world.store.database, world.collection.row.collection, world.collection._serving)


async def embedded(world: World, *contents: str) -> None:
    """A version of those contents, embedded and active."""
    await world.append("doc", *contents)
    await world.drain()
    await world.activate("doc")


# --- who copies a vector holds its chunk ------------------------------------------------------------


async def a_repack_copies_while_the_file_is_erased(world: World) -> int:
    """A repack has copied a vector, not committed, when the erasure has the file.

    Returns how many vectors stay in its table.
    """
    await embedded(world, "one")
    job = repacking(world)
    await job.beside.begin()
    copier, erasure = await world.begun(), await world.begun()
    await job.beside.hold(copier.conn)
    chunks = await rows.fetch_values(copier.conn, REPACK.lock_chunks, {"chunks": [await world.chunk("one")]})
    assert await job.beside.copy(copier.conn, chunks) == 1
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    erasing = await world.races(erase, against=copier)
    await copier.commit()
    await erasing
    await erasure.commit()
    return await world.value(f"SELECT count(*) FROM {world.search_table}_rebuild")


async def test_rule_20_an_erasure_reaches_the_tables_of_a_repack(world: World) -> None:
    assert await a_repack_copies_while_the_file_is_erased(world) == 0


async def test_without_rule_20_an_erased_vector_comes_back_with_a_repack(world: World) -> None:
    world.without_sql(REPACK, "lock_chunks", "FOR KEY SHARE")
    assert await a_repack_copies_while_the_file_is_erased(world) == 1


# --- what changed after it was copied ---------------------------------------------------------------


async def a_version_becomes_active_while_a_repack_copies(world: World) -> None:
    await embedded(world, "one")
    job = repacking(world)
    await job.beside.begin()
    await job.copy()
    await embedded(world, "two")
    await job.swap()


async def test_what_became_active_while_a_repack_copied_is_found(world: World) -> None:
    await a_version_becomes_active_while_a_repack_copies(world)
    assert await world.searchable() == ["two"]
    assert await world.damage() == []


async def test_without_a_look_for_what_is_left_out_it_cannot_be_found(world: World) -> None:
    world.without_python(Repack, "swap", "await self.beside.copy(conn, locked)")
    await a_version_becomes_active_while_a_repack_copies(world)
    assert await world.searchable() == []
    assert "an active chunk that no search can find" in await world.damage()


async def a_row_is_removed_while_a_repack_copies(world: World) -> int:
    """Returns how many rows the new table has of the version that was superseded."""
    await embedded(world, "one")
    superseded = await world.chunk("one")
    await embedded(world, "two")
    job = repacking(world)
    await job.beside.begin()
    await job.copy()
    await world.value(
        "SELECT remove_superseded(%(model)s, %(file)s, ARRAY[%(chunk)s::bigint])",
        model=world.model,
        file=await world.file_of("doc"),
        chunk=superseded,
    )
    await job.swap()
    return await world.value(
        f"SELECT count(*) FROM {world.search_table} WHERE chunk_id = %(chunk)s", chunk=superseded
    )


async def test_a_row_that_was_removed_while_a_repack_copied_does_not_come_back(world: World) -> None:
    assert await a_row_is_removed_while_a_repack_copies(world) == 0


async def test_without_a_look_for_what_is_gone_it_would_stay_for_ever(world: World) -> None:
    world.without_sql(REPACK, "remove_gone", "live.chunk_id = s.chunk_id", "true")
    assert await a_row_is_removed_while_a_repack_copies(world) == 1


async def test_a_superseded_row_that_waits_for_removal_is_copied(world: World) -> None:
    """A rollback may need it, and who removes it goes by the live table."""
    await embedded(world, "one")
    await embedded(world, "two")
    await repacking(world).run()
    assert await world.value(f"SELECT count(*) FROM {world.search_table}") == 2
    assert await world.damage() == []


# --- the swap ---------------------------------------------------------------------------------------


async def a_swap_that_waits_to_stop_staging(world: World) -> tuple[Session, int, asyncio.Task[None]]:
    """The swap has copied nothing yet, and waits for somebody who stages a row."""
    job = repacking(world)
    await job.beside.begin()
    gate = await world.begun()
    await gate.conn.execute(f"LOCK TABLE {world.search_table} IN ROW EXCLUSIVE MODE".encode())
    swapping = await world.waits(job.swap(), on=gate)
    return gate, await world.waiter(gate), swapping


async def a_sweep_has_the_chunks_that_the_swap_would_copy(world: World) -> None:
    for content in ("one", "two", "three", "four"):  # version 1 is due: the last three are kept
        await embedded(world, content)
    run = collector._Run(world.store, collector.CollectReport(), collector._silent)
    await run.decide(None)
    gate, swap, swapping = await a_swap_that_waits_to_stop_staging(world)
    sweeping = await world.races(run.sweep(None), against=swap)
    await gate.rollback()
    await swapping
    await sweeping


async def test_a_swap_leaves_out_what_a_sweep_is_removing(world: World) -> None:
    await a_sweep_has_the_chunks_that_the_swap_would_copy(world)
    assert await world.searchable() == ["four"]
    assert await world.value(f"SELECT count(*) FROM {world.search_table}") == 3
    assert await world.damage() == []


async def test_without_leaving_them_out_the_swap_and_the_sweep_deadlock(world: World) -> None:
    world.without_sql(REPACK, "lock_unheld", " SKIP LOCKED")
    with pytest.raises(DatabaseError, match="deadlock"):
        await a_sweep_has_the_chunks_that_the_swap_would_copy(world)


async def a_consumer_holds_an_active_chunk_that_the_swap_would_copy(world: World) -> None:
    """It became active after the copy; a consumer of another model is about to give it up."""
    await embedded(world, "one")
    job = repacking(world)
    await job.beside.begin()
    await job.copy()
    await embedded(world, "two")
    consumer = await world.begun()
    await consumer.value("SELECT 1 FROM chunks WHERE content = 'two' FOR UPDATE")
    swapping = await world.races(job.swap(), against=consumer)
    await consumer.commit()
    await swapping


async def test_a_swap_waits_for_whoever_holds_an_active_chunk(world: World) -> None:
    await a_consumer_holds_an_active_chunk_that_the_swap_would_copy(world)
    assert await world.searchable() == ["two"]
    assert await world.damage() == []


async def test_without_waiting_for_it_an_active_chunk_cannot_be_found(world: World) -> None:
    wait = 'await conn.execute(REPACK.with_tables("lock_active", **self._names), left_out)'
    world.without_python(Repack, "swap", wait)
    await a_consumer_holds_an_active_chunk_that_the_swap_would_copy(world)
    assert await world.searchable() == []
    assert "an active chunk that no search can find" in await world.damage()


async def test_an_erasure_waits_for_the_swap_and_reaches_the_new_table(world: World) -> None:
    await embedded(world, "one")
    gate, swap, swapping = await a_swap_that_waits_to_stop_staging(world)
    erasure = await world.begun()
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    erasing = await world.races(erase, against=swap)
    await gate.rollback()
    await swapping
    await erasing
    await erasure.commit()
    assert await world.value(f"SELECT count(*) FROM {world.search_table}") == 0
    assert await world.damage() == []
