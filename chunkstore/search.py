"""Search: the one statement that reads the projections, and waiting for a version to be active.

Keeps invariant 6 (a search sees each file at one complete version at most): one statement, one snapshot.
"""

from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from psycopg import sql

from chunkstore.arrays import Vector
from chunkstore.database import Database
from chunkstore.errors import InvalidInput, NeverActive, UnknownFile
from chunkstore.model import ChunkId, CollectionId, FileId, Hit, Hits, ModelId, Place
from chunkstore.search_tables import CollectionModel
from chunkstore.statements import load

SEARCH = load("search")

_MAX_EF_SEARCH = 1000
"""Of pgvector: the most candidates that an index scan keeps."""

_OPERATORS = {"cosine": sql.SQL("<=>"), "l2": sql.SQL("<->"), "ip": sql.SQL("<#>")}


class _Beside(msgspec.Struct, frozen=True):
    exact: bool
    serving: ModelId


class _Row(msgspec.Struct, frozen=True):
    serving: ModelId
    key: str
    version: int
    chunk_id: ChunkId
    distance: float
    exact: bool
    content: str
    metadata: dict[str, Any]
    ordinal: int
    start: int | None
    end: int | None
    page: int | None
    line: int | None


def checked_vector(vector: object, model: CollectionModel) -> np.ndarray:
    """The query as `(d,) float32`.

    Raises InvalidInput for a wrong length, NaN, infinity, or zero under cosine.
    """
    allowed = f"{model.dimensions} finite numbers, as the model {model.name!r} gives"
    try:
        given = np.asarray(vector)
        with np.errstate(over="ignore"):
            query = given.astype(np.float32, casting="unsafe" if given.dtype.kind in "biufO" else "safe")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput("vector", type(vector).__name__, allowed) from error
    if query.shape != (model.dimensions,):
        raise InvalidInput("vector", f"an array of shape {query.shape}", allowed)
    with np.errstate(over="ignore"):
        halved = query.astype(np.float16)
    if not np.isfinite(halved).all():
        raise InvalidInput("vector", "NaN, infinity or a number beyond half precision", allowed)
    if model.distance == "cosine" and not halved.any():
        raise InvalidInput(
            "vector",
            "a vector of zeros in half precision",
            "a vector with a direction: the distance is cosine",
        )
    return query


def settings(k: int, database: Database, *, to_the_end: bool = False) -> dict[str, str]:
    """What an index scan needs to find k rows; `to_the_end`, whatever lies superseded between them.

    Where the server's pgvector (before 0.8) cannot go on with a scan, it finds what it finds.
    """
    ef_search = {"hnsw.ef_search": str(min(_MAX_EF_SEARCH, max(40, k)))}
    if not database.has_iterative_scans:
        return ef_search
    return ef_search | {"hnsw.iterative_scan": "relaxed_order" if to_the_end else "off"}


async def search(
    database: Database, collection: CollectionId, model: CollectionModel, query: np.ndarray, k: int
) -> tuple[Hits, ModelId]:
    """The k nearest active chunks, best first (`exact` where no index was used), and the serving model."""
    params = {
        "query": Vector(query),
        "model": model.model,
        "table": model.search_table,
        "collection": collection,
    }
    to_the_end = k > _MAX_EF_SEARCH
    found, beside = await _ask(database, model, params, k, to_the_end=to_the_end)
    exact = beside.exact
    if len(found) < k and not exact:
        if not database.has_iterative_scans:
            found, beside = await _ask(database, model, params, k, exactly=True)
            exact = True
        elif not to_the_end:
            # Anew, and seldom: to be ready to go on costs every scan a twentieth.
            found, beside = await _ask(database, model, params, k, to_the_end=True)
    return Hits([_hit(row, model.distance) for row in found], exact=exact), beside.serving


async def _ask(
    database: Database,
    model: CollectionModel,
    params: dict[str, Any],
    k: int,
    *,
    to_the_end: bool = False,
    exactly: bool = False,
) -> tuple[list[_Row], _Row | _Beside]:
    needed = settings(k, database, to_the_end=to_the_end)
    statement = nearest_statement(model, k, exactly=exactly)
    found = await database.ask(statement, params, settings=needed, row=_Row)
    if found:
        return found, found[0]
    (beside,) = await database.ask(SEARCH.nothing_found, params, settings={}, row=_Beside)
    return found, beside


@lru_cache(maxsize=1000)
def nearest_statement(model: CollectionModel, k: int, *, exactly: bool = False) -> bytes:
    """The search statement of one (collection, model) for k hits; `exactly`, also where an index stands.

    With `k` written out the server's plan does not depend on a parameter, and is made once a connection.
    """
    # An index cannot give rows in the order of a sum.
    by_no_index = sql.SQL(" + 0" if exactly else "")
    return SEARCH.composed(
        "nearest",
        search=sql.Identifier(model.search_table),
        active=sql.Identifier(model.active_table),
        operator=_OPERATORS[model.distance],
        type=sql.SQL("halfvec({})").format(sql.Literal(model.dimensions)),
        k=sql.Literal(k),
        by_no_index=by_no_index,
    ).as_bytes()


def _hit(row: _Row, distance: str) -> Hit:
    place = Place(row.start, row.end, row.page, row.line)
    return Hit(
        key=row.key,
        version=row.version,
        ordinal=row.ordinal,
        place=None if place == Place() else place,
        score=1.0 - row.distance if distance == "cosine" else -row.distance,
        content=row.content,
        metadata=row.metadata,
        chunk_id=row.chunk_id,
    )


class _Standing(msgspec.Struct, frozen=True):
    erased: bool
    target: int
    state: str | None
    active: int | None
    dead_letter: bool


async def is_active(database: Database, file: FileId, version: int, model: ModelId | None = None) -> bool:
    """Whether this version or a later one is active; after a rollback to it, whether this one is.

    For the model, or for the one that serves. Raises NeverActive where it cannot become so any more:
    collected, abandoned, erased, rolled back, or waiting on a dead letter. UnknownFile for a number that
    the store does not have.
    """
    params = {"file": file, "version": version, "model": model}
    found = await database.ask(SEARCH.standing, params, settings={}, row=_Standing)
    if not found:
        raise UnknownFile(f"file {file} is not in this store")
    standing = found[0]
    if standing.erased:
        raise NeverActive(f"version {version} was erased with its file")
    if standing.active == version:
        return True
    if standing.active is not None and standing.active > version and standing.target != version:
        return True
    if standing.state in ("collected", "abandoned"):
        raise NeverActive(f"version {version} was {standing.state} before it became active")
    if standing.target < version:
        raise NeverActive(f"version {version} is not the target any more: version {standing.target} is")
    if standing.dead_letter:
        raise NeverActive(
            f"version {version} waits on a dead letter; see `dead_letters`, then retry or discard it"
        )
    return False
