"""Consumers: rules 10 to 14."""

from collections.abc import Sequence

import numpy as np
import psycopg
import pytest

from chunkstore import append as appending
from chunkstore import dead_letters, embeddings, versions
from chunkstore.chunks import prepare
from chunkstore.embeddings import EMBEDDINGS
from chunkstore.errors import LeaseLost
from chunkstore.leases import Lease
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, ChunkId
from consumers import embedding
from consumers.embedding import EmbeddingConsumer
from tests.store.rules.fix_interleave import World

# --- rule 10: needed means in the manifest of an open version or of the target ---------------------

NEEDED = """      AND (r.current OR EXISTS (
              SELECT FROM segments s
              WHERE s.file = l.file
                AND s.min_chunk <= c.chunk_id
                AND s.max_chunk >= c.chunk_id
                AND c.chunk_id = ANY (s.chunks)
                AND s.segment = ANY (r.needed)
          ))"""


async def a_version_is_replaced_before_it_is_embedded(world: World) -> list[str]:
    """The range of version 1 is claimed, then version 2 replaces one of its two chunks."""
    await world.append("doc", "stays", "goes")
    lease = await world.claimed()
    await world.append("doc", "stays", "comes")
    return [chunk.text for chunk in await world.owed(lease)]


async def test_rule_10_a_chunk_that_no_version_needs_is_skipped_before_it_is_paid_for(world: World) -> None:
    assert await a_version_is_replaced_before_it_is_embedded(world) == ["stays"]


async def test_without_rule_10_model_time_is_thrown_away(world: World) -> None:
    world.without_sql(EMBEDDINGS, "read_range", NEEDED)
    assert await a_version_is_replaced_before_it_is_embedded(world) == ["stays", "goes"]


IN_SEGMENTS = "AND s.segment = ANY (r.needed)"


async def test_without_rule_10_a_chunk_that_is_still_needed_is_passed_over(world: World) -> None:
    world.without_sql(EMBEDDINGS, "read_range", IN_SEGMENTS, "AND false")
    # Rule 8 makes that safe: version 2 logged the chunk again, so only its order is lost.
    assert await a_version_is_replaced_before_it_is_embedded(world) == []
    await world.drain()
    assert await world.value("SELECT count(*) FROM embeddings") == 2


async def an_open_version_is_embedded_before_its_commit(world: World) -> None:
    """A batch is logged under an open version and its range completed; then the version is committed."""
    await world.append("doc", "before")
    await world.drain()
    database, write = world.store.database, world.collection._write("doc", None, None, None)
    file = await world.file_of("doc")
    async with database.transaction() as conn:
        version = await versions.open_version(conn, file, b"{}")
    segmenter = Segmenter()
    assert list(segmenter.feed([prepare(Chunk("streamed"), write.hashing, position=0)])) == []
    await appending._add_batch(database, write, file, version, list(segmenter.finish()))
    await world.drain()
    await appending._commit(database, write, file, version, segmenter)
    await world.drain()


async def test_rule_10_the_chunks_of_an_open_version_are_needed(world: World) -> None:
    await an_open_version_is_embedded_before_its_commit(world)
    assert await world.activate("doc") == {"doc": "active"}


async def test_without_rule_10_a_streamed_version_never_becomes_active(world: World) -> None:
    world.without_sql(EMBEDDINGS, "read_range", "AND v.state = 'open'", "AND v.state = 'never'")
    await world.without("needed_segments", "v.state = 'open' OR v.version = f.target", "v.version = f.target")
    await an_open_version_is_embedded_before_its_commit(world)
    assert await world.activate("doc") == {"doc": "waiting"}


async def a_chunk_is_taken_back_and_its_version_becomes_the_target_again(world: World) -> None:
    """It is active without the chunk, which is logged for a version that is replaced before a claim."""
    await world.append("doc", "discarded")
    lease = await world.claimed()
    (owed,) = await world.owed(lease)
    async with world.store.database.transaction() as conn:
        await dead_letters.give_up(conn, lease, world.model, owed.chunk_id, attempts=3, error="no")
    await world.collection.discard(owed.chunk_id)
    await world.activate("doc")
    await world.append("doc", "two")
    await world.collection.retry(owed.chunk_id)
    await world.append("doc", "three")
    await world.drain()
    await world.collection.rollback("doc", 1)
    await world.drain()


