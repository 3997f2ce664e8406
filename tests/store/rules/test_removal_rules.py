"""Collector, pins, erase, rebuild, ordered leases: rules 19 to 22."""

import asyncio

import pytest
from psycopg import sql

from chunkstore import leases, reuse, rows, versions
from chunkstore.chunks import prepare
from chunkstore.errors import DatabaseError, UnknownVersion
from chunkstore.leases import LEASES
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, FileId
from projections import collector, rebuild
from projections.beside import BESIDE
from projections.collector import COLLECTOR, collect
from projections.rebuild import REBUILD
from tests.store.rules.fix_interleave import Session, World

# --- rule 19: decide, log, then sweep by what is reachable then ------------------------------------


async def four_versions(world: World) -> None:
    """Version 1 is due: the collection keeps the last three."""
    for content in ("one", "two", "three", "four"):
        await world.append("doc", content)
        await world.drain()
        await world.activate("doc")


SWEEP = "SELECT sweep_segments(%(file)s, 1, 1000)"
SWEEP_LOCKS_FILE = "PERFORM FROM files WHERE file = _file FOR NO KEY UPDATE;"


async def a_sweep_meets_an_append_that_reuses_its_chunk(world: World) -> None:
    """Version 1 is decided on; a streamed version has found its chunk, uncommitted, when the sweep comes."""
    await four_versions(world)
    run = collector._Run(world.store, collector.CollectReport(), collector._silent)
    await run.decide(None)
    file = await world.file_of("doc")
    writer, sweeper = await world.begun(), await world.begun()
    await _append_streamed(world, writer, file, "one")
    sweeping = await world.races(sweeper.value(SWEEP, file=file), against=writer)
    if sweeping.done():
        await sweeper.commit()
    await writer.commit()
    await sweeping
    await sweeper.rollback()
    await run.sweep(None)


async def _append_streamed(world: World, writer: Session, file: int, content: str) -> None:
    """Stores one chunk under an open version inside the writer's transaction, as a streamed append does."""
    await writer.conn.execute(versions.VERSIONS.lock_known_file, {"file": file})
    version = await versions.open_version(writer.conn, FileId(file), b"{}")
    state = await versions.lock_open(writer.conn, FileId(file), version)
    segmenter = Segmenter()
    chunks = [Chunk(content), Chunk("other")]
    assert not list(
        segmenter.feed(
            prepare(chunk, world.collection.row.hashing, position=i) for i, chunk in enumerate(chunks)
        )
    )
    stored = await reuse.store_segments(writer.conn, state, list(segmenter.finish()), streamed=True)
    assert stored.reused == 1, "the chunk of the version that was decided on is found"
    await versions.extend(writer.conn, FileId(file), version, stored)


async def test_rule_19_a_sweep_keeps_a_chunk_that_came_back_meanwhile(world: World) -> None:
    await a_sweep_meets_an_append_that_reuses_its_chunk(world)
    assert await world.damage() == []
    assert await world.values("SELECT state FROM versions WHERE version = 1") == ["collected"]


async def test_without_rule_19_a_version_loses_a_chunk(world: World) -> None:
    await world.without("sweep_segments", SWEEP_LOCKS_FILE)
    await a_sweep_meets_an_append_that_reuses_its_chunk(world)
    assert "a manifest names a chunk that is gone" in await world.damage()


REACHABLE = "SELECT unnest(_named) EXCEPT SELECT unnest(_reachable)"


async def a_chunk_is_in_a_kept_version_too(world: World) -> None:
    await world.append("doc", "one", "shared")
    for content in ("two", "three", "four"):
        await world.append("doc", content, "shared")
    await world.drain()
    await collect(world.store)


async def test_rule_19_a_sweep_asks_which_chunks_are_still_reachable(world: World) -> None:
    await a_chunk_is_in_a_kept_version_too(world)
    assert await world.values("SELECT content FROM chunks ORDER BY 1") == ["four", "shared", "three", "two"]
    assert await world.damage() == []


