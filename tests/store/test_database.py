"""The pool and its transactions (rule 1), and what its users read when something is wrong."""

import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import anyio
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from chunkstore import rows, scrub
from chunkstore.answers import Answering
from chunkstore.database import Database
from chunkstore.dsn import Dsn
from chunkstore.errors import (
    AuthenticationFailed,
    ChunkstoreError,
    DatabaseError,
    DatabaseMissing,
    InsufficientPrivilege,
    InvalidInput,
    IsolationRefused,
    LeaseLost,
    ServerUnreachable,
)
from tests.fix_server import Server

PASSWORD = "s3cr3t w/rd@"


@pytest.fixture
async def table(database: Database) -> str:
    """A table of one integer column."""
    async with database.transaction() as connection:
        await connection.execute("CREATE TABLE numbers (number integer)")
    return "numbers"


@pytest.fixture
def guarded(server: Server) -> Iterator[Callable[[str], str]]:
    """The address, given a password, of a role that the embedded server asks for one: `PASSWORD`."""
    if server.log is None:
        pytest.skip("needs the embedded server's pg_hba.conf")
    role = f"test_{uuid4().hex[:16]}"
    rules = server.log.parent / "pg_hba.conf"
    before = rules.read_text()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        connection.execute(statement.format(sql.Identifier(role), sql.Literal(PASSWORD)))
        rules.write_text(f"local all {role} scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        yield lambda password: make_conninfo(server.dsn, user=role, password=password)
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


async def _count(database: Database) -> int:
    async with database.transaction() as connection:
        row = await (await connection.execute("SELECT count(*) FROM numbers")).fetchone()
        assert row is not None
        return row[0]


async def _insert(database: Database, table: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(f"INSERT INTO {table} VALUES (1)")


# --- transactions -------------------------------------------------------------------------------


async def test_a_transaction_reads_committed_in_the_stores_schema(database: Database) -> None:
    async with database.transaction() as connection:
        cursor = await connection.execute("SELECT current_setting('transaction_isolation'), current_schema()")
        assert await cursor.fetchone() == ("read committed", database.schema)


async def test_a_transaction_reads_committed_where_the_default_is_stricter(dsn: str, schema: str) -> None:
    strict = make_conninfo(dsn, options="-c default_transaction_isolation=serializable")
    async with await Database.open(strict, schema=schema) as database, database.transaction() as connection:
        cursor = await connection.execute("SHOW transaction_isolation")
        assert await cursor.fetchone() == ("read committed",)


async def test_a_transaction_leaves_no_setting_behind_on_its_connection(dsn: str, schema: str) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        async with database.transaction() as connection:
            inside = connection
        assert (await (await inside.execute("SELECT current_schema()")).fetchone()) == ("public",)


async def test_a_transaction_commits_at_its_end(database: Database, table: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(f"INSERT INTO {table} VALUES (1)")
    assert await _count(database) == 1


async def test_a_transaction_rolls_back_on_any_error(database: Database, table: str) -> None:
    with pytest.raises(KeyError):
        async with database.transaction() as connection:
            await connection.execute(f"INSERT INTO {table} VALUES (1)")
            raise KeyError
    assert await _count(database) == 0


async def test_a_transaction_whose_error_was_swallowed_says_that_it_wrote_nothing(
    database: Database, table: str
) -> None:
    with pytest.raises(DatabaseError, match="nothing was committed"):
        async with database.transaction() as connection:
            await connection.execute(f"INSERT INTO {table} VALUES (1)")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0")
    assert await _count(database) == 0


async def test_a_snapshot_sees_nothing_that_was_committed_after_its_first_query(
    database: Database, table: str
) -> None:
    async with database.snapshot() as connection:
        await connection.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        await _insert(database, table)
        assert (await (await connection.execute(f"SELECT count(*) FROM {table}")).fetchone()) == (1,)
        await _insert(database, table)
        assert (await (await connection.execute(f"SELECT count(*) FROM {table}")).fetchone()) == (1,)
    assert await _count(database) == 2


async def test_a_snapshot_writes_nothing(database: Database, table: str) -> None:
    with pytest.raises(DatabaseError, match="read-only"):
        async with database.snapshot() as connection:
            await connection.execute(f"INSERT INTO {table} VALUES (1)")
    assert await _count(database) == 0


async def test_a_cancelled_transaction_is_rolled_back_and_its_connection_used_again(
    dsn: str, schema: str
) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        with anyio.move_on_after(0.2) as scope:
            async with database.transaction() as connection:
                await connection.execute("CREATE TABLE never ()")
                await connection.execute("SELECT pg_sleep(60)")
        assert scope.cancelled_caught
        with anyio.fail_after(20):
            async with database.transaction() as connection:
                cursor = await connection.execute("SELECT to_regclass('never')")
                assert await cursor.fetchone() == (None,)


async def test_a_statement_may_be_run_more_often_than_it_takes_to_be_prepared(dsn: str, schema: str) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        for number in range(20):
            async with database.transaction() as connection:
                cursor = await connection.execute("SELECT %s::integer", [number])
                assert await cursor.fetchone() == (number,)


# --- one statement that reads -------------------------------------------------------------------


SETTINGS = b"""
    SELECT current_setting('transaction_isolation') AS isolation, current_schema() AS schema,
           current_setting('hnsw.ef_search') AS ef_search, pg_sleep(%(seconds)s) IS NULL AS slept
"""


async def asked(
    database: Database, statement: bytes, *, ef_search: int = 77, **params: object
) -> list[dict[str, object]]:
    return await database.ask(statement, params, settings={"hnsw.ef_search": str(ef_search)}, row=dict)


async def test_a_question_is_asked_as_in_a_transaction_with_its_settings(dsn: str, schema: str) -> None:
    strict = make_conninfo(dsn, options="-c default_transaction_isolation=serializable")
    async with await Database.open(strict, schema=schema, max_size=1) as database:
        for number in range(20):  # more often than it takes to be prepared
            ef_search = 77 + number // 9
            assert await asked(database, SETTINGS, ef_search=ef_search, seconds=0) == [
                {
                    "isolation": "read committed",
                    "schema": schema,
                    "ef_search": str(ef_search),
                    "slept": False,
                }
            ]


async def test_a_question_is_one_round_trip(dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        await asked(database, SETTINGS, seconds=0)
        original, trips = Answering.wait, 0

        async def wait(connection: Answering, *args: object) -> object:
            nonlocal trips
            trips += 1
            return await original(connection, *args)

        monkeypatch.setattr(Answering, "wait", wait)
        await asked(database, SETTINGS, seconds=0)
        assert trips == 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (b"SELECT 1 / %(number)s", "refused a value"),
        (b"SELECT %(number)s FROM nothing", "nothing"),
        (b"SELECT %(number)s; SELECT 2", "multiple commands"),
    ],
)
async def test_an_error_of_a_question_is_told_and_its_connection_used_again(
    dsn: str, schema: str, statement: bytes, said: str
) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        for _ in range(8):
            with pytest.raises(DatabaseError, match=said):
                await asked(database, statement, number=0)
            with anyio.fail_after(20):
                assert (await asked(database, SETTINGS, seconds=0))[0]["schema"] == schema


async def test_a_cancelled_question_is_given_up_and_the_next_one_answered(dsn: str, schema: str) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        for _ in range(8):
            with anyio.move_on_after(0.1) as scope:
                await asked(database, SETTINGS, seconds=60)
            assert scope.cancelled_caught
            with anyio.fail_after(20):
                assert (await asked(database, SETTINGS, seconds=0))[0]["schema"] == schema


async def test_a_lost_connection_of_a_question_is_told_apart_and_the_next_one_answered(
    dsn: str, schema: str
) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        with pytest.raises(ServerUnreachable):
            await asked(database, b"SELECT pg_terminate_backend(pg_backend_pid())")
        with anyio.fail_after(20):
            assert (await asked(database, SETTINGS, seconds=0))[0]["schema"] == schema


# --- lost connections ---------------------------------------------------------------------------


async def test_a_lost_connection_is_told_apart_and_the_next_transaction_works(dsn: str, schema: str) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        with pytest.raises(ServerUnreachable):
            async with database.transaction() as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        with anyio.fail_after(20):
            async with database.transaction() as connection:
                await connection.execute("SELECT 1")


async def test_a_connection_that_died_in_the_pool_is_told_apart(dsn: str, schema: str) -> None:
    async with await Database.open(dsn, schema=schema, max_size=1) as database:
        async with database.transaction() as connection:
            process = connection.info.backend_pid
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [process])
        with pytest.raises(ServerUnreachable):
            async with database.transaction():
                pass
        with anyio.fail_after(20):
            async with database.transaction() as connection:
                await connection.execute("SELECT 1")


async def test_a_closed_database_is_not_taken_for_a_lost_server(dsn: str, schema: str) -> None:
    database = await Database.open(dsn, schema=schema)
    await database.close()
    with pytest.raises(DatabaseError, match="closed") as caught:
        async with database.transaction():
            pass
    assert not isinstance(caught.value, ServerUnreachable)


@pytest.mark.parametrize(("state", "kind"), [("CS001", IsolationRefused), ("CS002", LeaseLost)])
async def test_what_our_sql_raises_becomes_the_error_that_it_means(
    database: Database, state: str, kind: type[ChunkstoreError]
) -> None:
    with pytest.raises(kind, match=r"^why it was refused$") as caught:
        async with database.transaction() as connection:
            await connection.execute(
                f"DO $$ BEGIN RAISE EXCEPTION 'why it was refused' USING ERRCODE = '{state}'; END $$"
            )
    assert isinstance(caught.value.__cause__, psycopg.Error)


async def test_a_refused_value_does_not_stand_in_the_error(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        async with database.transaction() as connection:
            await connection.execute("SELECT 'the content of a chunk'::integer")
    assert "the content of a chunk" not in str(caught.value)
    assert "InvalidTextRepresentation" in str(caught.value)


# --- a connection outside transactions ----------------------------------------------------------


async def test_a_connection_of_its_own_hears_notifications(database: Database) -> None:
    async with database.connection() as listener:
        await listener.execute("LISTEN news")
        async with database.connection() as speaker:
            await speaker.execute("NOTIFY news, 'arrived'")
        heard = [notice.payload async for notice in listener.notifies(timeout=10, stop_after=1)]
    assert heard == ["arrived"]


async def test_a_connection_of_its_own_builds_an_index_concurrently(database: Database, table: str) -> None:
    async with database.connection() as connection:
        await connection.execute(f"CREATE INDEX CONCURRENTLY found ON {table} (number)")
    async with database.transaction() as connection:
        cursor = await connection.execute("SELECT to_regclass('found')::text")
        assert await cursor.fetchone() == ("found",)


async def test_an_error_on_a_connection_of_its_own_is_translated(database: Database) -> None:
    with pytest.raises(DatabaseError, match="no_such_table"):
        async with database.connection() as connection:
            await connection.execute("SELECT FROM no_such_table")


# --- what cannot be opened ----------------------------------------------------------------------


async def test_no_server_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"postgresql://somebody@127.0.0.1:{taken.getsockname()[1]}/store"
        with anyio.fail_after(3), pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1"):
            await Database.open(closed)
    with anyio.fail_after(3), pytest.raises(ServerUnreachable, match=str(tmp_path)):
        await Database.open(f"host={tmp_path} dbname=store")


async def test_a_host_that_has_no_address_is_no_server() -> None:
    with pytest.raises(ServerUnreachable, match=r"nowhere\.invalid"):
        await Database.open("postgresql://nowhere.invalid/store")


async def test_a_missing_database_is_named(dsn: str) -> None:
    with pytest.raises(DatabaseMissing, match="no_such_database"):
        await Database.open(make_conninfo(dsn, dbname="no_such_database"))


async def test_an_unknown_role_is_named(dsn: str) -> None:
    with pytest.raises(AuthenticationFailed, match="no_such_role"):
        await Database.open(make_conninfo(dsn, user="no_such_role"))


async def test_a_wrong_password_is_told_apart(guarded: Callable[[str], str]) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        await Database.open(guarded(f"not {PASSWORD}"))
    assert PASSWORD not in _all_text(caught.value)


async def test_a_password_that_is_not_given_is_told_apart(guarded: Callable[[str], str]) -> None:
    with pytest.raises(AuthenticationFailed):
        await Database.open(guarded(""))


async def test_a_role_without_rights_in_the_schema_is_refused(
    guarded: Callable[[str], str], schema: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        await Database.open(guarded(PASSWORD), schema=schema)


# --- the password -------------------------------------------------------------------------------


async def test_a_password_reaches_no_log_no_error_and_no_repr(
    guarded: Callable[[str], str],
    server: Server,
    schema: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    right = guarded(PASSWORD)
    role = Dsn(right).user
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for right_to in ("USAGE ON SCHEMA {}", "SELECT ON ALL TABLES IN SCHEMA {}"):
            statement = sql.SQL("GRANT " + right_to + " TO {}")
            connection.execute(statement.format(sql.Identifier(schema), sql.Identifier(role)))

    async with await Database.open(right, schema=schema) as database:
        said = [repr(database), str(database), repr(vars(database))]
        with pytest.raises(ChunkstoreError) as caught:
            async with database.transaction() as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        said.append(_all_text(caught.value))
    with pytest.raises(ChunkstoreError) as caught:
        await Database.open(guarded(f"{PASSWORD} wrong"), schema=schema)
    said.append(_all_text(caught.value))

    said += [caplog.text, *capfd.readouterr()]
    assert not [text for text in said if PASSWORD in text or quote(PASSWORD, safe="") in text]


def _all_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__) + repr(error.args)


@pytest.mark.parametrize("max_size", [0, -1, 1.5, True, "10"])
async def test_a_pool_without_a_connection_is_refused(dsn: str, schema: str, max_size: Any) -> None:
    with pytest.raises(InvalidInput, match="max_size"):
        await Database.open(dsn, schema=schema, max_size=max_size)


async def test_a_scrub_finds_its_tables_in_a_schema_of_any_name(dsn: str) -> None:
    schema = f'My "Store" {uuid4()}'
    try:
        async with (
            await Database.open(dsn, schema=schema, migrate=True) as database,
            database.transaction() as conn,
        ):
            assert "chunks" in await rows.fetch_values(conn, scrub.SCRUB.tables)
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