async def test_rule_10_what_is_taken_back_into_the_active_version_is_needed(world: World) -> None:
    await a_chunk_is_taken_back_and_its_version_becomes_the_target_again(world)
    assert await world.searchable() == ["discarded"]


async def test_without_rule_10_what_is_taken_back_is_never_embedded(world: World) -> None:
    world.without_sql(EMBEDDINGS, "read_range", "WHERE a.file = l.file", "WHERE false")
    await a_chunk_is_taken_back_and_its_version_becomes_the_target_again(world)
    assert await world.searchable() == []


# --- rule 11: an epoch never repeats; what fails is halved; an expiry is an attempt ----------------


async def complete(world: World, lease: Lease) -> None:
    """A consumer stores what it computed for the range."""
    async with world.store.database.transaction() as conn:
        chunks = [chunk.chunk_id for chunk in await embeddings.owed(conn, lease, world.model)]
        vectors = [[1.0] * 8] * len(chunks)
        await embeddings.complete(conn, lease, world.model, chunks, _array(vectors))


def _array(vectors: list[list[float]]) -> np.ndarray:
    return np.array(vectors, dtype=np.float32).reshape(len(vectors), 8)


async def a_zombie_wakes_up(world: World) -> None:
    """A's lease runs out, B takes the range over, and A comes back with its vectors."""
    await world.append("doc", "one")
    a = await world.claimed()
    await world.expire(a)
    b = await world.claimed()
    assert (a.lo, a.hi) == (b.lo, b.hi)
    await complete(world, a)


async def test_rule_11_a_zombie_consumer_cannot_complete_its_range(world: World) -> None:
    with pytest.raises(LeaseLost):
        await a_zombie_wakes_up(world)
    assert await world.value("SELECT count(*) FROM embeddings") == 0


async def test_without_rule_11_a_zombie_writes_under_the_epoch_of_another(world: World) -> None:
    await world.without("take_over", "SET epoch = epoch + 1, attempts", "SET attempts")
    await a_zombie_wakes_up(world)
    assert await world.value("SELECT count(*) FROM embeddings") == 1


async def a_zombie_of_a_halved_range_wakes_up(world: World) -> None:
    """A's range expires twice and is halved; A comes back with the whole range's vectors."""
    await world.append("doc", "one", "two")
    await world.expire(await world.claimed())
    a = await world.claimed()
    await world.expire(a)
    left = await world.claimed()
    assert (left.lo, left.hi) == (a.lo, a.lo + 1)
    await complete(world, a)


async def test_rule_11_halves_are_not_held_under_the_parents_epoch(world: World) -> None:
    with pytest.raises(LeaseLost):
        await a_zombie_of_a_halved_range_wakes_up(world)


async def test_without_rule_11_a_zombie_completes_a_half_under_its_parents_epoch(world: World) -> None:
    await world.without("halve", "SET hi = _middle, epoch = _range.epoch + 1", "SET hi = _middle")
    await a_zombie_of_a_halved_range_wakes_up(world)
    assert await world.value("SELECT count(*) FROM done") == 1


async def a_chunk_kills_every_consumer(world: World, kills: int) -> int:
    """The attempts that the next consumer sees after so many have died over the one chunk."""
    await world.append("doc", "poison")
    for _ in range(kills):
        await world.expire(await world.claimed())
    return (await world.claimed()).attempts


async def test_rule_11_an_expiry_is_an_attempt_of_a_single_chunk(world: World) -> None:
    assert await a_chunk_kills_every_consumer(world, kills=3) == 3


async def test_without_rule_11_a_chunk_that_kills_its_consumer_comes_back_for_ever(world: World) -> None:
    await world.without("take_over", "attempts = attempts + _expired", "attempts = attempts")
    assert await a_chunk_kills_every_consumer(world, kills=3) == 0


async def a_bad_chunk_among_four(world: World, kills: int) -> Lease:
    """The range that the next consumer gets after so many have died over four chunks."""
    await world.append("doc", "one", "two", "poison", "four")
    for _ in range(kills):
        await world.expire(await world.claimed())
    return await world.claimed()


