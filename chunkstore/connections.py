"""Connections to one store's server: what is checked before the first, and what each of them is given.

Nobody waits for ever on one, neither its user for an answer (`chunkstore.answers`) nor others for the locks
of a client that is gone.
"""

import logging
from functools import partial
from time import monotonic

import msgspec
from psycopg import AsyncConnection, sql
from psycopg.adapt import AdaptersMap
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from chunkstore import arrays, requirements
from chunkstore import migrate as migrations
from chunkstore.answers import Answering, is_at_work
from chunkstore.dsn import Dsn
from chunkstore.failures import translated

CONNECT_SECONDS = 5
IDLE_SECONDS = 60
"""After which the server ends a transaction whose client says nothing, unless something else is set for it:
the client may be gone without a word, and others wait for its locks."""

# Where nobody has set logging up, Python prints its warnings: of what our errors say, or a caller cancelled.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

READ_COMMITTED = b"BEGIN ISOLATION LEVEL READ COMMITTED"

_RECONNECT_SECONDS = 3
"""How long the pool tries by itself, with growing pauses, to make a connection that somebody waits for."""

_END_IDLE = b"""
SELECT set_config('idle_in_transaction_session_timeout', %(idle)s, false)
WHERE current_setting('idle_in_transaction_session_timeout') = '0'
"""


class Session(msgspec.Struct, frozen=True):
    """What was found out about the server, and what sessions and transactions on it begin with."""

    begin: bytes
    begin_snapshot: bytes
    set_session: bytes
    standing: dict[str, str]
    """Settings under which a statement of its own runs as in a transaction that this session begins."""
    adapters: AdaptersMap
    has_iterative_scans: bool
    incarnation: str
    pooled: bool
    """Whether a pooler stands between, whose sessions are not the server's: statements cannot be prepared."""

    @classmethod
    def of(cls, schema: str, server: requirements.Server, connected_to: int) -> "Session":
        """The session of a store's schema; `connected_to` is the process that the first connection names."""
        extension, vector_type = server.require_vector()
        path = sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys((schema, extension)))).as_string()
        adapters = arrays.adapters(vector_type)
        set_json_loads(msgspec.json.decode, adapters)
        set_local = f"; SET LOCAL search_path = {path};".encode()
        return cls(
            begin=READ_COMMITTED + set_local,
            begin_snapshot=b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" + set_local,
            set_session=f"SET search_path = {path}".encode(),
            standing={"search_path": path, "default_transaction_isolation": "read committed"},
            adapters=adapters,
            has_iterative_scans=server.has_iterative_scans,
            incarnation=server.incarnation,
            pooled=server.process != connected_to,
        )


async def check(dsn: Dsn, schema: str) -> Session:
    """What a first connection finds; raises what `Database.open` raises."""
    # Directly: the error comes at once and says what is wrong, where a pool would wait and say nothing.
    with translated(dsn):
        connection = await connect(dsn)
        try:
            cursor = await connection.execute(requirements.FACTS, {"schema": schema})
            server = requirements.read(await cursor.fetchone())
            server.check()
            applied = await applied_migrations(connection, schema) if server.has_migrations else []
            process = connection.info.backend_pid
        finally:
            await connection.close()
    migrations.check(schema, applied)
    return Session.of(schema, server, process)


async def applied_migrations(connection: AsyncConnection, schema: str) -> list[str]:
    """The names of the migrations that the schema has."""
    cursor = await connection.execute(migrations.applied_query(schema))
    return [name for (name,) in await cursor.fetchall()]


async def connect(dsn: Dsn, session: Session | None = None) -> AsyncConnection:
    """A connection outside any pool, each of whose statements commits by itself."""
    conninfo = dsn.conninfo(connect_timeout=CONNECT_SECONDS)
    adapters = None if session is None else session.adapters
    connection = await Answering.connect(conninfo, autocommit=True, prepare_threshold=None, context=adapters)
    _watch(connection, dsn, session)
    return connection


async def open_pool(dsn: Dsn, max_size: int, session: Session) -> AsyncConnectionPool:
    """An open pool of at most `max_size` connections."""

    async def configure(connection: AsyncConnection) -> None:
        _watch(connection, dsn, session)
        if not session.pooled:
            await connection.execute(_END_IDLE, {"idle": f"{IDLE_SECONDS}s"}, prepare=False)

    pool = AsyncConnectionPool[AsyncConnection](
        lambda: dsn.conninfo(connect_timeout=CONNECT_SECONDS),
        connection_class=Answering,
        configure=configure,
        kwargs={"autocommit": True, "context": session.adapters}
        | ({"prepare_threshold": None} if session.pooled else {}),
        min_size=min(1, max_size),
        max_size=max_size,
        reconnect_timeout=_RECONNECT_SECONDS,
        open=False,
    )
    await pool.open()
    return pool


def made_at(connection: AsyncConnection) -> float:
    """When a connection of this module was made, by the monotonic clock."""
    assert isinstance(connection, Answering)
    return connection.made_at


def _watch(connection: AsyncConnection, dsn: Dsn, session: Session | None) -> None:
    assert isinstance(connection, Answering)
    pooled = session is None or session.pooled
    connection.made_at = monotonic()
    connection.is_at_work = partial(is_at_work, dsn, pooled=pooled)
