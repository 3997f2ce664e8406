"""HNSW indexes: deferred during a first bulk load, built beside the writers, made anew when much is dead.

An insert into an index costs about a millisecond, a bulk build a tenth of that; a vacuum of one costs
more than building it anew. So there is none below 5,000 rows, where an exact search is as fast.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from psycopg import AsyncConnection, sql

from chunkstore import leases, rows
from chunkstore.database import BY_INDEX, Database
from chunkstore.model import CollectionId, ModelId
from chunkstore.search_tables import HALFVEC_MAX_DIMENSIONS, CollectionModel
from chunkstore.statements import load

INDEXES = load("indexes")

INDEX_FROM_ROWS = 5000
REBUILD_FROM_DEAD = 0.4
"""The share of dead rows from which an index is made anew, with its table where the role owns it."""

# A load is over when fewer chunks wait than this share of the rows that are there.
_WAITING_SHARE = 0.1

_OPERATORS = {
    "cosine": sql.SQL("halfvec_cosine_ops"),
    "l2": sql.SQL("halfvec_l2_ops"),
    "ip": sql.SQL("halfvec_ip_ops"),
}


class Table(msgspec.Struct, frozen=True):
    """A search table and the state of its index."""

    collection: CollectionId
    model: ModelId
    dimensions: int
    distance: str
    search_table: str
    valid: bool
    leftovers: list[str]
    """Vector indexes that a killed build left invalid, or a killed rebuild beside the one."""
    live: int
    dead: int
    own: bool
    """Whether the role owns the table, so that it can build beside its writers."""
    maintained: bool
    """Whether the role may rebuild the index and vacuum the table."""

    @property
    def is_stale(self) -> bool:
        """Whether two fifths or more of the rows that it indexes are dead."""
        return self.valid and self.dead >= REBUILD_FROM_DEAD * max(self.live + self.dead, 1)

    @property
    def index(self) -> str:
        """The name of its vector index."""
        return f"{self.search_table}_hnsw"


async def build_due(database: Database, model: ModelId) -> int:
    """Builds the indexes that a model's search tables are due; returns how many.

    A broken one, left by a killed build, is dropped and built again; searches are exact meanwhile.
    """
    built = 0
    for table in await _tables(database, model):
        if table.leftovers:
            await _drop_leftovers(database, table)
        if not table.valid and await _is_due(database, table):
            built += await _build(database, table)
    return built


async def due_for_renewal(database: Database, collection: CollectionId | None = None) -> list[Table]:
    """The tables that the role may maintain, with an index, of whose rows two fifths or more are dead.

    What killed builds and rebuilds left beside an index is dropped on the way.
    """
    due: list[Table] = []
    for table in await _tables(database, None):
        if not table.maintained or collection not in (None, table.collection):
            continue
        if table.leftovers:
            await _drop_leftovers(database, table)
        if table.is_stale:
            due.append(table)
    return due


async def is_due(database: Database, table: Table) -> bool:
    """Whether much of a table is dead still: asked again under the lock that others renew it under."""
    current = await _tables(database, table.model)
    return any(now.is_stale for now in current if now.search_table == table.search_table)


async def _tables(database: Database, model: ModelId | None) -> list[Table]:
    async with database.transaction() as conn:
        return await rows.fetch_all(conn, INDEXES.tables, {"model": model}, row=Table)


async def _is_due(database: Database, table: Table) -> bool:
    if table.dimensions > HALFVEC_MAX_DIMENSIONS:
        return False
    async with database.transaction(BY_INDEX) as conn:
        counted = INDEXES.with_tables("count_up_to", search=table.search_table)
        if await rows.fetch_value(conn, counted, {"limit": INDEX_FROM_ROWS}) < INDEX_FROM_ROWS:
            return False
        limit = int(max(table.live, INDEX_FROM_ROWS) * _WAITING_SHARE)
        params = {"group": leases.embedding_group(table.model), "limit": limit}
        return await rows.fetch_value(conn, INDEXES.waiting_chunks, params) < limit


async def _build(database: Database, table: Table) -> bool:
    async with _guarded(database, table) as is_free:
        if not is_free:
            return False
        current = {row.search_table: row for row in await _tables(database, table.model)}
        if current[table.search_table].valid:
            return False
        if not table.own or database.is_pooled:
            async with database.transaction() as conn:
                return await rows.fetch_value(conn, INDEXES.build_index, {"table": table.search_table})
        async with database.connection() as conn:
            await _create(conn, table.search_table, table.distance)
    return True


async def build_beside(database: Database, model: CollectionModel, search_table: str) -> bool:
    """Builds the index of a table that a rebuild has filled, if it is large enough; says whether."""
    if model.dimensions > HALFVEC_MAX_DIMENSIONS:
        return False
    async with database.connection() as conn:
        counted = INDEXES.with_tables("count_up_to", search=search_table)
        if await rows.fetch_value(conn, counted, {"limit": INDEX_FROM_ROWS}) < INDEX_FROM_ROWS:
            return False
        await _create(conn, search_table, model.distance)
    return True


async def _create(conn: AsyncConnection[Any], search_table: str, distance: str) -> None:
    index = f"{search_table}_hnsw"
    await conn.execute(INDEXES.with_tables("drop_index", index=index))
    await conn.execute(INDEXES.leave_index_to_collector, {"table": search_table})
    await conn.execute("SET maintenance_work_mem = '512MB'")
    create = INDEXES.composed(
        "create_index",
        index=sql.Identifier(index),
        search=sql.Identifier(search_table),
        operators=_OPERATORS[distance],
    )
    await conn.execute(create)


async def _drop_leftovers(database: Database, table: Table) -> None:
    async with _guarded(database, table) as is_free:
        if not is_free:
            return
        if not table.own or database.is_pooled:
            async with database.transaction() as conn:
                await conn.execute(INDEXES.drop_leftovers, {"table": table.search_table})
            return
        current = {row.search_table: row for row in await _tables(database, table.model)}
        async with database.connection() as conn:
            for index in current[table.search_table].leftovers:
                await conn.execute(INDEXES.with_tables("drop_index", index=index))


async def rebuild(database: Database, table: Table) -> bool:
    """Rebuilds a table's index in its place and vacuums the table, which stays as large; says whether.

    For a role that maintains the table and does not own it.
    """
    async with _guarded(database, table) as is_free:
        if not is_free:
            return False
        async with database.connection() as conn:
            await conn.execute("SET maintenance_work_mem = '512MB'")
            await conn.execute(INDEXES.with_tables("rebuild_index", index=table.index))
            await conn.execute(INDEXES.with_tables("vacuum", search=table.search_table))
    return True


async def drop_snapshot(conn: AsyncConnection[Any]) -> None:
    """Lets go of the last query's snapshot, which a concurrent build would wait for without end.

    A query with parameters keeps its portal, and with it the snapshot; a plain one ends the portal.
    """
    await conn.execute(b"SELECT", prepare=False)


async def try_lock(guard: AsyncConnection[Any], search_table: str) -> bool:
    """Keeps other builders from a table's index until `guard`'s transaction ends.

    False where somebody builds it, vacuums the table, or did so when he was killed and the server goes on.
    """
    names = {"index": f"{search_table}_hnsw", "table": search_table}
    return await rows.fetch_value(guard, INDEXES.try_lock, names)


@asynccontextmanager
async def _guarded(database: Database, table: Table) -> AsyncIterator[bool]:
    """Keeps other builders from the table's index; False where somebody builds it or vacuums the table.

    The lock is an idle transaction's: it ends with its connection, behind a pooler too, and a READ
    COMMITTED transaction that is idle holds no snapshot for a concurrent build to wait for.
    """
    async with database.guard() as guard:
        is_free = await try_lock(guard, table.search_table)
        await drop_snapshot(guard)
        yield is_free
