"""The tables that a search of one (collection, model) reads: vectors with their index, and membership.

One pair for every (collection, model), so that an index holds nothing that its searches cannot want.
"""

from typing import Any

import msgspec
from psycopg import AsyncConnection, sql

from chunkstore.model import CollectionId, ModelId
from chunkstore.statements import load

SEARCH_TABLES = load("search_tables")

HALFVEC_MAX_DIMENSIONS = 4000
"""Most dimensions that an HNSW index over halfvec takes; longer vectors are searched exactly."""


class ModelRow(msgspec.Struct, frozen=True):
    """A model as the store knows it."""

    model: ModelId
    name: str
    dimensions: int
    distance: str


class CollectionModel(ModelRow, frozen=True):
    """A model of one collection, with the tables that its searches read."""

    search_table: str
    active_table: str


def names(collection: CollectionId, model: ModelId) -> tuple[str, str]:
    """The names of the search table and the active table."""
    return f"search_{collection}_{model}", f"active_{collection}_{model}"


async def create(
    conn: AsyncConnection[Any],
    collection: CollectionId,
    search_table: str,
    active_table: str,
    dimensions: int,
) -> None:
    """Creates an empty pair that the collection names already; vectors are kept in half precision."""
    kind = sql.SQL("halfvec({})").format(sql.Literal(dimensions))
    await conn.execute(
        SEARCH_TABLES.composed("create_search_table", search=sql.Identifier(search_table), type=kind)
    )
    await conn.execute(SEARCH_TABLES.with_tables("keep_no_samples", search=search_table))
    await conn.execute(SEARCH_TABLES.with_tables("create_active_table", active=active_table))
    await conn.execute(SEARCH_TABLES.grant_search_tables, {"collection": collection})