async def test_rule_11_a_range_is_halved_at_its_second_expiry(world: World) -> None:
    lease = await a_bad_chunk_among_four(world, kills=2)
    assert (lease.lo, lease.hi, lease.attempts) == (0, 2, 0)


async def test_rule_11_a_range_is_not_halved_at_its_first_expiry(world: World) -> None:
    lease = await a_bad_chunk_among_four(world, kills=1)
    assert (lease.lo, lease.hi) == (0, 4)


async def test_without_rule_11_a_bad_chunk_takes_its_neighbours_with_it(world: World) -> None:
    await world.without("take_over", "_old.attempts >= 1", "false")
    lease = await a_bad_chunk_among_four(world, kills=5)
    assert (lease.lo, lease.hi) == (0, 4)


class Picky:
    """A model that cannot embed a text with 'bad' in it, nor any batch that holds one."""

    name = "hashing-8"
    dimensions = 8
    distance = "cosine"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if any("bad" in text for text in texts):
            raise ValueError("no vector for that")
        return np.ones((len(texts), 8), dtype=np.float32)


async def a_bad_chunk_fails_with_its_neighbours(world: World) -> tuple[list[str], list[str]]:
    """What is embedded, and what is given up, when a consumer has drained the log."""
    await world.append("doc", "one", "two", "bad", "four")
    world.monkeypatch.setattr(embedding, "_RETRY_SECONDS", 0.0)
    await EmbeddingConsumer(world.store, Picky()).run(drain=True)
    return (
        await world.values("SELECT content FROM chunks JOIN embeddings USING (chunk_id) ORDER BY 1"),
        await world.values("SELECT content FROM chunks JOIN dead_letters USING (chunk_id)"),
    )


async def test_rule_11_a_failed_range_is_halved_until_the_bad_chunk_is_alone(world: World) -> None:
    embedded, given_up = await a_bad_chunk_fails_with_its_neighbours(world)
    assert (embedded, given_up) == (["four", "one", "two"], ["bad"])


async def test_without_rule_11_attempts_of_a_range_give_up_an_innocent_chunk(world: World) -> None:
    world.without_python(embedding._Embedding, "settle", "elif not lease.is_single:", "elif False:")
    embedded, given_up = await a_bad_chunk_fails_with_its_neighbours(world)
    assert (embedded, given_up) == ([], ["one"])


async def a_range_is_taken_over_while_it_is_completed(world: World) -> list[int]:
    """B saw the range expired and undone; by the time that B has its lock A has completed it."""
    await world.append("doc", "one")
    lease = await world.claimed()
    await world.expire(lease)
    await complete(world, lease)
    return await world.values(
        "SELECT epoch FROM take_over(%(group)s, %(partition)s, %(lo)s, '1 minute', 'b')",
        group=lease.group,
        partition=lease.partition,
        lo=lease.lo,
    )


STILL_UNDONE = """
      AND NOT EXISTS (
          SELECT FROM done d
          WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
      );
    IF NOT FOUND"""


async def test_rule_11_a_range_that_was_completed_meanwhile_is_not_taken_over(world: World) -> None:
    assert await a_range_is_taken_over_while_it_is_completed(world) == []


async def test_without_rule_11_a_completed_range_is_worked_on_again(world: World) -> None:
    await world.without("take_over", STILL_UNDONE, ";\n    IF NOT FOUND")
    assert await a_range_is_taken_over_while_it_is_completed(world) == [2]


# --- rule 12: a copied vector is carried from the read ---------------------------------------------

CARRIED = """c.embedding
            FROM unnest(_chunks, _vectors) AS c (chunk_id, embedding)
"""
COPIED_AT_THE_WRITE = """source.embedding
            FROM unnest(_chunks) AS c (chunk_id)
            JOIN chunks mine ON mine.chunk_id = c.chunk_id
            JOIN chunks other ON other.text_hash = mine.text_hash AND other.chunk_id <> mine.chunk_id
            JOIN embeddings source ON source.chunk_id = other.chunk_id AND source.model = _model
"""


async def a_source_is_embedded(world: World) -> None:
    await world.append("source", "same")
    await world.drain()


