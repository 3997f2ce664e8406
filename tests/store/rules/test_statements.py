"""Statements and isolation: rules 1 to 4."""

import re
from datetime import datetime
from pathlib import Path

import msgspec
import psycopg
import pytest

from chunkstore import log, versions
from chunkstore.database import Database
from chunkstore.errors import IsolationRefused, StaleVersion
from chunkstore.events import ModelAdded
from chunkstore.ingest import stamps
from chunkstore.ingest.stamps import Stamp
from chunkstore.model import ChunkId, FileId, ModelId
from tests.store.rules.fix_interleave import Session, World

EVENT = ModelAdded(collection=1, model=ModelId(1))

# --- rule 1: lock first, read in the next statement ----------------------------------------------

HEAD_READ_AFTER_LOCK = """
    PERFORM lock_partition(_partition);
    -- A new statement: what another writer committed while this one waited is seen (rule 1).
    SELECT coalesce(max(last_offset), -1)
    INTO _head
    FROM events
    WHERE partition = _partition;
"""
HEAD_READ_WITH_LOCK = """
    SELECT (SELECT coalesce(max(e.last_offset), -1) FROM events e WHERE e.partition = p.partition)
    INTO _head
    FROM partitions p
    WHERE p.partition = _partition
    FOR NO KEY UPDATE;
"""


async def two_appends_meet_in_a_partition(world: World) -> None:
    """A has appended a run of two chunks and not committed when B appends an event."""
    a, b = await world.begun(), await world.begun()
    await log.append(a.conn, 3, log.runs_of(FileId(1), 1, [ChunkId(10), ChunkId(11)]))
    waiting = await world.waits(log.append(b.conn, 3, [EVENT]), on=a)
    await a.commit()
    await waiting
    await b.commit()


async def test_rule_01_an_append_that_waited_reads_the_head_anew(world: World) -> None:
    await two_appends_meet_in_a_partition(world)
    assert await world.values("SELECT last_offset FROM events WHERE partition = 3 ORDER BY 1") == [1, 2]
    assert await world.damage() == []


async def test_without_rule_01_two_events_take_one_offset(world: World) -> None:
    await world.without("append_events", HEAD_READ_AFTER_LOCK, HEAD_READ_WITH_LOCK)
    await two_appends_meet_in_a_partition(world)
    assert await world.values("SELECT last_offset FROM events WHERE partition = 3 ORDER BY 1") == [0, 1]
    assert "two events cover one offset, or none does" in await world.damage()


async def a_writer_waits_for_another_of_the_same_file(world: World) -> None:
    """B expects version 1 to be the latest, while A commits version 2."""
    await world.append("doc", "one")
    a = await world.begun()
    file = await world.file_of("doc")
    await a.conn.execute(versions.VERSIONS.lock_known_file, {"file": file})
    await versions.insert_committed(a.conn, file, versions.NOTHING_STORED, digest=b"two", metadata=b"{}")
    waiting = await world.waits(world.append("doc", "three", expected_version=1), on=a)
    await a.commit()
    await waiting


async def test_rule_01_a_writer_reads_its_files_state_after_the_lock(world: World) -> None:
    with pytest.raises(StaleVersion, match="1 is not the latest version, which is 2"):
        await a_writer_waits_for_another_of_the_same_file(world)


LOCK_THE_FILE = (
    'file = await rows.fetch_value(conn, VERSIONS.lock_file, {"collection": collection, "key": key})'
)
READ_THEN_LOCK = """
    known = await rows.fetch_value(conn, VERSIONS.file_of, {"collection": collection, "key": key})
    state = await _state(conn, known, idempotency_key) if known else None
    file = await rows.fetch_value(conn, VERSIONS.lock_file, {"collection": collection, "key": key})
    if state:
        return state"""


async def test_without_rule_01_a_writer_overwrites_what_it_never_saw(world: World) -> None:
    world.without_python(versions, "lock", LOCK_THE_FILE, READ_THEN_LOCK.strip())
    await a_writer_waits_for_another_of_the_same_file(world)
    assert [version.number for version in await world.collection.history("doc")] == [1, 2, 3]


# --- rule 1: READ COMMITTED only, refused at the door ---------------------------------------------