async def test_without_rule_19_a_kept_version_loses_what_it_shares(world: World) -> None:
    await world.without("sweep_segments", REACHABLE, "SELECT unnest(_named)")
    await a_chunk_is_in_a_kept_version_too(world)
    assert "a manifest names a chunk that is gone" in await world.damage()


async def a_decision_meets_a_pin(world: World) -> list[str]:
    """Version 1 is being pinned when the collector, that found it due, comes to decide."""
    await four_versions(world)
    pinner = await world.begun()
    state = await versions.lock_existing(pinner.conn, world.collection.row.collection, "doc")
    await versions.set_pinned(pinner.conn, state, 1, pinned=True)
    collecting = await world.races(collect(world.store), against=pinner)
    await pinner.commit()
    await collecting
    return await world.values("SELECT state FROM versions ORDER BY version")


async def test_rule_19_a_decision_that_waited_for_a_pin_leaves_the_version(world: World) -> None:
    assert await a_decision_meets_a_pin(world) == ["committed"] * 4


async def test_without_rule_19_a_pinned_version_is_collected(world: World) -> None:
    await world.without("due_versions", "AND NOT v.pinned")
    assert await a_decision_meets_a_pin(world) == ["collected", *["committed"] * 3]


NEVER = {
    "pinned": "AND NOT v.pinned",
    "target": "AND v.version NOT IN (f.latest, f.target)",
    "active": """AND NOT EXISTS (
          SELECT FROM active_versions a
          WHERE a.file = v.file
            AND a.version = v.version
      )""",
}


async def version_1_is_due_but(world: World, kept: str) -> list[str]:
    """The states of the versions after the collector ran, where version 1 is pinned, target or active."""
    await world.append("doc", "one")
    await world.drain()
    if kept == "active":
        await world.activate("doc")
    for content in ("two", "three", "four"):
        await world.append("doc", content)
    if kept == "target":
        await world.collection.rollback("doc", 1)
    if kept == "pinned":
        await world.collection.pin("doc", 1)
    await collect(world.store)
    return await world.values("SELECT state FROM versions ORDER BY version")


@pytest.mark.parametrize("kept", NEVER)
async def test_rule_19_what_is_pinned_target_or_active_is_never_decided_on(world: World, kept: str) -> None:
    assert await version_1_is_due_but(world, kept) == ["committed"] * 4
    assert await world.damage() == []


@pytest.mark.parametrize("kept", NEVER)
async def test_without_rule_19_what_is_needed_is_collected(world: World, kept: str) -> None:
    await world.without("due_versions", NEVER[kept])
    assert (await version_1_is_due_but(world, kept))[0] == "collected"


async def a_collector_dies_between_decision_and_sweep(world: World) -> list[int]:
    """The versions that the log says are collected, when their chunks are still there."""
    await four_versions(world)
    run = collector._Run(world.store, collector.CollectReport(), collector._silent)
    await run.decide(None)
    assert await world.value("SELECT count(*) FROM chunks") == 4
    return await world.values("SELECT version FROM events WHERE type = 'version_collected'")


async def a_file_comes_back_to_a_segment_that_is_half_swept(world: World) -> list[str]:
    """The sweep of version 1 skips one of its chunks, which somebody holds, and so leaves its segment.

    Returns what `verify` finds broken after version 1's content was appended again.
    """
    await world.append("doc", "one", "another")
    for content in ("two", "three", "four"):
        await world.append("doc", content)
    await world.drain()
    await world.activate("doc")
    holder = await world.begun()
    await holder.values("SELECT chunk_id FROM chunks WHERE content = 'one' FOR KEY SHARE")
    await collect(world.store)
    assert await world.values("SELECT content FROM chunks WHERE content IN ('one', 'another')") == ["one"]
    await world.append("doc", "one", "another")
    await holder.rollback()
    await world.drain()
    await world.activate("doc")
    return await world.damage()


