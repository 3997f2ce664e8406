"""A pair of search tables made beside the live one, to be swapped in (rules 20 and 21).

What a rebuild and a repack share: erase and sweep list the new tables before a vector is in them, whoever
copies a vector holds its chunk, and the swap is one transaction in which nobody activates, erases or stages.
"""

from collections.abc import Sequence
from typing import Any

import tenacity
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable, QueryCanceled
from tenacity.stop import stop_base

from chunkstore import leases, rows, search_tables
from chunkstore.database import Database
from chunkstore.errors import Conflict
from chunkstore.model import ChunkId, CollectionId
from chunkstore.search_tables import CollectionModel
from chunkstore.statements import load

BESIDE = load("beside")

GIVE_WAY = b"SET LOCAL lock_timeout = '2s';"
"""For a swap: searches that queue behind it should not wait long for whom it waits for, a dump say.

More than the second after which the server has its own vacuum give way.
"""


def gave_way(error: BaseException) -> bool:
    """Whether a transaction ended since others held what it wanted for long."""
    return isinstance(error.__cause__, LockNotAvailable | QueryCanceled)


def swapping(stop: stop_base = tenacity.stop_never) -> tenacity.AsyncRetrying:
    """Tries a swap that gives way again and again, with growing pauses of up to 10 s."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(gave_way),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
        stop=stop,
        reraise=True,
    )


class Beside:
    """The new tables of one collection's model; whoever makes them holds `try_begin`'s lock to the end."""

    def __init__(self, database: Database, collection: CollectionId, model: CollectionModel) -> None:
        self._database = database
        self._model = model
        self._collection = collection
        self.search = f"{model.search_table}_rebuild"
        self.active = f"{model.active_table}_rebuild"
        self.params: dict[str, Any] = {"collection": collection, "model": model.model}

    async def begin(self, settings: bytes = b"") -> None:
        """Makes empty tables, the live one's owner's, known to erase and sweep before a vector is in them.

        Raises InsufficientPrivilege where the role cannot give them to that owner.
        """
        async with self._database.transaction(settings) as conn:
            await conn.execute(BESIDE.set_rebuilding, self.params | {"rebuilding": True})
            await conn.execute(BESIDE.with_tables("drop_tables", search=self.search, active=self.active))
            await search_tables.create(
                conn, self._collection, self.search, self.active, self._model.dimensions
            )
            params = {"table": self._model.search_table}
            owner = await rows.fetch_value(conn, BESIDE.another_owner, params)
            if owner is not None:
                for table in (self.search, self.active):
                    await conn.execute(BESIDE.with_tables("give", table=table, owner=owner))

    async def drop(self, settings: bytes = b"") -> None:
        """Drops the tables, which are not to be swapped in."""
        async with self._database.transaction(settings) as conn:
            await conn.execute(BESIDE.set_rebuilding, self.params | {"rebuilding": False})
            await conn.execute(BESIDE.with_tables("drop_tables", search=self.search, active=self.active))

    async def hold(self, conn: AsyncConnection[Any]) -> None:
        """Keeps the tables for a transaction that copies. Raises Conflict where they were dropped."""
        await self._hold(conn, BESIDE.hold_tables)

    async def copy(self, conn: AsyncConnection[Any], chunks: Sequence[ChunkId]) -> int:
        """Copies the vectors of chunks that the transaction has locked; returns how many there were."""
        statement = BESIDE.with_tables("copy_vectors", search=self.search)
        copied = await conn.execute(statement, {"chunks": list(chunks), "model": self._model.model})
        return copied.rowcount

    async def keep_others_away(self, conn: AsyncConnection[Any]) -> None:
        """Locks what a swap needs, in the order in which all others do. Raises Conflict."""
        group = leases.projector_group(self._model.model)
        await conn.execute(BESIDE.lock_checkpoints, {"group": group})
        await conn.execute(BESIDE.lock_files, self.params)
        await self._hold(conn, BESIDE.lock_tables)
        await conn.execute(BESIDE.with_tables("stop_staging", search=self._model.search_table))

    async def flip(self, conn: AsyncConnection[Any], *, membership: bool) -> None:
        """Puts the new search table in the place of the live one, and with `membership` the active table."""
        search, active = self._model.search_table, self._model.active_table
        dropped = active if membership else self.active
        await conn.execute(BESIDE.with_tables("drop_tables", search=search, active=dropped))
        await conn.execute(BESIDE.with_tables("rename_table", old=self.search, new=search))
        index = {"old": f"{self.search}_hnsw", "new": f"{search}_hnsw"}
        await conn.execute(BESIDE.with_tables("rename_index", **index))
        if membership:
            await conn.execute(BESIDE.with_tables("rename_table", old=self.active, new=active))
        await conn.execute(BESIDE.set_rebuilding, self.params | {"rebuilding": False})

    async def _hold(self, conn: AsyncConnection[Any], statement: bytes) -> None:
        if await rows.fetch_value(conn, statement, self.params) is None:
            raise Conflict(
                f"the new tables for {self._model.search_table} were taken for abandoned and dropped, because"
                " the connection that holds their lock was lost; run it again"
            )