DOORS = {
    "append_events": "SELECT append_events(0, '[]')",
    "lock_all_partitions": "SELECT lock_all_partitions()",
    "lock_file": "SELECT lock_file(1, 'doc')",
    "claim": "SELECT claim('embed:1', 1, '1 second', 'test', 0)",
    "complete": "SELECT complete('embed:1', 0, 0, 1, 1, '{}', '{}', true)",
    "dead_letter": "SELECT dead_letter('embed:1', 0, 0, 1, 1, 1, 1, '')",
    "activate": "SELECT activate(1, 0, 1, '{}')",
    "stage_target": "SELECT stage_target(1, 0, 1, 1, 1, 1)",
    "remove_superseded": "SELECT remove_superseded(1, 1, '{}')",
    "sweep_segments": "SELECT sweep_segments(1, 1, 1)",
    "erase_file": "SELECT erase_file(1, 'doc')",
}


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_rule_01_another_isolation_level_is_refused_at_every_door(world: World, isolation: str) -> None:
    session = await world.session()
    for door, call in DOORS.items():
        await session.begin(isolation)
        with pytest.raises(psycopg.Error) as refused:
            await session.conn.execute(call.encode())
        assert refused.value.sqlstate == "CS001", door
        await session.rollback()


async def an_append_under_an_old_snapshot(world: World) -> None:
    """B's snapshot is older than what A appended; B's lock is not."""
    b = await (await world.session()).begin("REPEATABLE READ")
    await b.value("SELECT count(*) FROM events")
    a = await world.begun()
    await log.append(a.conn, 3, log.runs_of(FileId(1), 1, [ChunkId(10), ChunkId(11)]))
    await a.commit()
    await log.append(b.conn, 3, [EVENT])
    await b.commit()


async def test_without_rule_01_an_old_snapshot_appends_over_what_is_there(world: World) -> None:
    with pytest.raises(psycopg.Error, match="READ COMMITTED only"):
        await an_append_under_an_old_snapshot(world)
    await world.without("require_read_committed", "<> 'read committed'", "= 'read uncommitted'")
    await an_append_under_an_old_snapshot(world)
    assert "two events cover one offset, or none does" in await world.damage()


async def test_rule_01_a_server_that_defaults_to_another_level_changes_nothing(dsn: str, schema: str) -> None:
    strict = psycopg.conninfo.make_conninfo(dsn, options="-c default_transaction_isolation=serializable")
    async with await Database.open(strict, schema=schema) as database, database.transaction() as conn:
        await log.append(conn, 0, [EVENT])


async def test_without_rule_01_a_transaction_at_the_servers_level_is_refused(dsn: str, schema: str) -> None:
    strict = psycopg.conninfo.make_conninfo(dsn, options="-c default_transaction_isolation=serializable")
    async with await Database.open(strict, schema=schema) as database:
        begin = database._session.begin
        assert begin.count(b"ISOLATION LEVEL READ COMMITTED") == 1
        database._session = msgspec.structs.replace(
            database._session, begin=begin.replace(b"ISOLATION LEVEL READ COMMITTED", b"")
        )
        with pytest.raises(IsolationRefused):
            async with database.transaction() as conn:
                await log.append(conn, 0, [EVENT])


# --- rule 2: get or create is insert, then select in a new statement ------------------------------

INSERT_THEN_SELECT = """
        INSERT INTO files (collection, key, partition)
        SELECT _collection, _key,
               (hashtextextended(_key, _collection) & 2147483647) % (SELECT count(*) FROM partitions)
        ON CONFLICT (collection, key) DO NOTHING;
"""
INSERT_OR_SELECT = """
        WITH created AS (
            INSERT INTO files (collection, key, partition)
            VALUES (_collection, _key, 0)
            ON CONFLICT (collection, key) DO NOTHING
            RETURNING file
        )
        SELECT file FROM created
        UNION ALL
        SELECT file FROM files WHERE collection = _collection AND key = _key
        INTO _file;
        RETURN _file;
"""


async def two_writers_create_one_file(world: World) -> tuple[int, int | None]:
    """A has created the file and not committed when B asks for it."""
    a, b = await world.begun(), await world.begun()
    statement = "SELECT lock_file(%(collection)s, 'doc')"
    first = await a.value(statement, collection=world.number)
    waiting = await world.waits(b.value(statement, collection=world.number), on=a)
    await a.commit()
    second = await waiting
    await b.commit()
    return first, second