async def test_rule_19_a_segment_that_is_half_swept_is_not_taken_for_known(world: World) -> None:
    assert await a_file_comes_back_to_a_segment_that_is_half_swept(world) == []


async def test_without_rule_19_a_version_names_a_chunk_that_was_swept(world: World) -> None:
    await world.without("segments_by_digest", "AND v.state IN ('open', 'committed')")
    assert "a manifest names a chunk that is gone" in await a_file_comes_back_to_a_segment_that_is_half_swept(
        world
    )


async def test_rule_19_the_decision_is_in_the_log_before_the_sweep(world: World) -> None:
    assert await a_collector_dies_between_decision_and_sweep(world) == [1]
    with pytest.raises(UnknownVersion):
        await world.collection.rollback("doc", 1)
    await collect(world.store)
    assert await world.value("SELECT count(*) FROM chunks") == 3


async def test_without_rule_19_a_rollback_goes_to_what_is_being_swept(world: World) -> None:
    world.without_sql(COLLECTOR, "decide", "SET state = 'collected'", "SET state = 'committed'")
    await a_collector_dies_between_decision_and_sweep(world)
    assert (await world.collection.rollback("doc", 1)).target


# --- rule 20: whoever writes a vector holds its chunk ----------------------------------------------


async def a_consumer_stores_while_the_file_is_erased(world: World) -> None:
    """A consumer has stored an embedding and not committed when the file is erased."""
    await world.append("doc", "one")
    lease = await world.claimed()
    consumer, erasure = await world.begun(), await world.begun()
    await world.complete(consumer, lease, [await world.chunk("one")])
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    erasing = await world.races(erase, against=consumer)
    await consumer.commit()
    await erasing
    await erasure.commit()


async def test_rule_20_an_erasure_waits_for_whoever_writes_a_vector(world: World) -> None:
    await a_consumer_stores_while_the_file_is_erased(world)
    assert await world.damage() == []


async def test_without_rule_20_a_vector_outlives_the_erasure(world: World) -> None:
    await world.without("complete", "ORDER BY chunk_id FOR KEY SHARE", "ORDER BY chunk_id")
    # Without a lock the partition is the only place where the two meet, and the erasure is through by then.
    await a_consumer_stores_while_the_file_is_erased(world)
    assert "an embedding without its chunk" in await world.damage()


async def a_rebuild_copies_while_the_file_is_erased(world: World) -> int:
    """A rebuild begins and has copied a vector, not committed, when the erasure has the file.

    Returns how many vectors stay in its table.
    """
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    job = rebuild._Rebuild(world.store, world.collection.row.collection, "docs", world.collection._serving)
    await job._beside.begin()
    copier, erasure = await world.begun(), await world.begun()
    segments = await world.values("SELECT segment FROM segments")
    chunks = await rows.fetch_values(copier.conn, REBUILD.lock_chunks, {"segments": segments})
    assert await job._beside.copy(copier.conn, chunks) == 1
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    erasing = await world.races(erase, against=copier)
    await copier.commit()
    await erasing
    await erasure.commit()
    return await world.value(f"SELECT count(*) FROM {world.search_table}_rebuild")


async def test_rule_20_an_erasure_reaches_the_tables_of_a_rebuild(world: World) -> None:
    assert await a_rebuild_copies_while_the_file_is_erased(world) == 0


async def test_without_rule_20_an_erased_vector_comes_back_with_a_rebuild(world: World) -> None:
    world.without_sql(REBUILD, "lock_chunks", "FOR KEY SHARE")
    assert await a_rebuild_copies_while_the_file_is_erased(world) == 1


async def test_without_rule_20_an_erasure_that_knows_no_rebuild_leaves_its_vectors(world: World) -> None:
    await world.without("search_tables", "ARRAY['', '_rebuild']", "ARRAY['']")
    assert await a_rebuild_copies_while_the_file_is_erased(world) == 1


