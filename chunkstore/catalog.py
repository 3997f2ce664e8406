"""Collections and their models: create, add a model and back-fill it, switch the serving one (rule 9)."""

from datetime import timedelta
from typing import Any

import msgspec
from psycopg import AsyncConnection

from chunkstore import chunks, inputs, leases, log, rows, search_tables, versions
from chunkstore.chunks import Hashing
from chunkstore.database import Database
from chunkstore.errors import (
    InvalidInput,
    ModelIncomplete,
    ModelMismatch,
    UnknownCollection,
    UnknownFile,
    UnknownModel,
)
from chunkstore.events import FileBackfilled, ModelAdded, ServingModelChanged
from chunkstore.model import CollectionId, FileId, ModelId, SegmentId
from chunkstore.models import Model, ModelDescription
from chunkstore.search_tables import CollectionModel, ModelRow
from chunkstore.settings import KEEP_LAST, MAX_KEEP_FOR_DAYS, MAX_KEEP_LAST
from chunkstore.statements import load

COLLECTIONS = load("collections")


class CollectionRow(msgspec.Struct, frozen=True):
    """A collection as the store keeps it."""

    collection: CollectionId
    name: str
    keep_last: int
    keep_for: timedelta | None
    headings: bool
    salt: bytes
    serving: ModelId

    @property
    def hashing(self) -> Hashing:
        """How its chunks are hashed."""
        return Hashing(self.headings, self.salt)


async def find(conn: AsyncConnection[Any], name: str) -> CollectionRow:
    """The collection of that name. Raises UnknownCollection, InvalidInput."""
    inputs.checked_key(name, "collection")
    found = await rows.fetch_one(conn, COLLECTIONS.collection, {"name": name}, row=CollectionRow)
    if found is None:
        raise UnknownCollection(
            f"collection: no collection {name!r} in this store; create it with a model first"
        )
    return found


def unknown_file(key: str) -> UnknownFile:
    """The error for a key that is not there; the caller raises it."""
    return UnknownFile(f"key: no file {key!r} in this collection, or it was erased")


async def models_of(conn: AsyncConnection[Any], collection: CollectionId) -> list[CollectionModel]:
    """The collection's models, the serving one first."""
    return await rows.fetch_all(conn, COLLECTIONS.models_of, {"collection": collection}, row=CollectionModel)


async def every_model(conn: AsyncConnection[Any]) -> list[ModelRow]:
    """Every model of the store."""
    return await rows.fetch_all(conn, COLLECTIONS.models, row=ModelRow)


def check_same(stored: ModelRow, model: Model | ModelDescription) -> None:
    """Raises ModelMismatch unless the model given is the stored one: same name, dimensions and distance."""
    given = (model.name, model.dimensions, model.distance)
    kept = (stored.name, stored.dimensions, stored.distance)
    if given != kept:
        raise ModelMismatch(
            f"model: {_described(given)} is not {_described(kept)}, which stands under that name or in that"
            " collection; use that model, or add this one under a name of its own"
        )


def _described(model: tuple[str, int, str]) -> str:
    return f"{model[0]!r} ({model[1]} dimensions, {model[2]})"


async def create(
    database: Database,
    name: str,
    model: Model,
    *,
    keep_last: int = KEEP_LAST,
    keep_for: timedelta | None = None,
    headings: bool = True,
) -> CollectionRow:
    """Creates the collection, or finds the one that somebody else just created.

    Raises InvalidInput, and ModelMismatch where a model of that name has other dimensions.
    """
    inputs.checked_key(name, "collection")
    if type(keep_last) is not int or not 1 <= keep_last <= MAX_KEEP_LAST:
        raise InvalidInput("keep_last", keep_last, f"an integer from 1 to {MAX_KEEP_LAST}")
    longest = timedelta(days=MAX_KEEP_FOR_DAYS)
    if keep_for is not None and not (isinstance(keep_for, timedelta) and timedelta(0) <= keep_for <= longest):
        raise InvalidInput("keep_for", keep_for, f"a timedelta from 0 to {MAX_KEEP_FOR_DAYS:,} days")
    async with database.transaction() as conn:
        known = await _known_model(conn, model)
        params = {
            "name": name,
            "keep_last": keep_last,
            "keep_for": keep_for,
            "headings": headings,
            "model": known.model,
        }
        created = await rows.fetch_value(conn, COLLECTIONS.insert_collection, params)
        if created is not None:
            await _add_tables(conn, created, known, backfilled=None)
        return await find(conn, name)