async def test_rule_02_two_writers_that_create_one_file_get_the_same(world: World) -> None:
    first, second = await two_writers_create_one_file(world)
    assert second == first


async def test_without_rule_02_the_second_writer_gets_no_file(world: World) -> None:
    await world.without("lock_file", INSERT_THEN_SELECT, INSERT_OR_SELECT)
    assert (await two_writers_create_one_file(world))[1] is None


# --- rule 3: lock the chunks, delete what stands on them, delete them: statements of their own -----

ERASE_LOCKS_CHUNKS = "PERFORM FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR UPDATE;"


async def an_erasure_meets_a_consumer(world: World) -> None:
    """A consumer has stored an embedding and not committed when the file is erased."""
    await world.append("doc", "one")
    lease = await world.claimed()
    consumer = await world.begun()
    await world.complete(consumer, lease, [await world.chunk("one")])
    waiting = await world.waits(world.collection.erase("doc"), on=consumer)
    await consumer.commit()
    await waiting


async def test_rule_03_an_erasure_removes_the_embedding_that_it_waited_for(world: World) -> None:
    await an_erasure_meets_a_consumer(world)
    assert await world.value("SELECT count(*) FROM embeddings") == 0
    assert await world.damage() == []


async def test_without_rule_03_an_erasure_leaves_an_embedding_behind(world: World) -> None:
    await world.without("erase_file", ERASE_LOCKS_CHUNKS)
    await an_erasure_meets_a_consumer(world)
    assert "an embedding without its chunk" in await world.damage()


async def a_sweep_meets_a_consumer(world: World) -> list[str]:
    """A consumer has stored an embedding and not committed when its chunk is swept."""
    await world.append("doc", "one")
    lease = await world.claimed()
    chunk = await world.chunk("one")
    await world.append("doc", "two")
    await world.value("UPDATE versions SET state = 'collected' WHERE version = 1 RETURNING 1")
    consumer, collector = await world.begun(), await world.session()
    await world.complete(consumer, lease, [chunk])
    sweep = "SELECT sweep_segments(%(file)s, 1, 1000)"
    sweeping = await world.races(collector.value(sweep, file=await world.file_of("doc")), against=consumer)
    await consumer.commit()
    await sweeping
    await collector.value(sweep, file=await world.file_of("doc"))
    return await world.values("SELECT content FROM chunks")


async def test_rule_03_a_sweep_passes_over_a_chunk_that_is_being_embedded_and_comes_back(
    world: World,
) -> None:
    assert await a_sweep_meets_a_consumer(world) == ["two"]
    assert await world.damage() == []


async def test_without_rule_03_a_sweep_leaves_an_embedding_behind(world: World) -> None:
    await world.without("sweep_segments", "FOR UPDATE SKIP LOCKED")
    assert await a_sweep_meets_a_consumer(world) == ["two"]
    assert "an embedding without its chunk" in await world.damage()


TABLES_OF_A_FILE = ["segments", "versions", "idempotency_keys", "active_versions", "sources"]


async def stamp(world: World) -> None:
    """Saves a stamp for the first version of `doc`."""
    file = FileId(await world.file_of("doc"))
    made_of = {"size": 3, "mtime_ns": 1, "hash": b"h", "parser": "text/1", "chunker": "c"}
    await stamps.save(world.collection, [Stamp(key="doc", file=file, version=1, **made_of)])