async def the_source_of_a_copy_is_erased(world: World) -> list[str]:
    """A consumer has read a vector to copy when the file that it came from is erased."""
    await world.append("doc", "same")
    lease = await world.claimed()
    owed = await world.owed(lease)
    async with world.store.database.transaction() as conn:
        copies = await embeddings.copies(conn, owed, world.model)
    vectors = [copies[chunk.collection, chunk.text_hash] for chunk in owed]
    await world.collection.erase("source")
    async with world.store.database.transaction() as conn:
        chunks = [chunk.chunk_id for chunk in owed]
        await embeddings.complete(conn, lease, world.model, chunks, _array(vectors))
    await world.drain()
    return await world.values("SELECT content FROM chunks JOIN embeddings USING (chunk_id)")


async def test_rule_12_a_copy_outlives_the_erasure_of_its_source(world: World) -> None:
    await a_source_is_embedded(world)
    assert await the_source_of_a_copy_is_erased(world) == ["same"]


async def test_without_rule_12_a_copy_whose_source_was_erased_inserts_nothing_and_completes(
    world: World,
) -> None:
    await a_source_is_embedded(world)
    await world.without("complete", CARRIED, COPIED_AT_THE_WRITE)
    assert await the_source_of_a_copy_is_erased(world) == []
    assert (await world.activate("doc")) == {"doc": "waiting"}, "for ever: nothing is left to claim"


# --- rule 13: two consumers finish one chunk --------------------------------------------------------


async def two_consumers_finish_one_chunk(world: World) -> list[ChunkId]:
    """A has stored the chunk and not committed when B comes with it; returns what B found new."""
    await world.append("doc", "one")
    a_lease = await world.claimed()
    await world.append("doc", "one", "two")
    b_lease = await world.claimed()
    chunk = await world.chunk("one")
    a, b = await world.begun(), await world.begun()
    await world.complete(a, a_lease, [chunk])
    waiting = await world.waits(world.complete(b, b_lease, [chunk]), on=a)
    await a.commit()
    new = await waiting
    await b.commit()
    return new


async def test_rule_13_the_second_consumer_changes_nothing_and_its_range_completes(world: World) -> None:
    assert await two_consumers_finish_one_chunk(world) == []
    assert await world.logged("chunks_embedded") == 1
    assert await world.value("SELECT count(*) FROM done") == 2


async def test_without_rule_13_the_second_consumer_violates_a_constraint(world: World) -> None:
    await world.without("complete", "            ON CONFLICT DO NOTHING\n", "")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await two_consumers_finish_one_chunk(world)


async def test_without_rule_13_the_second_consumer_logs_an_event_of_nothing(world: World) -> None:
    await world.without(
        "complete",
        "IF cardinality(_new) > 0 THEN",
        "IF true THEN",
    )
    await two_consumers_finish_one_chunk(world)
    assert await world.logged("chunks_embedded") == 2


async def test_without_rule_13_the_log_says_twice_that_a_chunk_was_embedded(world: World) -> None:
    await world.without(
        "complete",
        "ORDER BY chunk_id), '{}') INTO _new FROM stored;",
        "ORDER BY chunk_id), '{}') INTO _new FROM stored; _new := _existing;",
    )
    chunk = await world_chunk_twice(world)
    assert await world.values("SELECT unnest(chunks) FROM events WHERE type = 'chunks_embedded'") == [
        chunk,
        chunk,
    ]


async def world_chunk_twice(world: World) -> ChunkId:
    await two_consumers_finish_one_chunk(world)
    return await world.chunk("one")


async def test_rule_13_an_embedding_and_its_event_commit_together(world: World) -> None:
    await world.append("doc", "one")
    lease = await world.claimed()
    consumer = await world.begun()
    await world.complete(consumer, lease, [await world.chunk("one")])
    await consumer.rollback()
    assert await world.value("SELECT count(*) FROM embeddings") == await world.logged("chunks_embedded") == 0
    await world.complete(await consumer.begin(), lease, [await world.chunk("one")])
    await consumer.commit()
    assert await world.value("SELECT count(*) FROM embeddings") == await world.logged("chunks_embedded") == 1


