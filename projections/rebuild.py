"""Rebuilds a projection beside the live one and swaps it in (rules 20 and 21).

Keeps invariant 10: the log's 'activated' events are replayed, nothing is decided anew. Searches, appends and
consumers go on; activation pauses for the swap alone.
"""

import anyio
import msgspec
from psycopg import sql

from chunkstore import catalog, rows
from chunkstore.database import Database
from chunkstore.errors import Conflict, UnknownModel
from chunkstore.model import CollectionId, ModelId
from chunkstore.search_tables import CollectionModel
from chunkstore.statements import load
from chunkstore.store import ChunkStore
from projections import indexes
from projections.beside import BESIDE, GIVE_WAY, Beside, swapping

REBUILD = load("rebuild")

_SEGMENTS = 4
_LOOK_SECONDS = 0.1
"""Between two looks whether an index is still being built."""


class RebuildReport(msgspec.Struct, frozen=True):
    """What a rebuild came to."""

    collection: str
    model: str
    active_chunks: int
    vectors_copied: int
    copied_in_swap: int
    """Vectors that became active while the others were copied."""
    indexed: bool


async def rebuild(store: ChunkStore, collection: str, model: str | None = None) -> RebuildReport:
    """Rebuilds the search and active tables of a collection's model (the serving one).

    Raises UnknownCollection, UnknownModel, InvalidInput, UnsupportedServer behind a pooler, and Conflict
    where another rebuild of the same is running, or this one was taken for abandoned after its connections
    were lost.
    """
    store.database.require_own_sessions("a rebuild")
    async with store.database.transaction() as conn:
        row = await catalog.find(conn, collection)
        models = await catalog.models_of(conn, row.collection)
    chosen = next((m for m in models if model in (None, m.name)), None)
    if chosen is None:
        raise UnknownModel(f"model: the collection has no model {model!r}")
    async with store.database.guard() as guard:
        if not await rows.fetch_value(guard, BESIDE.try_begin, {"table": chosen.search_table}):
            raise Conflict(f"a rebuild of {collection!r} for {chosen.name!r} is running already")
        table = {"table": chosen.search_table}
        while not await rows.fetch_value(guard, REBUILD.try_lock_index, table):
            await indexes.drop_snapshot(guard)
            await anyio.sleep(_LOOK_SECONDS)
        await indexes.drop_snapshot(guard)
        return await _Rebuild(store, row.collection, collection, chosen).run()


class _Begun(msgspec.Struct, frozen=True):
    collection: CollectionId
    model: ModelId
    search_table: str
    active_table: str


async def drop_abandoned(database: Database, collection: CollectionId | None = None) -> int:
    """Drops the tables that killed rebuilds left, of which nobody swaps in any; returns how many rebuilds.

    Those of tables that the role does not own are left to their owner.
    """
    async with database.transaction() as conn:
        begun = await rows.fetch_all(conn, REBUILD.begun, row=_Begun)
    dropped = 0
    for pair in begun:
        if collection not in (None, pair.collection):
            continue
        params = {"collection": pair.collection, "model": pair.model}
        beside = {"search": f"{pair.search_table}_rebuild", "active": f"{pair.active_table}_rebuild"}
        async with database.transaction() as conn:
            if not await rows.fetch_value(conn, BESIDE.try_begin, {"table": pair.search_table}):
                continue
            if await rows.fetch_value(conn, REBUILD.is_abandoned, params):
                await conn.execute(BESIDE.set_rebuilding, params | {"rebuilding": False})
                await conn.execute(BESIDE.with_tables("drop_tables", **beside))
                dropped += 1
    return dropped


class _Rebuild:
    def __init__(self, store: ChunkStore, number: CollectionId, name: str, model: CollectionModel) -> None:
        self._database = store.database
        self._number = number
        self._name = name
        self._model = model
        self._beside = Beside(store.database, number, model)

    async def run(self) -> RebuildReport:
        await self._beside.begin()
        copied = await self._copy()
        indexed = await indexes.build_beside(self._database, self._model, self._beside.search)
        active, late = await swapping()(self._swap)
        return RebuildReport(
            collection=self._name,
            model=self._model.name,
            active_chunks=active,
            vectors_copied=copied + late,
            copied_in_swap=late,
            indexed=indexed,
        )

    async def _copy(self) -> int:
        """Copies the vectors of what is active, a few segments a transaction."""
        async with self._database.transaction() as conn:
            segments = await rows.fetch_values(conn, REBUILD.active_segments, self._beside.params)
        copied = 0
        for start in range(0, len(segments), _SEGMENTS):
            async with self._database.transaction() as conn:
                await self._beside.hold(conn)
                batch = {"segments": segments[start : start + _SEGMENTS]}
                chunks = await rows.fetch_values(conn, REBUILD.lock_chunks, batch)
                copied += await self._beside.copy(conn, chunks)
        return copied

    async def _swap(self) -> tuple[int, int]:
        """Replays the tail, copies what became active, and flips: one transaction under all checkpoints.

        It gives way to whoever reads the live tables for long, a dump say, and is tried again.
        """
        new = {"search": self._beside.search, "active": self._beside.active}
        async with self._database.transaction(GIVE_WAY) as conn:
            await self._beside.keep_others_away(conn)
            await conn.execute(self._with_numbers("replay"))
            filled = await conn.execute(REBUILD.with_tables("fill_active", active=new["active"]))
            missing = await rows.fetch_values(
                conn, REBUILD.with_tables("missing", **new), {"model": self._model.model}
            )
            late = await self._beside.copy(conn, missing)
            await conn.execute(REBUILD.with_tables("remove_inactive", **new))
            await conn.execute(self._with_numbers("correct_active_versions"))
            await conn.execute(self._with_numbers("forget_unreplayed"))
            await self._beside.flip(conn, membership=True)
        return filled.rowcount, late

    def _with_numbers(self, name: str) -> sql.Composed:
        """A statement that cannot take parameters, or runs once: its numbers stand in the text."""
        numbers = {"collection": self._number, "model": self._model.model}
        return REBUILD.composed(name, **{place: sql.Literal(number) for place, number in numbers.items()})
