"""Puts up a stage: a store of its own with gates, a side that can be held, and one that goes on."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from chunkstore import catalog, connections, migrate
from chunkstore.cli.partitions import set_partitions
from chunkstore.database import Database
from chunkstore.dsn import Dsn
from chunkstore.search_tables import ModelRow
from chunkstore.store import ChunkStore
from tests.fix_server import drop_schema
from tests.interleavings.gates import Gates, Watch
from tests.interleavings.scenes import SHARED, Stage
from tests.interleavings.sides import MODELS, Side

PARTITIONS = 2

_STAGED_FROM_ONE = {"switch_file": ("cardinality(_missing) > 1000", "cardinality(_missing) > 0")}
"""Missing search rows are staged in batches wherever there is one, as where there are thousands."""


class Silent:
    """Hints that nobody is given, because a NOTIFY would be a statement of its own at any time."""

    def give(self) -> None:
        return

    async def close(self) -> None:
        return


@asynccontextmanager
async def staged(dsn: str, changes: Mapping[str, tuple[str, str]] | None = None) -> AsyncIterator[Stage]:
    """A stage on a fresh schema, whose functions have gates; `changes` leaves a line of some out."""
    schema = f"test_{uuid4().hex[:16]}"
    dsn = make_conninfo(dsn, options="-c synchronous_commit=off")
    migrate.apply(Dsn(dsn), schema)
    try:
        async with await Database.open(dsn, schema=schema) as plain:
            await set_partitions(plain, PARTITIONS)
            await _make_models(plain)
            async with plain.connection() as keeper:
                gates = Gates(keeper)
                await gates.build(_STAGED_FROM_ONE | dict(changes or {}))
                known = await _known(plain)
                admin = Side(_quiet(plain), Watch(gates), known)
                async with _side(plain, gates, known) as held, _side(plain, gates, known) as other:
                    yield Stage(schema, gates, [admin, held, other])
    finally:
        drop_schema(dsn, schema)


async def _make_models(database: Database) -> None:
    store = ChunkStore(database)
    for number, model in enumerate(MODELS):
        await store.collection(f"made for model {number}", model)
    await store.collection(SHARED, MODELS[0], keep_last=1)


async def _known(database: Database) -> list[ModelRow]:
    async with database.transaction() as conn:
        return sorted(await catalog.every_model(conn), key=lambda row: row.model)


def _quiet(database: Database) -> ChunkStore:
    store = ChunkStore(database)
    store.hints = Silent()  # type: ignore[assignment]
    return store


async def _configure(watch: Watch, plain: Database, connection: AsyncConnection[Any]) -> None:
    connections._watch(connection, plain._dsn, plain._session)
    await watch.configure(connection)


@asynccontextmanager
async def _side(plain: Database, gates: Gates, known: Sequence[ModelRow]) -> AsyncIterator[Side]:
    watch = Watch(gates)
    pool = AsyncConnectionPool[AsyncConnection[Any]](
        plain._dsn.conninfo(),
        connection_class=watch.connections(),
        kwargs={"autocommit": True, "context": plain._session.adapters},
        configure=partial(_configure, watch, plain),
        min_size=1,
        max_size=4,
        open=False,
    )
    await pool.open()
    async with Database(plain.schema, plain._dsn, plain._session, pool) as database:
        yield Side(_quiet(database), watch, known)
