"""`verify` finds what is broken and only that: damage done by hand, and nothing in a sound store."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from psycopg import AsyncConnection

from chunkstore import Chunk
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from projections import verify as verifying
from projections.collector import collect
from projections.rebuild import rebuild
from projections.verify import CHECKS, SHOWN, VerifyReport, verify
from tests.store.damage_by_hand import DAMAGE
from tests.store.fix_lived import Lived, lived
from tests.store.fix_store import collection, store

__all__ = ["collection", "lived", "store"]

IMMUTABLE = ("events", "chunks", "embeddings", "segments")


class _Undone(Exception):
    pass


@asynccontextmanager
async def damaged(lived: Lived, statements: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A transaction in which the statements have been run as the owner could, rolled back at its end."""
    with pytest.raises(_Undone):
        async with lived.store.database.transaction() as conn:
            for table in IMMUTABLE:
                await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_are_immutable".encode())
            if "TRIGGER" in statements:
                await _enable_triggers(conn)
            await conn.execute(statements.encode())
            if "TRIGGER" not in statements:
                await _enable_triggers(conn)
            yield conn
            raise _Undone


async def _enable_triggers(conn: AsyncConnection[Any]) -> None:
    for table in IMMUTABLE:
        await conn.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_are_immutable".encode())


async def filled(lived: Lived, statements: str) -> str:
    return statements.format(search="search_1_1", active="active_1_1", **await lived.numbers())


def rows_of(report: VerifyReport) -> list[dict[str, Any]]:
    return [json.loads(violation.row) for check in report.broken for violation in check.violations]


def broken(report: VerifyReport) -> set[str]:
    return {check.name for check in report.broken}


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", DAMAGE)
async def test_damage_is_found_by_just_the_checks_that_it_breaks(lived: Lived, what: str) -> None:
    damage = DAMAGE[what]
    numbers = await lived.numbers()
    files = {column: numbers.get(key) for column, key in damage.shows.items() if column.startswith("file")}
    wanted = damage.shows | files
    async with damaged(lived, await filled(lived, damage.statements)) as conn:
        report = await verifying.check(conn)
    assert broken(report) == damage.breaks
    assert not report.ok
    assert [row for row in rows_of(report) if wanted.items() <= row.items()], rows_of(report)


def test_every_check_is_broken_by_some_damage() -> None:
    breakable = {spec.name for spec in CHECKS if not spec.pending}
    assert breakable == {name for damage in DAMAGE.values() for name in damage.breaks}


async def test_a_check_counts_all_violations_and_shows_the_first(lived: Lived) -> None:
    statements = await filled(
        lived, "DELETE FROM {search} WHERE chunk_id IN (SELECT chunk_id FROM {active} LIMIT 30)"
    )
    async with damaged(lived, statements) as conn:
        report = await verifying.check(conn)
    (found,) = report.broken
    assert (found.name, found.count, len(found.violations)) == ("active_searchable", 30, SHOWN)
    assert found.description == "Every active chunk that has an embedding is in the search table."


async def test_committed_damage_is_found_through_the_store(store: ChunkStore) -> None:
    docs = await store.collection("docs", model=HashingModel(8))
    await docs.append("a", [Chunk("one"), Chunk("two")])
    async with store.database.transaction() as conn:
        await conn.execute("DELETE FROM chunks WHERE content = 'one'")
    report = await verify(store)
    assert broken(report) == {"manifest_chunks"}
    assert not report.ok


# --- sound stores -------------------------------------------------------------------------------


async def test_a_store_that_has_lived_is_sound_and_has_nothing_left_over(lived: Lived) -> None:
    report = await verify(lived.store)
    assert [(check.name, check.violations) for check in report.checks if check.count] == []
    assert [check.skipped for check in report.checks if check.skipped] == []
    assert report.ok


async def test_an_empty_store_is_sound(store: ChunkStore) -> None:
    report = await verify(store)
    assert [check.name for check in report.checks] == [spec.name for spec in CHECKS]
    assert report.ok


async def test_a_store_is_sound_at_every_step_of_its_life(store: ChunkStore) -> None:
    model = HashingModel(8)
    docs = await store.collection("docs", model=model, keep_last=1)
    alive = Lived(store, docs, model)

    async def step(what: Any) -> None:
        await what
        found = await verify(store)
        assert [(check.name, check.violations) for check in found.broken] == []

    for version in range(2):
        await step(alive.append("a", "same", f"text {version}"))
        await step(alive.append("b", f"text {version}"))
        await step(alive.drain())
    await step(docs.rollback("a", 1))
    await step(alive.drain())
    await step(docs.delete("b"))
    await step(collect(store))
    await step(alive.drain())
    await step(docs.add_model(HashingModel(16)))
    await step(Lived(store, docs, HashingModel(16)).drain())
    await step(docs.serve("hashing-16"))
    await step(rebuild(store, "docs"))
    await step(docs.erase("a"))
    await step(collect(store))


async def test_a_store_with_work_left_says_what_it_could_not_check(store: ChunkStore) -> None:
    docs = await store.collection("docs", model=HashingModel(8))
    await docs.append("a", [Chunk("one")])
    report = await verify(store)
    assert {check.name: check.skipped for check in report.checks if check.skipped} == {
        "needed_chunks": "not drained: docs (hashing-8)",
        "active_targets": "not drained: docs (hashing-8)",
    }
    assert report.ok


