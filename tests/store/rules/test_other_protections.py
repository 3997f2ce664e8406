"""Protections beside the rules' own lines: copies stay in their collection, nothing is owed or lost twice."""

from typing import Any

from chunkstore import dead_letters, embeddings
from chunkstore.embeddings import EMBEDDINGS
from chunkstore.model import Chunk
from projections import active
from projections.rebuild import rebuild
from tests.store.rules.fix_interleave import World

# --- rule 12: a copy never crosses collections -----------------------------------------------------

SAME_COLLECTION = "AND (SELECT f.collection FROM files f WHERE f.file = twin.file) = o.collection"


async def another_collection_holds_the_text(world: World) -> int:
    """The text is embedded in one collection, then owed in another; how many vectors are to be copied."""
    await world.append("doc", "the same")
    await world.drain()
    others = await world.store.collection("others", model="hashing:8")
    await others.append("doc", [Chunk("the same")])
    owed = await world.owed(await world.claimed())
    assert [(chunk.collection, chunk.text) for chunk in owed] == [(others.row.collection, "the same")]
    async with world.store.database.transaction() as conn:
        return len(await embeddings.copies(conn, owed, world.model))


async def test_rule_12_a_copy_never_crosses_collections(world: World) -> None:
    assert await another_collection_holds_the_text(world) == 0


async def test_without_rule_12_a_vector_of_another_collection_is_copied(world: World) -> None:
    world.without_sql(EMBEDDINGS, "read_range", SAME_COLLECTION)
    assert await another_collection_holds_the_text(world) == 1


# --- rule 13: what is embedded already is not owed -------------------------------------------------

NOT_EMBEDDED = """(
              SELECT true
              FROM embeddings e
              WHERE e.chunk_id = c.chunk_id
                AND e.model = %(model)s
          ) IS NULL"""


async def a_chunk_is_logged_twice_before_it_is_embedded(world: World) -> list[str]:
    """Version 2 logs a chunk of version 1 again; then version 1's range completes. What the second owes."""
    await world.append("doc", "one")
    first = await world.claimed()
    await world.append("doc", "one", "two")
    second = await world.claimed()
    session = await world.begun()
    await world.complete(session, first, [chunk.chunk_id for chunk in await world.owed(first)])
    await session.commit()
    return [chunk.text for chunk in await world.owed(second)]


async def test_rule_13_a_chunk_that_is_embedded_already_is_not_owed(world: World) -> None:
    assert await a_chunk_is_logged_twice_before_it_is_embedded(world) == ["two"]


async def test_without_rule_13_an_embedded_chunk_is_owed_again(world: World) -> None:
    world.without_sql(EMBEDDINGS, "read_range", NOT_EMBEDDED, "true")
    assert await a_chunk_is_logged_twice_before_it_is_embedded(world) == ["one", "two"]


# --- rules 17 and 21: what was staged is staged again after a swap ---------------------------------

STAGED_AGAIN = 'while unstaged := [row.file for row in outcomes if row.outcome == "stage"]:'


async def a_rebuild_swaps_after_the_rows_were_staged(world: World) -> int | None:
    """A rollback to 2,500 chunks is staged; a swap, which keeps what is active, comes before the switch."""
    await world.collection.append("doc", [Chunk(f"chunk {number}") for number in range(2500)])
    await world.append("doc", "short")
    await world.drain()
    assert await world.activate("doc") == {"doc": "active"}
    await world.collection.rollback("doc", 1)
    await world.drain()
    observer = await world.observer()
    await observer.conn.execute(f"DELETE FROM {world.search_table}".encode())
    stage, swaps = active._stage, 0

    async def stage_and_swap(*args: Any) -> None:
        nonlocal swaps
        await stage(*args)
        if not swaps:
            swaps += 1
            await rebuild(world.store, "docs")

    world.monkeypatch.setattr(active, "_stage", stage_and_swap)
    checkpoint = await world.checkpoint(await world.partition_of("doc"))
    file = await world.file_of("doc")
    await active.activate(world.store.database, checkpoint, world.model, [file])
    assert swaps == 1
    return await world.active_version("doc")


async def test_rule_17_rows_that_a_rebuild_left_out_are_staged_again(world: World) -> None:
    assert await a_rebuild_swaps_after_the_rows_were_staged(world) == 1
    assert await world.damage() == []


async def test_without_rule_17_a_rebuild_between_stage_and_switch_loses_the_switch(world: World) -> None:
    world.without_python(active, "activate", STAGED_AGAIN, STAGED_AGAIN.replace("while", "if"))
    assert await a_rebuild_swaps_after_the_rows_were_staged(world) == 2


# --- rule 13: giving a chunk up twice is giving it up once ------------------------------------------

GIVEN_UP_BEFORE = (
    "IF EXISTS (SELECT FROM done WHERE consumer_group = _group AND partition = _partition AND lo = _lo)"
)


async def a_commit_that_gave_a_chunk_up_was_not_heard(world: World) -> tuple[list[int], int]:
    """The consumer gives the chunk up again; the dead letter's attempts, and how often the log says so."""
    await world.append("doc", "bad")
    lease = await world.claimed()
    chunk = await world.chunk("bad")
    for _ in range(2):
        async with world.store.database.transaction() as conn:
            await dead_letters.give_up(conn, lease, world.model, chunk, attempts=3, error="no")
    return await world.values("SELECT attempts FROM dead_letters"), await world.logged("embedding_failed")


async def test_rule_13_a_chunk_that_is_given_up_again_was_given_up_once(world: World) -> None:
    assert await a_commit_that_gave_a_chunk_up_was_not_heard(world) == ([3], 1)


async def test_without_rule_13_attempts_count_twice(world: World) -> None:
    await world.without("dead_letter", GIVEN_UP_BEFORE, "IF false")
    assert await a_commit_that_gave_a_chunk_up_was_not_heard(world) == ([6], 2)
