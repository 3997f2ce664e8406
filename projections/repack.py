"""Writes a search table and its index anew, without what is dead, and swaps them in (rule 20).

To vacuum an index costs more than to build it, and a vacuum leaves the table as large as it was. Searches,
appends and consumers go on; switches and staged rows wait for the swap alone.
"""

from chunkstore import catalog, rows
from chunkstore.database import FOR_AS_LONG_AS_IT_TAKES, Database
from chunkstore.errors import Conflict
from chunkstore.model import CollectionId, ModelId
from chunkstore.search_tables import CollectionModel
from chunkstore.statements import load
from projections import indexes
from projections.beside import BESIDE, Beside

REPACK = load("repack")

# Rows that one transaction copies.
_ROWS = 4_000


async def repack_due(database: Database) -> int:
    """Writes anew the search tables of which two fifths or more is dead, with their indexes.

    Returns how many. Where the role may only maintain a table, its index is rebuilt and the table vacuumed;
    those that it may not maintain are left to their owner.
    """
    renewed = 0
    for table in await indexes.due_for_renewal(database):
        if table.own:
            renewed += await _repack(database, table.collection, table.model)
        else:
            renewed += await indexes.rebuild(database, table)
    return renewed


async def _repack(database: Database, collection: CollectionId, model: ModelId) -> bool:
    """False where somebody rebuilds or repacks it, builds its index or vacuums it."""
    async with database.transaction() as conn:
        models = await catalog.models_of(conn, collection)
    chosen = next((m for m in models if m.model == model), None)
    if chosen is None:
        return False
    async with database.transaction(FOR_AS_LONG_AS_IT_TAKES) as guard:
        if not await rows.fetch_value(guard, BESIDE.try_begin, {"table": chosen.search_table}):
            return False
        if not await indexes.try_lock(guard, chosen.search_table):
            return False
        await indexes.drop_snapshot(guard)
        try:
            await _Repack(database, collection, chosen).run()
        except Conflict:  # taken for abandoned: the next run begins anew
            return False
    return True


class _Repack:
    def __init__(self, database: Database, collection: CollectionId, model: CollectionModel) -> None:
        self._database = database
        self._model = model
        self._beside = Beside(database, collection, model)

    async def run(self) -> None:
        await self._beside.begin()
        await self._copy()
        await indexes.build_beside(self._database, self._model, self._beside.search)
        await self._swap()

    async def _copy(self) -> None:
        """Copies what the live table has, some rows a transaction."""
        following = REPACK.with_tables("next_chunks", search=self._model.search_table)
        after = 0
        while True:
            async with self._database.transaction() as conn:
                await self._beside.hold(conn)
                chunks = await rows.fetch_values(conn, following, {"after": after, "limit": _ROWS})
                if not chunks:
                    return
                locked = await rows.fetch_values(conn, REPACK.lock_chunks, {"chunks": chunks})
                await self._beside.copy(conn, locked)
            after = chunks[-1]

    async def _swap(self) -> None:
        """Makes up for what changed since, and flips: one transaction under all checkpoints."""
        both = {"search": self._beside.search, "live": self._model.search_table}
        async with self._database.transaction() as conn:
            await self._beside.keep_others_away(conn)
            left_out = await rows.fetch_values(conn, REPACK.with_tables("lock_left_out", **both))
            await self._beside.copy(conn, left_out)
            await conn.execute(REPACK.with_tables("remove_gone", **both))
            await self._beside.flip(conn, membership=False)