async def test_without_replay_the_logs_activations_are_not_read(lived: Lived) -> None:
    damage = DAMAGE["an activation that the projection does not show"]
    async with damaged(lived, await filled(lived, damage.statements)) as conn:
        report = await verifying.check(conn, replay=False)
    assert report.ok
    skipped = {check.name for check in report.checks if check.skipped == "without replay"}
    assert skipped == {"activations", "replay", "search_vectors"}


async def test_a_discarded_chunk_that_was_taken_back_leaves_its_version_active(lived: Lived) -> None:
    """A retry deletes the dead letter of a chunk that is active without its embedding."""
    taken_back = """INSERT INTO events (partition, last_offset, n, type, file, data)
           SELECT f.partition, max(e.last_offset) + 1, 1, 'dead_letter_retried', f.file,
                  jsonb_build_object('model', 1, 'chunk', d.chunk_id)
           FROM dead_letters d JOIN files f USING (file) JOIN events e USING (partition)
           WHERE d.state = 'discarded' GROUP BY f.partition, f.file, d.chunk_id;
           DELETE FROM dead_letters WHERE state = 'discarded'"""
    async with damaged(lived, taken_back) as conn:
        report = await verifying.check(conn)
    assert broken(report) == set()


# --- what waits for the collector or the projector ----------------------------------------------


async def test_versions_that_wait_for_the_collector_are_pending_and_break_nothing(lived: Lived) -> None:
    overdue = (
        "UPDATE versions SET state = 'open', committed_at = NULL, deadline = '-infinity' "
        "WHERE file = {pinned} AND version = 1; UPDATE versions SET pinned = false WHERE file = {pinned}"
    )
    async with damaged(lived, await filled(lived, overdue)) as conn:
        report = await verifying.check(conn)
    (found,) = [check for check in report.checks if check.count]
    assert (found.name, found.pending, found.count) == ("to_collect", True, 1)
    assert report.ok


async def test_superseded_search_rows_are_pending_and_break_nothing(lived: Lived) -> None:
    superseded = """INSERT INTO {search} SELECT chunk_id, embedding FROM embeddings
                    JOIN chunks USING (chunk_id) WHERE content = 'second'"""
    async with damaged(lived, await filled(lived, superseded)) as conn:
        report = await verifying.check(conn)
    (found,) = [check for check in report.checks if check.count]
    assert (found.name, found.pending, found.count) == ("superseded_search_rows", True, 1)
    assert report.ok


async def test_an_index_that_a_failed_build_left_is_pending_until_somebody_builds(lived: Lived) -> None:
    left = """CREATE INDEX half_built ON {search} USING hnsw (embedding halfvec_cosine_ops);
              UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half_built'::regclass"""
    async with damaged(lived, await filled(lived, left)) as conn:
        report = await verifying.check(conn)
        await conn.execute("LOCK TABLE search_1_1 IN SHARE UPDATE EXCLUSIVE MODE")
        while_built = await verifying.check(conn)
    (found,) = [check for check in report.checks if check.count]
    assert (found.name, found.pending, json.loads(found.violations[0].row)["index_name"]) == (
        "invalid_indexes",
        True,
        "half_built",
    )
    assert report.ok
    assert [check.name for check in while_built.checks if check.count] == []


# --- a live store -------------------------------------------------------------------------------


async def test_a_store_is_sound_at_every_moment_while_it_is_written(store: ChunkStore) -> None:
    model = HashingModel(8)
    docs = await store.collection("docs", model=model, keep_last=1)
    alive = Lived(store, docs, model)
    reports: list[VerifyReport] = []

    async def write() -> None:
        for version in range(6):
            for key in "abc":
                await alive.append(key, "same", f"{key} {version}")
            await alive.drain()
            await collect(store)
            await rebuild(store, "docs")
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        while True:
            reports.append(await verify(store))
    assert len(reports) > 3
    assert [(check.name, check.violations) for report in reports for check in report.broken] == []


async def test_tables_that_are_swapped_while_verify_begins_are_seen_as_one_state(lived: Lived) -> None:
    """A rebuild's swap commits after verify asked for the tables: their new rows must not be missed."""
    async with lived.store.database.connection() as swap, lived.store.database.connection() as observer:
        await swap.execute("BEGIN")
        for table in ("search_1_1", "active_1_1"):
            await swap.execute(f"CREATE TABLE swapped (LIKE {table} INCLUDING ALL)".encode())
            await swap.execute(f"INSERT INTO swapped SELECT * FROM {table}".encode())
            await swap.execute(f"DROP TABLE {table}".encode())
            await swap.execute(f"ALTER TABLE swapped RENAME TO {table}".encode())
        await swap.execute("ALTER TABLE search_1_1 ALTER COLUMN embedding SET STATISTICS 0")
        verifies = asyncio.create_task(verify(lived.store))
        with anyio.fail_after(10):
            while not await _blocked_by(observer, swap.info.backend_pid):
                await asyncio.wait([verifies], timeout=0.005)
        await swap.execute("COMMIT")
        report = await verifies
    assert [(check.name, check.violations) for check in report.broken] == []


async def _blocked_by(observer: AsyncConnection[Any], pid: int) -> bool:
    statement = "SELECT count(*) > 0 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    found = await (await observer.execute(statement, [pid])).fetchone()
    assert found is not None
    return found[0]