async def a_rebuild_begins_while_an_erasure_waits(world: World) -> int:
    """The erasure waits for a chunk, with its files locked, when a rebuild makes its tables and copies it.

    Returns how many vectors stay in the rebuild's table.
    """
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    copier, erasure = await world.begun(), await world.begun()
    await copier.value("SELECT 1 FROM chunks FOR KEY SHARE")
    erase = erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    erasing = await world.waits(erase, on=copier)
    job = rebuild._Rebuild(world.store, world.collection.row.collection, "docs", world.collection._serving)
    await job._beside.begin()
    assert await job._beside.copy(copier.conn, [await world.chunk("one")]) == 1
    await copier.commit()
    await erasing
    await erasure.commit()
    return await world.value(f"SELECT count(*) FROM {world.search_table}_rebuild")


TABLES_LISTED = (
    """    FOR _tables IN SELECT t.search_table FROM search_tables(_collection) AS t ORDER BY 1 LOOP"""
)


async def test_rule_20_an_erasure_lists_the_tables_after_it_has_its_chunks(world: World) -> None:
    assert await a_rebuild_begins_while_an_erasure_waits(world) == 0


async def test_without_rule_20_tables_listed_before_miss_a_rebuild(world: World) -> None:
    chunks_locked = "PERFORM FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR UPDATE;"
    await world.without(
        "erase_file",
        chunks_locked,
        "CREATE TEMPORARY TABLE listed ON COMMIT DROP AS SELECT * FROM search_tables(_collection);"
        + chunks_locked,
    )
    await world.without(
        "delete_chunks",
        TABLES_LISTED,
        "    FOR _tables IN SELECT t.search_table FROM listed AS t ORDER BY 1 LOOP",
    )
    assert await a_rebuild_begins_while_an_erasure_waits(world) == 1


SECRET = "erase-me"