@pytest.mark.parametrize("table", TABLES_OF_A_FILE)
async def test_rule_03_an_erasure_leaves_no_row_of_the_file(world: World, table: str) -> None:
    await world.append("doc", "one", idempotency_key="first", metadata={"title": "T"})
    await stamp(world)
    await world.drain()
    await world.activate("doc")
    assert await world.value(f"SELECT count(*) FROM {table}") == 1
    await world.collection.erase("doc")
    assert await world.value(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("table", TABLES_OF_A_FILE)
async def test_without_rule_03_an_erasure_leaves_rows_that_tell_of_the_file(world: World, table: str) -> None:
    await world.without("erase_file", f"DELETE FROM {table} WHERE file = _file;")
    await world.append("doc", "one", idempotency_key="first", metadata={"title": "T"})
    await stamp(world)
    await world.drain()
    await world.activate("doc")
    await world.collection.erase("doc")
    assert "content of an erased file" in await world.damage()


# --- rule 4: database time, and the clock where waiting for a lock may lie between -----------------


async def a_batch_waits_for_the_files_lock(world: World) -> tuple[datetime, datetime]:
    """B's transaction begins, then waits; when the wait was over, and from when its new deadline counts."""
    await world.append("doc", "one")
    file = await world.file_of("doc")
    b = await world.begun()
    version = await versions.open_version(b.conn, file, b"{}")
    await b.commit()
    await b.begin()
    await b.value("SELECT now()")
    a = await world.begun()
    await a.conn.execute(versions.VERSIONS.lock_known_file, {"file": file})
    waiting = await world.waits(versions.lock_open(b.conn, file, version), on=a)
    over = await a.value("SELECT clock_timestamp()")
    await a.commit()
    await waiting
    await versions.extend(b.conn, file, version, versions.NOTHING_STORED)
    await b.commit()
    from_ = await world.value(
        "SELECT deadline - %(length)s::interval FROM versions WHERE state = 'open'", length=versions._DEADLINE
    )
    return over, from_


async def test_rule_04_a_batch_that_waited_renews_its_deadline_from_then_on(world: World) -> None:
    over, renewed_from = await a_batch_waits_for_the_files_lock(world)
    assert renewed_from >= over


async def test_without_rule_04_the_wait_is_taken_off_the_deadline(world: World) -> None:
    world.without_sql(versions.VERSIONS, "extend", "clock_timestamp()", "now()")
    over, renewed_from = await a_batch_waits_for_the_files_lock(world)
    assert renewed_from < over


async def an_old_transaction_appends_behind_a_young_one(world: World) -> list[datetime]:
    """B begins before A and appends after it; returns the times of the log in the order of its offsets."""
    b = await world.begun()
    await b.value("SELECT now()")
    a = await world.begun()
    await log.append(a.conn, 3, [EVENT])
    waiting = await world.waits(log.append(b.conn, 3, [EVENT]), on=a)
    await a.commit()
    await waiting
    await b.commit()
    return await world.values("SELECT recorded_at FROM events WHERE partition = 3 ORDER BY last_offset")


async def test_rule_04_the_logs_times_follow_its_offsets(world: World) -> None:
    times = await an_old_transaction_appends_behind_a_young_one(world)
    assert times == sorted(times)


async def test_without_rule_04_the_log_goes_back_in_time(world: World) -> None:
    observer = await world.observer()
    await observer.conn.execute("ALTER TABLE events ALTER COLUMN recorded_at SET DEFAULT now()")
    times = await an_old_transaction_appends_behind_a_young_one(world)
    assert times != sorted(times)


async def an_old_transaction_claims_what_has_just_expired(world: World) -> bool:
    """A lease runs out while B's transaction is open; whether B then can take it over."""
    await world.append("doc", "one")
    b = await world.begun()
    await b.value("SELECT now()")
    lease = await world.claimed()
    await world.value("UPDATE leases SET expires = clock_timestamp() RETURNING 1")
    await _ticks(await world.observer())
    taken = await b.values(
        "SELECT epoch FROM claim(%(group)s, 1, '1 minute', 'b', %(start)s)",
        group=lease.group,
        start=lease.partition,
    )
    await b.commit()
    return bool(taken)


async def _ticks(session: Session) -> None:
    """Returns when the database's clock has moved on."""
    await session.conn.execute(
        "DO $$ DECLARE _start timestamptz := clock_timestamp();"
        " BEGIN LOOP EXIT WHEN clock_timestamp() > _start; END LOOP; END $$"
    )


async def test_rule_04_an_old_transaction_sees_that_a_lease_ran_out(world: World) -> None:
    assert await an_old_transaction_claims_what_has_just_expired(world)


async def test_without_rule_04_an_expired_lease_holds_as_long_as_the_transaction(world: World) -> None:
    await world.without("has_work", "clock_timestamp()", "now()")
    assert not await an_old_transaction_claims_what_has_just_expired(world)


def test_rule_04_no_statement_asks_for_the_time_at_which_its_transaction_began() -> None:
    root = Path(__file__).parents[3]
    files = [*root.glob("chunkstore/sql/*.sql"), *root.glob("migrations/*.sql")]
    assert len(files) > 10
    began = re.compile(r"\bnow\(\)|\b(current|local|transaction|statement)_?timestamp\b", re.IGNORECASE)
    assert [path.name for path in files if began.search(path.read_text())] == []
