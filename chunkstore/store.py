"""The public API: a store, and the collections in it.

Async; `chunkstore.sync` is the same for blocking callers.
"""

from datetime import timedelta
from pathlib import Path
from typing import Self

from chunkstore import catalog, rows
from chunkstore.catalog import CollectionRow
from chunkstore.collection import Collection
from chunkstore.database import Database
from chunkstore.errors import UnknownCollection
from chunkstore.hints import Hints
from chunkstore.models import Model
from chunkstore.models.opening import described, opened
from chunkstore.models.queries import Queries
from chunkstore.settings import KEEP_LAST


class ChunkStore:
    """One store. Made by `open`, given back by `close` or the end of an `async with`.

    Whatever asks the database may raise DatabaseError's family, in a collection too.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.hints = Hints(database)
        self.queries = Queries()

    @classmethod
    async def open(
        cls,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        data: Path | str | None = None,
        migrate: bool = False,
        max_size: int = 10,
    ) -> Self:
        """Opens a migrated store; without a DSN, the embedded server in the folder `data`.

        `migrate` applies what migrations the schema lacks first. Raises InvalidInput, and DatabaseError's
        family.
        """
        return cls(await Database.open(dsn, schema=schema, data=data, max_size=max_size, migrate=migrate))

    async def close(self) -> None:
        """Closes the connections; the last user of an embedded server stops it."""
        await self.hints.close()
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def collection(
        self,
        name: str,
        model: Model | str | None = None,
        *,
        keep_last: int = KEEP_LAST,
        keep_for: timedelta | None = None,
        headings: bool = True,
    ) -> Collection:
        """The collection of that name; with a model, created where it is not there yet.

        `model` is a Model or a spec for `open_model`. Retention (`keep_last` versions, and all that are
        younger than `keep_for`) and `headings` (whether heading paths are part of what the model is given)
        count at creation only. Raises UnknownCollection, ModelMismatch, InvalidInput, and what `open_model`
        raises.
        """
        given = None if model is None else await described(model)
        try:
            async with self.database.transaction() as conn:
                row = await catalog.find(conn, name)
        except UnknownCollection:
            if model is None:
                raise
            model = await opened(model)
            row = await catalog.create(
                self.database, name, model, keep_last=keep_last, keep_for=keep_for, headings=headings
            )
        async with self.database.transaction() as conn:
            models = await catalog.models_of(conn, row.collection)
        if given is not None:
            stored = next((m for m in models if m.name == given.name), models[0])
            catalog.check_same(stored, given)
        return Collection(self, row, models, model)

    async def collections(self) -> list[CollectionRow]:
        """Every collection of the store."""
        async with self.database.transaction() as conn:
            return await rows.fetch_all(conn, catalog.COLLECTIONS.collections, row=CollectionRow)