async def add_model(database: Database, collection: CollectionRow, model: Model) -> None:
    """Lets the collection be embedded by another model too; one that is there already is back-filled further.

    Takes all partitions' locks, so every append either logs for the model or is seen by the back-fill.
    """
    async with database.transaction() as conn:
        known = await _known_model(conn, model)
        await conn.execute(COLLECTIONS.lock_all_partitions)
        if await _add_tables(conn, collection.collection, known, backfilled=0):
            event = ModelAdded(collection=collection.collection, model=known.model)
            await log.append(conn, 0, [event])
    await _backfill(database, collection.collection, known.model)


async def serve(database: Database, collection: CollectionRow, name: str) -> None:
    """Makes a model the one that searches use. Raises UnknownModel, and ModelIncomplete until it is ready."""
    async with database.transaction() as conn:
        model = next((m for m in await models_of(conn, collection.collection) if m.name == name), None)
        if model is None:
            raise UnknownModel(f"model: the collection has no model {name!r}; add it first")
        await conn.execute(COLLECTIONS.lock_all_partitions)
        current = await find(conn, collection.name)
        params = {"collection": collection.collection, "model": model.model, "serving": current.serving}
        waiting = await rows.fetch_value(conn, COLLECTIONS.waiting_for_model, params)
        backfilling = await rows.fetch_value(conn, COLLECTIONS.backfill_position, params) is not None
        if backfilling:
            raise ModelIncomplete(
                f"model: {name!r} cannot serve yet, its back-fill is not finished;"
                " where nobody is at it, add the model again, which goes on with it"
            )
        if waiting:
            raise ModelIncomplete(
                f"model: {name!r} cannot serve yet, {waiting} files wait for it;"
                " run consumers and a projector for it until `status` shows none"
            )
        if current.serving != model.model:
            await conn.execute(COLLECTIONS.serve, params)
            event = ServingModelChanged(collection=collection.collection, model=model.model)
            await log.append(conn, 0, [event])


async def _known_model(conn: AsyncConnection[Any], model: Model) -> ModelRow:
    params = {"name": model.name, "dimensions": model.dimensions, "distance": model.distance}
    await conn.execute(COLLECTIONS.insert_model, params)
    known = await rows.fetch_one(conn, COLLECTIONS.model, params, row=ModelRow)
    assert known is not None, "inserted in the statement before, and models are never deleted"
    check_same(known, model)
    return known


async def _add_tables(
    conn: AsyncConnection[Any], collection: CollectionId, model: ModelRow, *, backfilled: int | None
) -> bool:
    search_table, active_table = search_tables.names(collection, model.model)
    params = {
        "collection": collection,
        "model": model.model,
        "search_table": search_table,
        "active_table": active_table,
        "backfilled": backfilled,
    }
    if await rows.fetch_value(conn, COLLECTIONS.insert_collection_model, params) is None:
        return False
    await search_tables.create(conn, collection, search_table, active_table, model.dimensions)
    await leases.create_group(conn, leases.embedding_group(model.model))
    await leases.create_group(conn, leases.projector_group(model.model))
    return True


# --- back-fill ----------------------------------------------------------------------------------


class _Needed(msgspec.Struct, frozen=True):
    version: int
    segments: list[SegmentId]


async def _backfill(database: Database, collection: CollectionId, model: ModelId) -> None:
    """Logs what each file lacks of the model, file by file; goes on where an earlier call stopped."""
    params: dict[str, Any] = {"collection": collection, "model": model}
    while True:
        async with database.transaction() as conn:
            after = await rows.fetch_value(conn, COLLECTIONS.backfill_position, params)
            if after is None:
                return
            files: list[FileId] = await rows.fetch_values(
                conn, COLLECTIONS.next_files, params | {"after": after}
            )
        for file in files:
            async with database.transaction() as conn:
                await _backfill_file(conn, file, model)
        async with database.transaction() as conn:
            await conn.execute(COLLECTIONS.backfilled, params | {"file": files[-1] if files else None})


async def _backfill_file(conn: AsyncConnection[Any], file: FileId, model: ModelId) -> None:
    partition = await versions.lock_file(conn, file)
    for needed in await rows.fetch_all(conn, COLLECTIONS.open_and_target, {"file": file}, row=_Needed):
        missing = await chunks.unembedded(conn, file, segments=needed.segments, models=[model])
        events = [
            *log.runs_of(file, needed.version, missing),
            FileBackfilled(file=file, version=needed.version, model=model),
        ]
        await log.append(conn, partition, events)
