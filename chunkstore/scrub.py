"""Scrubs from the server's files what was erased: every table that holds content or vectors is written anew.

An erasure deletes rows (`chunkstore.erase`). Their bytes stay in the free space of pages and indexes, and in
the write-ahead log, until something is written over them. Completes invariant 11 on the disk.
"""

from typing import Any, NoReturn

import msgspec
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
    wait_random,
)

from chunkstore import rows
from chunkstore.database import Database
from chunkstore.errors import DatabaseError, InsufficientPrivilege
from chunkstore.statements import load

SCRUB = load("scrub")

_PATIENCE_SECONDS = 60
_LOCK_SECONDS = 2
"""For so long one table's users wait for whoever holds it, before they go first again."""


class ScrubReport(msgspec.Struct, frozen=True):
    """What a scrub came to."""

    tables: list[str]
    """The tables that were written anew, each with its indexes."""
    log: bool
    """Whether the write-ahead log was cleared too: only the embedded server's is."""


async def scrub(database: Database) -> ScrubReport:
    """Writes every table that holds content, keys or vectors anew, so that none keeps what was erased.

    Each is locked meanwhile: searches and writers wait. Needs the table's size once more on the disk. Where
    it fails, tables before it are done, and it can be run again. Raises InsufficientPrivilege unless the
    caller owns the store and may see everybody's transactions; DatabaseError where one of them, a prepared
    one or a replication slot may still read what was erased, or holds a table, for more than a minute.
    """
    async with database.connection() as conn:
        if not await rows.fetch_value(conn, SCRUB.may_see):
            raise InsufficientPrivilege(
                "scrub: this role does not see who may still read what was erased; have an administrator run:"
                " GRANT pg_read_all_stats TO this role"
            )
        await _nobody_sees(conn)
        await conn.execute("SET maintenance_work_mem = '512MB'")
        await conn.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
        tables: list[str] = await rows.fetch_values(conn, SCRUB.tables)
        for table in tables:
            await _rewrite(conn, table)
        if database.is_embedded:
            await _clear_log(conn)
    return ScrubReport(tables, database.is_embedded)


async def _nobody_sees(conn: AsyncConnection[Any]) -> None:
    """Returns when every transaction that began before this call has ended."""
    before = {"before": await rows.fetch_value(conn, SCRUB.next_transaction)}

    def give_up(state: RetryCallState) -> NoReturn:
        seeing = state.outcome.result() if state.outcome else []
        raise DatabaseError(
            f"scrub: what was erased may still be read by {', '.join(seeing)}; end it and scrub again"
        )

    waiting = AsyncRetrying(
        retry=retry_if_result(bool),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(_PATIENCE_SECONDS),
        retry_error_callback=give_up,
    )
    await waiting(rows.fetch_values, conn, SCRUB.still_seen, before)


async def _rewrite(conn: AsyncConnection[Any], table: str) -> None:
    def give_up(state: RetryCallState) -> NoReturn:
        error = state.outcome.exception() if state.outcome else None
        raise DatabaseError(f"scrub: {table} is held by others; end them and scrub again") from error

    persisting = AsyncRetrying(
        retry=retry_if_exception_type(LockNotAvailable),
        wait=wait_random(0.2, 1),
        stop=stop_after_delay(_PATIENCE_SECONDS),
        retry_error_callback=give_up,
    )
    await persisting(conn.execute, SCRUB.with_tables("rewrite", table=table))


async def _clear_log(conn: AsyncConnection[Any]) -> None:
    """Writes over every file of the log. Those that lie ahead are old ones with a new name."""
    await conn.execute(SCRUB.next_log_file)
    await conn.execute(SCRUB.checkpoint)
    for _ in range(await rows.fetch_value(conn, SCRUB.log_files_ahead)):
        await conn.execute(SCRUB.next_log_file)
    await conn.execute(SCRUB.next_log_file)
    await conn.execute(SCRUB.checkpoint)
