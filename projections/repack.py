"""Writes a search table and its index anew, without what is dead, and swaps them in (rule 20).

To vacuum an index costs more than to build it, and a vacuum leaves the table as large as it was. Searches,
appends and consumers go on; switches, staged rows and erasures wait for the swap, and the swap gives way.
"""

from contextlib import suppress

import anyio
from psycopg.errors import DependentObjectsStillExist
from tenacity import stop_after_attempt

from chunkstore import catalog, rows
from chunkstore.database import Database
from chunkstore.errors import Conflict, DatabaseError, InsufficientPrivilege
from chunkstore.model import ChunkId, CollectionId
from chunkstore.search_tables import CollectionModel
from chunkstore.statements import load
from projections import indexes
from projections.beside import BESIDE, GIVE_WAY, Beside, gave_way, swapping

REPACK = load("repack")

# Rows that one transaction copies, and few enough for the swap itself to copy into a table with an index.
_ROWS = 4_000
_FEW = 200
_CATCHING_UP = 10
_BRIEFLY = GIVE_WAY + b"SET LOCAL statement_timeout = '10s';"
_SWAPS = 5
_LOOK_SECONDS = 1.0


async def repack_due(database: Database, collection: CollectionId | None = None) -> int:
    """Writes anew the search tables of which two fifths or more is dead, with their indexes.

    Returns how many. Where the role may only maintain a table, or the server does not let go of the old one,
    its index is rebuilt and the table vacuumed; those that it may not maintain are left to their owner, and
    all of them behind a pooler to who comes without one.
    """
    if database.is_pooled:
        return 0
    renewed = 0
    for table in await indexes.due_for_renewal(database, collection):
        if table.own:
            with suppress(_NotSwapped):
                renewed += await _repack(database, table)
                continue
        renewed += await indexes.rebuild(database, table)
    return renewed


class _NotSwapped(Exception):
    """The live table stays: somebody holds it, a view is on it, or its owner's rights are not ours to use."""


async def _repack(database: Database, table: indexes.Table) -> bool:
    """False where somebody is at the table: the next collection looks again. Raises _NotSwapped."""
    async with database.guard() as guard:
        begun = await rows.fetch_value(guard, BESIDE.try_begin, {"table": table.search_table})
        if not begun or not await indexes.try_lock(guard, table.search_table):
            return False
        await indexes.drop_snapshot(guard)
        if not await indexes.is_due(database, table):
            return False
        if await _is_held_for_long(database, table.search_table):
            return False
        async with database.transaction() as conn:
            models = await catalog.models_of(conn, table.collection)
        model = next(model for model in models if model.model == table.model)
        job = Repack(database, table.collection, model)
        try:
            await job.run()
        except Conflict:  # taken for abandoned, and dropped
            return False
        except (DatabaseError, _NotSwapped) as error:
            with suppress(DatabaseError):
                await job.beside.drop(_BRIEFLY)
            if gave_way(error):  # before there was anything to swap
                return False
            raise
    return True


async def _is_held_for_long(database: Database, search_table: str) -> bool:
    """Whether a transaction that reads it, a dump say, goes on for longer than a swap would wait."""
    found: list[set[str]] = []
    for pause in (0, _LOOK_SECONDS):
        await anyio.sleep(pause)
        async with database.transaction() as conn:
            found.append(set(await rows.fetch_values(conn, REPACK.holders, {"table": search_table})))
    return bool(found[0] & found[1])


class Repack:
    """One table's repack; its maker keeps everybody else away from the table beside."""

    def __init__(self, database: Database, collection: CollectionId, model: CollectionModel) -> None:
        self._database = database
        self._model = model
        self.beside = Beside(database, collection, model)
        self._names = {
            "live": model.search_table,
            "active": model.active_table,
            "search": self.beside.search,
        }

    async def run(self) -> None:
        """Copies, builds the index, and swaps.

        Raises Conflict, DatabaseError, _NotSwapped; the live table is as it was then.
        """
        try:
            await self.beside.begin(_BRIEFLY)
        except InsufficientPrivilege as error:  # whose owner the role may not become
            raise _NotSwapped from error
        await self.copy()
        await indexes.build_beside(self._database, self._model, self.beside.search)
        try:
            await swapping(stop_after_attempt(_SWAPS))(self._try_to_swap)
        except DatabaseError as error:
            if gave_way(error) or isinstance(error.__cause__, DependentObjectsStillExist):
                raise _NotSwapped from error
            raise

    async def copy(self) -> None:
        """Copies what only the live table has, some rows a transaction, until that is little."""
        for _ in range(_CATCHING_UP):
            left_out = await self._left_out()
            for start in range(0, len(left_out), _ROWS):
                async with self._database.transaction() as conn:
                    await self.beside.hold(conn)
                    batch = {"chunks": left_out[start : start + _ROWS]}
                    await self.beside.copy(conn, await rows.fetch_values(conn, REPACK.lock_chunks, batch))
            if len(left_out) <= _FEW:
                return

    async def _left_out(self) -> list[ChunkId]:
        async with self._database.transaction() as conn:
            return await rows.fetch_values(conn, REPACK.with_tables("left_out", **self._names))

    async def _try_to_swap(self) -> None:
        await self.copy()
        await self.swap()

    async def swap(self) -> None:
        """Makes up for what changed since, and flips: one transaction under all checkpoints."""
        async with self._database.transaction(_BRIEFLY) as conn:
            await self.beside.keep_others_away(conn)
            await conn.execute("SET LOCAL statement_timeout TO DEFAULT")
            statement = REPACK.with_tables("left_out", **self._names)
            left_out = {"chunks": await rows.fetch_values(conn, statement)}
            # What is active is waited for: a consumer that gives up for another model holds it. What is not
            # may be a sweep's, who waits for this swap; a switch stages it again if it is needed.
            await conn.execute(REPACK.with_tables("lock_active", **self._names), left_out)
            locked = await rows.fetch_values(conn, REPACK.lock_unheld, left_out)
            await self.beside.copy(conn, locked)
            await conn.execute(REPACK.with_tables("remove_gone", **self._names))
            await self.beside.flip(conn, membership=False)