async def a_chunk_is_given_up_while_another_stores_it(world: World) -> None:
    """B has stored the chunk and not committed when A gives it up."""
    await world.append("doc", "one")
    a_lease = await world.claimed()
    await world.append("doc", "one", "two")
    b_lease = await world.claimed()
    chunk = await world.chunk("one")
    a, b = await world.begun(), await world.begun()
    await world.complete(b, b_lease, [chunk])
    give_up = dead_letters.give_up(a.conn, a_lease, world.model, chunk, attempts=3, error="no")
    waiting = await world.waits(give_up, on=b)
    await b.commit()
    await waiting
    await a.commit()


FRESH_LOOK = """    SELECT file INTO _file FROM chunks WHERE chunk_id = _chunk FOR UPDATE;
    IF FOUND AND NOT EXISTS (SELECT FROM embeddings WHERE chunk_id = _chunk AND model = _model) THEN"""
STALE_LOOK = """    SELECT file INTO _file FROM chunks
    WHERE chunk_id = _chunk
      AND NOT EXISTS (SELECT FROM embeddings WHERE chunk_id = _chunk AND model = _model)
    FOR UPDATE;
    IF FOUND THEN"""


async def test_rule_13_a_chunk_that_was_stored_meanwhile_is_not_given_up(world: World) -> None:
    await a_chunk_is_given_up_while_another_stores_it(world)
    assert await world.damage() == []


async def test_without_rule_13_an_embedded_chunk_has_a_dead_letter(world: World) -> None:
    await world.without("dead_letter", FRESH_LOOK, STALE_LOOK)
    await a_chunk_is_given_up_while_another_stores_it(world)
    assert "an embedded chunk with a dead letter" in await world.damage()


async def a_chunk_is_stored_while_another_gives_it_up(world: World) -> None:
    """A has given the chunk up and not committed when B stores it."""
    await world.append("doc", "one")
    a_lease = await world.claimed()
    await world.append("doc", "one", "two")
    b_lease = await world.claimed()
    chunk = await world.chunk("one")
    a, b = await world.begun(), await world.begun()
    await dead_letters.give_up(a.conn, a_lease, world.model, chunk, attempts=3, error="no")
    waiting = await world.waits(world.complete(b, b_lease, [chunk]), on=a)
    await a.commit()
    await waiting
    await b.commit()


async def test_rule_13_storing_an_embedding_deletes_its_dead_letter(world: World) -> None:
    await a_chunk_is_stored_while_another_gives_it_up(world)
    assert await world.damage() == []


async def test_without_rule_13_a_dead_letter_outlives_the_embedding(world: World) -> None:
    await world.without(
        "complete", "DELETE FROM dead_letters WHERE chunk_id = ANY (_existing) AND model = _model;"
    )
    await a_chunk_is_stored_while_another_gives_it_up(world)
    assert "an embedded chunk with a dead letter" in await world.damage()


# --- rule 14: error texts can hold content ----------------------------------------------------------


async def a_model_quotes_the_content_in_its_error(world: World) -> tuple[int, int]:
    """How many dead letters and how many events hold the content then."""
    await world.append("doc", "confidential")
    lease = await world.claimed()
    async with world.store.database.transaction() as conn:
        error = "cannot tokenize 'confidential'"
        chunk = await world.chunk("confidential")
        await dead_letters.give_up(conn, lease, world.model, chunk, attempts=3, error=error)
    return (
        await world.value("SELECT count(*) FROM dead_letters WHERE error LIKE '%confidential%'"),
        await world.value("SELECT count(*) FROM events WHERE events::text LIKE '%confidential%'"),
    )


async def test_rule_14_the_error_is_in_the_dead_letter_and_not_in_the_log(world: World) -> None:
    assert await a_model_quotes_the_content_in_its_error(world) == (1, 0)
    await world.collection.erase("doc")
    assert await world.value("SELECT count(*) FROM dead_letters") == 0


async def test_without_rule_14_content_stays_in_the_log_for_ever(world: World) -> None:
    await world.without("dead_letter", "'chunk', _chunk)", "'chunk', _chunk, 'error', _error)")
    assert await a_model_quotes_the_content_in_its_error(world) == (1, 1)