async def columns_that_keep_samples_of_what_was_erased(world: World) -> list[str]:
    """Every file is erased after an ANALYZE; the columns whose statistics still hold what they held."""
    for i in range(12):
        await world.collection.append(
            f"{SECRET} {i % 2}",
            [Chunk(f"{SECRET} {i % 3}", {SECRET: i % 3})],
            idempotency_key=f"{SECRET} {i}",
            metadata={SECRET: i},
        )
    observer = await world.observer()
    tables = await world.values(
        "SELECT oid::regclass::text FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    await observer.conn.execute(f"ANALYZE {', '.join(tables)}".encode())
    for i in range(2):
        await world.collection.erase(f"{SECRET} {i}")
    return await world.values(
        "SELECT c.relname || '.' || a.attname FROM pg_statistic s"
        " JOIN pg_class c ON c.oid = s.starelid"
        " JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum"
        " WHERE c.relnamespace = current_schema()::regnamespace AND concat("
        " s.stavalues1::text, s.stavalues2::text, s.stavalues3::text, s.stavalues4::text, s.stavalues5::text"
        ") ~ %(secret)s ORDER BY 1",
        secret=SECRET,
    )


async def test_rule_20_no_sample_of_what_was_erased_stays_in_the_statistics(world: World) -> None:
    assert await columns_that_keep_samples_of_what_was_erased(world) == []


HELD = ["chunks.content", "chunks.metadata", "files.key", "idempotency_keys.key", "versions.metadata"]


async def test_without_rule_20_the_statistics_keep_samples(world: World) -> None:
    observer = await world.observer()
    alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STATISTICS -1")
    for held in HELD:
        await observer.conn.execute(alter.format(*map(sql.Identifier, held.split("."))))
    assert await columns_that_keep_samples_of_what_was_erased(world) == HELD


async def test_rule_20_no_column_of_vectors_or_errors_keeps_samples(world: World) -> None:
    with_samples = await world.values(
        "SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0"
        " AND coalesce(a.attstattarget, -1) <> 0"
        " AND (a.atttypid IN (to_regtype('vector'), to_regtype('halfvec'))"
        "      OR (c.relname, a.attname) IN (('dead_letters', 'error'), ('segments', 'hashes')))"
    )
    assert with_samples == []


# --- rule 21: a rebuild replays, and swaps under the checkpoints -----------------------------------


async def a_version_is_complete_but_not_active(world: World) -> int | None:
    """Version 2 is the target and complete, and the projector has not come to it, when a rebuild runs."""
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    await world.append("doc", "two")
    await world.drain()
    await rebuild.rebuild(world.store, "docs")
    return await world.active_version("doc")


async def test_rule_21_a_rebuild_decides_nothing_anew(world: World) -> None:
    assert await a_version_is_complete_but_not_active(world) == 1
    assert await world.searchable() == ["one"]


async def test_without_rule_21_a_rebuild_activates_what_the_log_never_did(world: World) -> None:
    world.without_sql(REBUILD, "replay", "SELECT DISTINCT ON (e.file) e.file, e.version", _TARGETS)
    assert await a_version_is_complete_but_not_active(world) == 2
    assert await world.logged("version_activated") == 1, "and nobody can tell from the log"


_TARGETS = "SELECT DISTINCT ON (e.file) e.file, f.target AS version"


async def a_switch_comes_while_a_rebuild_copies(world: World) -> None:
    """A version becomes active after the rebuild has copied and before it swaps."""
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    job = rebuild._Rebuild(world.store, world.collection.row.collection, "docs", world.collection._serving)
    await job._beside.begin()
    await job._copy()
    await world.append("doc", "two")
    await world.drain()
    await world.activate("doc")
    await job._swap()


async def test_rule_21_the_swap_replays_the_tail(world: World) -> None:
    await a_switch_comes_while_a_rebuild_copies(world)
    assert await world.searchable() == ["two"]
    assert await world.damage() == []


async def test_without_rule_21_what_became_active_meanwhile_cannot_be_found(world: World) -> None:
    world.without_python(
        rebuild._Rebuild, "_swap", "late = await self._beside.copy(conn, missing)", "late = len(missing)"
    )
    await a_switch_comes_while_a_rebuild_copies(world)
    assert await world.searchable() == []
    assert "an active chunk that no search can find" in await world.damage()


async def a_swap_at_the_gate(world: World) -> tuple[Session, int, asyncio.Task[tuple[int, int]]]:
    """A rebuild's swap has replayed the log and stops at the gate, its own new active table."""
    job = rebuild._Rebuild(world.store, world.collection.row.collection, "docs", world.collection._serving)
    await job._beside.begin()
    await job._copy()
    gate = await world.begun()
    await gate.conn.execute(f"LOCK TABLE {world.active_table}_rebuild IN SHARE MODE".encode())
    swapping = await world.waits(job._swap(), on=gate)
    return gate, await world.waiter(gate), swapping


async def a_switch_meets_the_swap(world: World) -> None:
    """A switch of a projector that holds its checkpoint comes while the swap is at the gate."""
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    await world.append("doc", "two")
    await world.drain()
    projector = await world.session()
    checkpoint = await world.checkpoint(await world.partition_of("doc"))
    gate, swap, swapping = await a_swap_at_the_gate(world)
    switch = projector.values(
        "SELECT outcome FROM activate(%(model)s, %(partition)s, %(epoch)s, %(files)s::bigint[])",
        model=world.model,
        partition=checkpoint.partition,
        epoch=checkpoint.epoch,
        files=[await world.file_of("doc")],
    )
    switching = await world.races(switch, against=swap)
    await gate.rollback()
    await swapping
    await switching


async def test_rule_21_the_swap_keeps_switches_waiting(world: World) -> None:
    await a_switch_meets_the_swap(world)
    assert await world.searchable() == ["two"]
    assert await world.damage() == []


async def test_without_rule_21_a_switch_is_undone_by_the_swap(world: World) -> None:
    world.without_sql(BESIDE, "lock_checkpoints", "FOR UPDATE")
    await a_switch_meets_the_swap(world)
    assert await world.searchable() == ["one"], "the log says that version 2 was activated"


async def a_sweep_meets_the_swap(world: World) -> None:
    """The collector sweeps while the swap, which will drop and rename the tables, is at the gate."""
    await four_versions(world)
    run = collector._Run(world.store, collector.CollectReport(), collector._silent)
    await run.decide(None)
    gate, swap, swapping = await a_swap_at_the_gate(world)
    sweeping = await world.races(run.sweep(None), against=swap)
    await gate.rollback()
    await swapping
    await sweeping


async def test_rule_21_a_sweep_that_waited_for_the_swap_goes_on(world: World) -> None:
    await a_sweep_meets_the_swap(world)
    assert await world.value("SELECT count(*) FROM chunks") == 3
    assert await world.damage() == []


async def test_without_rule_21_a_sweep_and_the_swap_deadlock(world: World) -> None:
    world.without_sql(BESIDE, "lock_tables", "FOR UPDATE")
    with pytest.raises(DatabaseError, match="deadlock"):
        await a_sweep_meets_the_swap(world)


# --- rule 22: an ordered group's lease is columns of its progress row ------------------------------


async def two_projectors_claim_one_partition(world: World) -> list[bool]:
    """A has claimed and not committed when B claims, and waits or goes away; who of them has a range."""
    a, b = await world.begun(), await world.begun()
    group = leases.projector_group(world.model)
    first = await leases.claim_checkpoint(a.conn, group, 3, seconds=60, owner="a")
    claiming = await world.races(leases.claim_checkpoint(b.conn, group, 3, seconds=60, owner="b"), against=a)
    await a.commit()
    second = await claiming
    await b.commit()
    return [first is not None, second is not None]


async def test_rule_22_one_range_of_an_ordered_group_flies(world: World) -> None:
    assert await two_projectors_claim_one_partition(world) == [True, False]


async def test_rule_22_a_claim_that_waits_sees_the_lease_that_it_waited_for(world: World) -> None:
    world.without_sql(LEASES, "claim_checkpoint", "FOR UPDATE SKIP LOCKED", "FOR UPDATE")
    assert await two_projectors_claim_one_partition(world) == [True, False]


async def test_without_rule_22_two_ranges_fly(world: World) -> None:
    # The lease in another table: the claim locks the progress row and tests that table as it was before.
    observer = await world.observer()
    await observer.conn.execute("ALTER TABLE leases DROP CONSTRAINT leases_of_shared_groups")
    world.monkeypatch.setitem(
        LEASES._texts,
        "claim_checkpoint",
        """WITH free AS MATERIALIZED (
            SELECT p.consumer_group, p.partition, p.position
            FROM progress p
            WHERE p.consumer_group = %(group)s
              AND p.partition = %(partition)s
              AND NOT EXISTS (
                  SELECT FROM leases l
                  WHERE l.consumer_group = p.consumer_group
                    AND l.partition = p.partition
                    AND l.expires > clock_timestamp()
              )
            FOR UPDATE OF p
        ), taken AS (
            INSERT INTO leases (consumer_group, partition, lo, hi, owner, expires)
            SELECT consumer_group, partition, position, position + 1 + pg_backend_pid(), %(owner)s,
                   clock_timestamp() + %(lease)s::interval
            FROM free
            ON CONFLICT (consumer_group, partition, lo) DO UPDATE SET owner = EXCLUDED.owner
            RETURNING partition, lo, epoch
        )
        SELECT partition, lo AS position, epoch FROM taken""",
    )
    assert await two_projectors_claim_one_partition(world) == [True, True]
