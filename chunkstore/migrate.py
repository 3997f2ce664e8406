"""Applies the plain SQL files of `migrations/` to a store's schema, all in one transaction.

yoyo-migrations reads, orders and records them. Its own lock is a row, which a killed process leaves behind
for ever, and it commits a migration before it records it; so it is given one connection inside one
transaction that holds an advisory lock: any number of processes may start at once, and die at any time.
A store that is in use is migrated between its users' transactions: a lock is waited for shortly, because
whoever comes after it would wait too, and longer each time that all had to be given back.
"""

from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

import anyio.to_thread
import psycopg
from psycopg import Connection, IsolationLevel, sql
from psycopg.errors import DeadlockDetected, LockNotAvailable
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random

from chunkstore import embedded, requirements, settings
from chunkstore.dsn import Dsn
from chunkstore.errors import DatabaseError, InsufficientPrivilege, SchemaNotMigrated, SchemaTooNew
from chunkstore.failures import translated

_LOCK = 0x6368756E6B  # one for the database: the extension is made once for all its schemas
_CONNECT_SECONDS = 5
_LOCK_MILLISECONDS = (200, 5_000)
_PATIENCE_SECONDS = 60


async def migrate(
    dsn: str | None = None, *, schema: str | None = None, data: Path | str | None = None
) -> list[str]:
    """Brings the store to this code's schema; returns the names of the migrations that it lacked.

    Makes the schema and the extension vector (in `public`) where they are missing. Raises what
    `Database.open` raises, InsufficientPrivilege with the statement that an administrator can run, and
    DatabaseError where somebody held the store's tables for a minute; nothing is changed then.
    """
    where = settings.read(dsn, schema=schema, data=data)
    async with embedded.address(where) as address:
        return await anyio.to_thread.run_sync(apply, address, where.schema)


def apply(dsn: Dsn, schema: str, folder: Path | None = None) -> list[str]:
    """Applies what the schema lacks of the folder's files (this package's own for None). Blocks."""
    with translated(dsn), psycopg.connect(dsn.conninfo(connect_timeout=_CONNECT_SECONDS)) as connection:
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        for attempt in Retrying(
            retry=retry_if_exception_type((LockNotAvailable, DeadlockDetected)),
            wait=wait_random(0.2, 1),
            stop=stop_after_delay(_PATIENCE_SECONDS),
            retry_error_callback=_give_up,
        ):
            with attempt, connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
                _wait_for_locks(connection, attempt.retry_state.attempt_number)
                return _apply(connection, dsn, schema, folder or own_folder())
        raise AssertionError


def _wait_for_locks(connection: Connection, attempt: int) -> None:
    shortest, longest = _LOCK_MILLISECONDS
    wait = min(shortest * 2 ** (attempt - 1), longest)
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{wait}ms"])
    # Where two wait for each other this one gives way, if it may say so: only superusers may unless granted.
    with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
        connection.execute("SET LOCAL deadlock_timeout = '50ms'")


def _apply(connection: Connection, dsn: Dsn, schema: str, folder: Path) -> list[str]:
    server = requirements.read(connection.execute(requirements.FACTS, {"schema": schema}).fetchone())
    server.check()
    missing = _missing(connection, schema, folder, server)
    if server.vector is None:
        _make_extension(connection, dsn)
    if missing:
        _make_schema(connection, schema, dsn)
        _run(connection, schema, folder)
    return missing


def _give_up(state: RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome else None
    raise DatabaseError(
        f"the schema could not be changed within {_PATIENCE_SECONDS} s, and was not: transactions of others"
        " hold its tables; end the long ones (pg_stat_activity shows them) or stop what uses the store, then"
        " migrate again"
    ) from error


def check(schema: str, applied: Collection[str]) -> None:
    """Raises SchemaNotMigrated or SchemaTooNew unless exactly this code's migrations are applied."""
    known = names(own_folder())
    _refuse_newer(schema, applied, known)
    missing = [name for name in known if name not in applied]
    if missing:
        raise SchemaNotMigrated(f"the schema {schema!r} lacks {', '.join(missing)}: run `chunkstore migrate`")


def applied_query(schema: str) -> sql.Composed:
    """The query for the names of the migrations that a schema has."""
    return sql.SQL("SELECT migration_id FROM {}").format(sql.Identifier(schema, "_yoyo_migration"))


@cache
def own_folder() -> Path:
    """Where this package's migrations are: inside it when installed from a wheel, else in the checkout."""
    package = Path(__file__).parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


@cache
def names(folder: Path) -> tuple[str, ...]:
    """The names of a folder's migrations, in order."""
    found = tuple(sorted(path.stem for path in folder.glob("*.sql")))
    if not found:
        raise SchemaNotMigrated(f"this installation is broken: no migrations are in {folder}")
    return found


def _missing(connection: Connection, schema: str, folder: Path, server: requirements.Server) -> list[str]:
    applied: set[str] = set()
    if server.has_migrations:
        applied = {name for (name,) in connection.execute(applied_query(schema))}
    _refuse_newer(schema, applied, names(folder))
    return [name for name in names(folder) if name not in applied]


def _refuse_newer(schema: str, applied: Collection[str], known: Collection[str]) -> None:
    newer = sorted(set(applied) - set(known))
    if newer:
        raise SchemaTooNew(f"the schema {schema!r} has {', '.join(newer)}, unknown here: upgrade chunkstore")


def _make_schema(connection: Connection, schema: str, dsn: Dsn) -> None:
    # Looked up first: CREATE … IF NOT EXISTS asks for the right even where there is nothing to do.
    found = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchone()
    if found is None:
        statement = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema))
        _with_right(connection, statement, f"CREATE on database {dsn.database}", dsn)


def _make_extension(connection: Connection, dsn: Dsn) -> None:
    statement = sql.SQL("CREATE EXTENSION vector WITH SCHEMA public")
    _with_right(connection, statement, "the right to create the extension", dsn)


def _with_right(connection: Connection, statement: sql.SQL | sql.Composed, right: str, dsn: Dsn) -> None:
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        text = statement.as_string(connection)
        raise InsufficientPrivilege(
            f"role {dsn.user} lacks {right}; have an administrator run, in {dsn.database}: {text}"
        ) from error


def _run(connection: Connection, schema: str, folder: Path) -> None:
    from chunkstore.migration_runner import run

    path = sql.SQL("SET LOCAL search_path = {}, {}")
    row = connection.execute(
        "SELECT n.nspname FROM pg_namespace AS n JOIN pg_extension AS e ON e.extnamespace = n.oid"
        " WHERE e.extname = 'vector'"
    ).fetchone()
    assert row is not None
    connection.execute(path.format(sql.Identifier(schema), sql.Identifier(row[0])))
    run(connection, folder)
