"""The pool of connections to one store, and the only place where a transaction opens.

Keeps rule 1: every transaction is READ COMMITTED and says so itself, in the message that begins it. Every
connection goes to the store that was opened: not to another one that was put in its place meanwhile.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Self, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import anyio
import anyio.to_thread
import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from chunkstore import connections, embedded, requirements, rows, settings
from chunkstore import migrate as migrations
from chunkstore.connections import Session
from chunkstore.dsn import Dsn
from chunkstore.embedded import EmbeddedServer
from chunkstore.errors import ChunkstoreError, DatabaseError, InvalidInput, StoreReplaced, UnsupportedServer
from chunkstore.failures import may_be_the_schemas, translated
from chunkstore.rows import Params, Statement

T = TypeVar("T")

BY_INDEX = b"SET LOCAL enable_seqscan = off;"
"""For transactions that touch rows by key alone: a plan that was cached while a table was small must not
go on reading the table from end to end once it has grown."""

FOR_AS_LONG_AS_IT_TAKES = b"SET LOCAL idle_in_transaction_session_timeout = 0;"
"""For transactions that hold a lock while their client is busy elsewhere."""

_ROLLBACK_SECONDS = 5
_FREE_SECONDS = 2
"""After which somebody who waits for a connection of the pool asks whether the server takes any."""


class Database:
    """One store's connections. Made by `open`, given back by `close` or the end of an `async with`."""

    def __init__(
        self,
        schema: str,
        dsn: Dsn,
        session: Session,
        pool: AsyncConnectionPool,
        server: EmbeddedServer | None = None,
    ) -> None:
        self.schema = schema
        self._dsn = dsn
        self._session = session
        self._pool = pool
        self._server = server
        self._recognised = WeakSet[AsyncConnection]()
        self._settings = WeakKeyDictionary[AsyncConnection, dict[str, str]]()
        self._lost = 0.0

    @classmethod
    async def open(
        cls,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        data: Path | str | None = None,
        max_size: int = 10,
        migrate: bool = False,
    ) -> Self:
        """Connects to a migrated store; `settings.read` says what None means.

        At most `max_size` connections in the pool. Raises InvalidInput, and at once ServerUnreachable,
        AuthenticationFailed, DatabaseMissing, UnsupportedServer, InsufficientPrivilege, SchemaTooNew or,
        without `migrate`, SchemaNotMigrated.
        """
        if type(max_size) is not int or max_size < 1:
            raise InvalidInput("max_size", max_size, "an integer of at least 1")
        where = settings.read(dsn, schema=schema, data=data)
        server = None if where.dsn is not None else await embedded.acquire(where.data, make=migrate)
        try:
            address = where.dsn if server is None else server.dsn
            assert address is not None
            if migrate:
                await anyio.to_thread.run_sync(migrations.apply, address, where.schema)
            session = await connections.check(address, where.schema)
            pool = await connections.open_pool(address, max_size, session)
        except BaseException:
            await embedded.release(server)
            raise
        return cls(where.schema, address, session, pool, server)

    @property
    def has_iterative_scans(self) -> bool:
        """Whether the server's pgvector goes on with an index scan until enough rows pass a join."""
        return self._session.has_iterative_scans

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands between, whose server sessions are everybody's."""
        return self._session.pooled

    def require_own_sessions(self, what: str) -> None:
        """Raises UnsupportedServer behind a pooler, which would hand what is set on a session to others."""
        if self.is_pooled:
            raise UnsupportedServer(
                f"{what} needs a session of its own, and {self._dsn.server} is a pooler:"
                " give a DSN that goes to the server itself"
            )

    @property
    def is_embedded(self) -> bool:
        """Whether the server is the embedded one of a data folder, which is this machine's alone."""
        return self._server is not None

    async def close(self) -> None:
        """Closes the connections; the last user of an embedded server stops it."""
        await self._pool.close()
        await embedded.release(self._server)

    def transaction(self, settings: bytes = b"") -> AbstractAsyncContextManager[AsyncConnection]:
        """A READ COMMITTED transaction in the store's schema, committed at the end, rolled back on an error.

        Begins in one round trip, with settings that end with the transaction, so that pgbouncer may pool
        transactions; `settings` holds more of them (`SET LOCAL …`). Retries nothing. psycopg's errors leave
        it as ours.
        """
        return self._transaction(self._session.begin + settings)

    def snapshot(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A read-only transaction whose statements all see the store as it was at its first query.

        Otherwise as `transaction`. What writes refuses it by the isolation level (rule 1).
        """
        return self._transaction(self._session.begin_snapshot)

    async def ask(
        self, statement: Statement, params: Params, *, settings: dict[str, str], row: Callable[..., T]
    ) -> list[T]:
        """The rows of one statement that reads, each made a `row` from its columns by name.

        As alone in a `transaction` with these settings, but in one round trip: its connection keeps them, and
        those of other such statements.
        """
        if self._session.pooled:  # the server's session is not the connection's own
            async with self.transaction() as connection:
                await _set(connection, settings, local=True)
                return await rows.fetch_all(connection, statement, params, row=row)
        needed = self._session.standing | settings
        async with self._lent() as connection:
            kept = self._settings.setdefault(connection, {})
            if not needed.items() <= kept.items():
                await _set(connection, needed, local=False)
                kept |= needed
            return await rows.fetch_all(connection, statement, params, row=row)

    @asynccontextmanager
    async def _transaction(self, begin: bytes) -> AsyncIterator[AsyncConnection]:
        async with self._lent() as connection:
            await connection.execute(begin, prepare=False)
            yield connection
            await _commit(connection)

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool, outside a transaction; one that an error leaves open is rolled back."""
        with translated(self._dsn):
            connection = await self._free()
            try:
                # Before any transaction: a snapshot is taken at the caller's first query.
                await self._recognise(connection)
                yield connection
            except BaseException as error:
                await _roll_back(connection)
                if may_be_the_schemas(error):
                    await self._refuse_newer_schema(connection)
                raise
            finally:
                await self._give_back(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own outside any transaction, each statement committing by itself.

        For what a transaction cannot hold: LISTEN, CREATE INDEX CONCURRENTLY, VACUUM. Raises
        UnsupportedServer behind a pooler.
        """
        self.require_own_sessions("what no transaction can hold")
        async with self._alone() as connection:
            await connection.execute(self._session.set_session, prepare=False)
            yield connection

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[AsyncConnection]:
        """A READ COMMITTED transaction that holds locks while its client is busy elsewhere.

        On a connection of its own; it may be idle for as long as that takes.
        """
        async with self._alone() as connection:
            await connection.execute(self._session.begin + FOR_AS_LONG_AS_IT_TAKES, prepare=False)
            yield connection
            await _commit(connection)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection]:
        """A connection that is not of the pool."""
        with translated(self._dsn):
            connection = await connections.connect(self._dsn, self._session)
            try:
                await self._recognise(connection)
                yield connection
            finally:
                with anyio.move_on_after(_ROLLBACK_SECONDS, shield=True):
                    await connection.close()

    async def _free(self) -> AsyncConnection:
        while True:
            try:
                connection = await self._from_pool()
            except psycopg.OperationalError:
                await self._revive()
                raise
            if connections.made_at(connection) >= self._lost:
                return connection
            # As old as one that was lost: to find out by itself may take as long again.
            await connection.close()
            await self._pool.putconn(connection)

    async def _from_pool(self) -> AsyncConnection:
        try:
            return await self._pool.getconn(_FREE_SECONDS)
        except PoolTimeout:
            # Where none can be made the error says why, and comes now; where all are in use, it is waited on.
            await (await connections.connect(self._dsn, self._session)).close()
            return await self._pool.getconn()

    async def _give_back(self, connection: AsyncConnection) -> None:
        closed = connection.closed
        if closed:
            self._lost = monotonic()
        await self._pool.putconn(connection)
        if closed:
            await self._revive()

    async def _recognise(self, connection: AsyncConnection) -> None:
        """Raises StoreReplaced unless the connection goes to the store that was opened."""
        if connection in self._recognised:
            return
        cursor = await connection.execute(requirements.INCARNATION, {"schema": self.schema}, prepare=False)
        if await cursor.fetchone() != (self._session.incarnation,):
            raise StoreReplaced(
                f"the store {self.schema!r} was restored, recovered or failed over since it was opened here:"
                " what this process holds may be of a past that is gone; open it again"
            )
        if not self._session.pooled:
            self._recognised.add(connection)

    async def _refuse_newer_schema(self, connection: AsyncConnection) -> None:
        """Raises SchemaTooNew where the schema was migrated under this process.

        The connection is given up then: another one, without plans of the older schema, may still do.
        """
        with suppress(psycopg.Error):
            applied = await connections.applied_migrations(connection, self.schema)
            try:
                migrations.check(self.schema, applied)
            except ChunkstoreError:
                await connection.close()
                raise

    async def _revive(self) -> None:
        # The caller's next attempt finds an embedded server that was killed running again.
        if self._server is not None and not self._pool.closed:
            await anyio.to_thread.run_sync(self._server.revive)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Database(schema={self.schema!r}, dsn={self._dsn!r})"


async def _set(connection: AsyncConnection, settings: dict[str, str], *, local: bool) -> None:
    """Sets them for the transaction, or for the session; an extension may be loaded later than its own."""
    if settings:
        each = ", ".join(f"set_config('{name}', %({name})s, {local})" for name in settings)
        await connection.execute(f"SELECT {each}".encode(), settings, prepare=False)


async def _commit(connection: AsyncConnection) -> None:
    if connection.info.transaction_status is TransactionStatus.INERROR:
        raise DatabaseError("nothing was committed: an error in the transaction was caught and passed over")
    await connection.commit()


async def _roll_back(connection: AsyncConnection) -> None:
    with anyio.move_on_after(_ROLLBACK_SECONDS, shield=True):
        try:
            await connection.rollback()
        except psycopg.Error:
            await connection.close()
