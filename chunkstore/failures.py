"""Translates the database library's errors into our tree, where they leave our code.

No translated message holds a secret of the DSN, nor a value of a statement: for data errors, whose texts
quote values, only the SQLSTATE is said. The library's error stays as the cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from chunkstore.dsn import Dsn
from chunkstore.errors import (
    AuthenticationFailed,
    ChunkstoreError,
    DatabaseError,
    DatabaseMissing,
    InsufficientPrivilege,
    IsolationRefused,
    LeaseLost,
    ServerUnreachable,
)

RAISED_BY_OUR_SQL: dict[str, type[ChunkstoreError]] = {
    "CS001": IsolationRefused,
    "CS002": LeaseLost,
}
"""What our SQL functions raise, with the message that the user should read."""

_BY_STATE: dict[str, type[ChunkstoreError]] = {
    "28000": AuthenticationFailed,
    "28P01": AuthenticationFailed,
    "25P03": ServerUnreachable,
    "3D000": DatabaseMissing,
    "42501": InsufficientPrivilege,
    "53300": ServerUnreachable,
    "57P01": ServerUnreachable,
    "57P02": ServerUnreachable,
    "57P03": ServerUnreachable,
    "57P05": ServerUnreachable,
}

# While a connection is made libpq hands over no SQLSTATE, only the server's text.
_BY_TEXT: tuple[tuple[str, type[ChunkstoreError]], ...] = (
    ("no password supplied", AuthenticationFailed),
    ("authentication failed", AuthenticationFailed),
    ("no pg_hba.conf entry", AuthenticationFailed),
    ("is not permitted to log in", AuthenticationFailed),
    ('FATAL:  role "', AuthenticationFailed),
    ('FATAL:  database "', DatabaseMissing),
    ("permission denied for database", InsufficientPrivilege),
)


_OF_THE_SCHEMA = frozenset({"0A", "22", "23", "42", "P0", "XX"})
"""Classes of errors that a statement also gets where the schema is not the one that it was written for.

XX: a prepared statement finds by its number, in vain, what was dropped.
"""


def may_be_the_schemas(error: BaseException) -> bool:
    """Whether an error can come from a schema that was changed under this code."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _OF_THE_SCHEMA


@contextmanager
def translated(dsn: Dsn) -> Iterator[None]:
    """Lets a psycopg error leave the block as one of ours, the library's as its cause."""
    translation: ChunkstoreError
    cause: psycopg.Error | None
    try:
        yield
        return
    except psycopg.Error as error:
        translation = translate(error, dsn)
        cause = None if dsn.is_shown_in(str(error)) else error
    raise translation from cause


def translate(error: psycopg.Error, dsn: Dsn) -> ChunkstoreError:
    """Our error for one of the library's."""
    if isinstance(error, PoolClosed):
        return DatabaseError("the database was closed")
    if isinstance(error, PoolTimeout):
        return ServerUnreachable(f"no connection to {dsn.server} became free in time")
    if error.sqlstate is None:
        return _without_state(error, dsn)
    return _with_state(error, error.sqlstate, dsn)


def _with_state(error: psycopg.Error, state: str, dsn: Dsn) -> ChunkstoreError:
    primary = dsn.scrubbed(error.diag.message_primary or "no message")
    if kind := RAISED_BY_OUR_SQL.get(state):
        return kind(primary)
    if kind := _BY_STATE.get(state):
        return kind(f"{primary} (database {dsn.database} at {dsn.server}, role {dsn.user})")
    if state.startswith("08"):
        return ServerUnreachable(f"the connection to {dsn.server} was lost: {primary}")
    if state.startswith("22"):
        primary = "the server refused a value"
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return DatabaseError(f"{primary} ({type(error).__name__}, {state}{notes})")


def _without_state(error: psycopg.Error, dsn: Dsn) -> ChunkstoreError:
    text = dsn.scrubbed(str(error)).strip()
    for part, kind in _BY_TEXT:
        if part in text:
            return kind(f"{dsn.server} refused {dsn.user} on database {dsn.database}: {text}")
    if isinstance(error, psycopg.OperationalError):
        return ServerUnreachable(f"no server answers at {dsn.server}: {text}")
    return DatabaseError(text)
