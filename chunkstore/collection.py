"""A collection: appending, deleting, reading and searching its files, its models and its dead letters.

The calls of the public API that concern one collection; each transaction opens here.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from psycopg import AsyncConnection

from chunkstore import append as appending
from chunkstore import catalog, dead_letters, erase, inputs, rows, versions
from chunkstore import search as searching
from chunkstore.append import Write
from chunkstore.batches import ChunkSource
from chunkstore.catalog import CollectionRow
from chunkstore.dead_letters import DeadLetter
from chunkstore.errors import InvalidInput, UnknownModel, WaitTimeout
from chunkstore.manifests import place_of, read_segment
from chunkstore.model import ChunkId, Hits, Metadata, ModelId, StoredChunk, Version
from chunkstore.models import Model, name_of, spec_of
from chunkstore.models.opening import opened
from chunkstore.search_tables import CollectionModel

if TYPE_CHECKING:
    from chunkstore.store import ChunkStore

VectorOrText = str | Sequence[float] | np.ndarray

# Between two looks at whether a version is active: a fortieth of what was waited so far.
_SHORTEST_PAUSE = 0.005
_LONGEST_PAUSE = 0.25
_ONE_LOOK = 2.0
"""Seconds for a look that somebody takes who does not want to wait."""


class Collection:
    """A named set of files that share models, retention and search indexes."""

    def __init__(
        self,
        store: "ChunkStore",
        row: CollectionRow,
        models: list[CollectionModel],
        model: Model | str | None,
    ) -> None:
        self.store = store
        self.name = row.name
        self.row = row
        self._models = models
        self._model = model
        self._openers: dict[ModelId, Model | str] = {}

    @property
    def model_names(self) -> list[str]:
        """The names of the collection's models, the serving one first."""
        return [model.name for model in self._models]

    def opener(self) -> Model | str | None:
        """The serving model if it was given, else the spec that opens it, None where its name tells none."""
        return self._opener(self._serving.name)

    # --- writing --------------------------------------------------------------------------------

    async def append(
        self,
        key: str,
        chunks: ChunkSource,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Version:
        """Appends the chunks as the file's next version: atomically, in bounded memory.

        What the latest version holds already comes back unchanged. `expected_version` is the latest version
        that the caller has seen (0: none); a retry with the same `idempotency_key` returns the first try's
        version. Raises InvalidInput, StaleVersion, IdempotencyKeyReused, VersionFenced.
        """
        write = self._write(key, expected_version, idempotency_key, metadata)
        version = await appending.append(self.store.database, write, chunks)
        self.store.hints.give()
        return version

    async def delete(
        self, key: str, *, expected_version: int | None = None, metadata: Metadata | None = None
    ) -> Version:
        """Appends a tombstone: searches lose the file, its history stays.

        Raises UnknownFile, StaleVersion, InvalidInput.
        """
        write = self._write(key, expected_version, None, metadata)
        version = await appending.delete(self.store.database, write)
        self.store.hints.give()
        return version

    async def rollback(self, key: str, to: int) -> Version:
        """Makes version `to` the target until the next append.

        Raises UnknownFile, UnknownVersion, InvalidInput.
        """
        inputs.checked_version(to, "to")
        async with self.store.database.transaction() as conn:
            state = await versions.lock_existing(conn, self.row.collection, inputs.checked_key(key))
            await versions.roll_back(conn, self.row.collection, state, to)
            version = await self._version(conn, key, to)
        self.store.hints.give()
        return version

    async def pin(self, key: str, version: int) -> Version:
        """Keeps a version whatever the retention says. Raises UnknownFile, UnknownVersion, InvalidInput."""
        return await self._set_pinned(key, version, pinned=True)

    async def unpin(self, key: str, version: int) -> Version:
        """Gives a pinned version back to the retention. Raises UnknownFile, UnknownVersion, InvalidInput."""
        return await self._set_pinned(key, version, pinned=False)

    async def erase(self, key: str) -> None:
        """Removes every trace of a file but its number, at once. Raises UnknownFile, InvalidInput."""
        async with self.store.database.transaction() as conn:
            await erase.erase(conn, self.row.collection, inputs.checked_key(key))
        self.store.hints.give()

    # --- reading --------------------------------------------------------------------------------

    async def history(self, key: str) -> list[Version]:
        """The file's versions, oldest first; collected ones without content.

        Raises UnknownFile, InvalidInput.
        """
        inputs.checked_key(key)
        async with self.store.database.transaction() as conn:
            found = await versions.history(conn, self.row.collection, self.name, key)
        if not found:
            raise catalog.unknown_file(key)
        return found

    async def chunks(self, key: str, version: int | None = None) -> AsyncIterator[StoredChunk]:
        """The chunks of a version, or of the latest, in order; read a segment at a time.

        Raises InvalidInput, UnknownFile, and UnknownVersion, also where the version is collected while it is
        read.
        """
        if version is None:
            committed = [v.number for v in await self.history(key) if v.state == "committed"]
            if not committed:
                raise catalog.unknown_file(key)
            version = max(committed)
        inputs.checked_version(version, "version")
        async with self.store.database.transaction() as conn:
            file = await versions.file_of(conn, self.row.collection, inputs.checked_key(key))
            if file is None:
                raise catalog.unknown_file(key)
            manifest = await versions.manifest_of(conn, file, version)
        for segment, bases in manifest:
            async with self.store.database.transaction() as conn:
                read = await read_segment(conn, segment, bases)
                await versions.manifest_of(conn, file, version)
            for row in read:
                yield StoredChunk(
                    chunk_id=row.chunk_id,
                    ordinal=row.ordinal,
                    content=row.content,
                    metadata=row.metadata,
                    place=place_of(row),
                )

    async def keys(self) -> AsyncIterator[str]:
        """The keys of the files whose latest version is not a tombstone."""
        async with self.store.database.transaction() as conn:
            params = {"collection": self.row.collection}
            found = await rows.fetch_values(conn, catalog.COLLECTIONS.keys, params)
        for key in found:
            yield key

    async def search(self, query: VectorOrText, k: int = 10, *, model: str | None = None) -> Hits:
        """The k nearest chunks of what is active, best first.

        `query` is a text, which the collection's model embeds, or a vector of `(d,)` numbers. `model` names
        another model than the serving one. Raises InvalidInput, UnknownModel; for a text also
        EmbeddingFailed, ModelUnavailable, ModelRefused, and what `open_model` raises.
        """
        inputs.checked_k(k)
        searched = await self._by_name(model)
        hits, serving = await self._search(query, k, searched)
        if model is None and serving != searched.model:
            await self._read_models()  # another model was made to serve elsewhere
            hits, _ = await self._search(query, k, self._serving)
        return hits

    async def wait_until_active(
        self, version: Version, timeout: float = 60.0, *, model: str | None = None
    ) -> None:
        """Returns when searches see this version or a later one; `timeout` in seconds, 0 for one look.

        `model` names another model than the serving one. Raises NeverActive where it cannot happen any more
        (collected, erased, rolled back, waiting on a dead letter), WaitTimeout, UnknownModel, InvalidInput,
        and UnknownFile for a version of another store.
        """
        inputs.checked_timeout(timeout)
        if version.collection != self.name:
            raise InvalidInput("version", version.collection, f"a version of the collection {self.name!r}")
        waited_for = None if model is None else (await self._by_name(model)).model
        begun = anyio.current_time()
        try:
            with anyio.fail_after(max(timeout, _ONE_LOOK)):
                while not await searching.is_active(
                    self.store.database, version.file, version.number, waited_for
                ):
                    waited = anyio.current_time() - begun
                    if waited >= timeout:
                        raise TimeoutError
                    pause = min(max(waited / 40, _SHORTEST_PAUSE), _LONGEST_PAUSE)
                    await anyio.sleep(min(pause, timeout - waited))
        except TimeoutError:
            raise WaitTimeout(
                f"timeout: version {version.number} of {version.key!r} was not active after {timeout} s;"
                " is a consumer and a projector running?"
            ) from None

    # --- models and dead letters ----------------------------------------------------------------

    async def add_model(self, model: Model | str) -> None:
        """Lets the collection be embedded by another model too, and logs what it lacks, file by file.

        A call that was cut off is finished by the next one. Raises ModelMismatch, InvalidInput, and what
        `open_model` raises.
        """
        await catalog.add_model(self.store.database, self.row, await opened(model))
        await self._read_models()
        self.store.hints.give()

    async def serve(self, model: str) -> None:
        """Makes a model the one that searches use. Raises UnknownModel, ModelIncomplete."""
        await catalog.serve(self.store.database, self.row, model)
        await self._read_models()

    async def dead_letters(self) -> list[DeadLetter]:
        """What consumers gave up on, oldest first."""
        async with self.store.database.transaction() as conn:
            return await dead_letters.of_collection(conn, self.row.collection)

    async def retry(self, chunk_id: ChunkId, model: str | None = None) -> None:
        """Takes a dead letter back, so that its chunk is embedded again.

        Raises UnknownDeadLetter, UnknownModel, InvalidInput.
        """
        inputs.checked_chunk_id(chunk_id)
        of_model = await self._by_name(model)
        async with self.store.database.transaction() as conn:
            await dead_letters.retry(conn, self.row.collection, chunk_id, of_model.model)
        self.store.hints.give()

    async def discard(self, chunk_id: ChunkId, model: str | None = None) -> None:
        """Lets versions become active without the chunk.

        Raises UnknownDeadLetter, UnknownModel, InvalidInput.
        """
        inputs.checked_chunk_id(chunk_id)
        of_model = await self._by_name(model)
        async with self.store.database.transaction() as conn:
            await dead_letters.discard(conn, self.row.collection, chunk_id, of_model.model)
        self.store.hints.give()

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _serving(self) -> CollectionModel:
        return self._models[0]

    def _opener(self, name: str) -> Model | str | None:
        given = self._model
        return given if given is not None and name_of(given) == name else spec_of(name)

    async def _by_name(self, name: str | None) -> CollectionModel:
        if name is None:
            return self._serving
        if name not in self.model_names:
            await self._read_models()  # it may have been added elsewhere since
        for model in self._models:
            if model.name == name:
                return model
        raise UnknownModel(
            f"model: the collection has no model {name!r}; it has {', '.join(self.model_names)}"
        )

    async def _read_models(self) -> None:
        async with self.store.database.transaction() as conn:
            self._models = await catalog.models_of(conn, self.row.collection)

    async def _search(self, query: VectorOrText, k: int, searched: CollectionModel) -> tuple[Hits, ModelId]:
        if isinstance(query, str):
            vector = await self._embedded(inputs.checked_key(query, "query", 65536), searched)
        else:
            vector = query
        checked = searching.checked_vector(vector, searched)
        return await searching.search(self.store.database, self.row.collection, searched, checked, k)

    async def _embedded(self, text: str, searched: CollectionModel) -> np.ndarray:
        return await self.store.queries.vector(await self._opened(searched), text)

    async def _opened(self, searched: CollectionModel) -> Model:
        """The model that embeds queries: the one given with the collection, else by its stored name."""
        if searched.model not in self._openers:
            opener = self._opener(searched.name)
            if opener is None:
                raise UnknownModel(
                    f"model: {searched.name!r} cannot be opened by its name alone;"
                    " give it to `store.collection(name, model=…)`, or search with a vector"
                )
            self._openers[searched.model] = opener
        opener = self._openers[searched.model]
        return await self.store.queries.opened(opener) if isinstance(opener, str) else opener

    async def _set_pinned(self, key: str, version: int, *, pinned: bool) -> Version:
        inputs.checked_version(version, "version")
        async with self.store.database.transaction() as conn:
            state = await versions.lock_existing(conn, self.row.collection, inputs.checked_key(key))
            await versions.set_pinned(conn, state, version, pinned=pinned)
            return await self._version(conn, key, version)

    async def _version(self, conn: AsyncConnection[Any], key: str, number: int) -> Version:
        """The version as it stands; under its file's lock, or its key may be another file's by now."""
        (found,) = await versions.history(conn, self.row.collection, self.name, key, number)
        return found

    def _write(
        self,
        key: str,
        expected_version: int | None,
        idempotency_key: str | None,
        metadata: Metadata | None,
    ) -> Write:
        if expected_version is not None:
            inputs.checked_version(expected_version, "expected_version", least=0)
        if metadata is not None and not isinstance(metadata, dict):
            raise InvalidInput("metadata", metadata, "metadata is a JSON object (a dict)")
        kept: dict[str, Any] = metadata or {}
        return Write(
            collection=self.row.collection,
            collection_name=self.name,
            key=inputs.checked_key(key),
            hashing=self.row.hashing,
            expected_version=expected_version,
            idempotency_key=inputs.checked_idempotency_key(idempotency_key),
            metadata=kept,
            encoded_metadata=inputs.checked_metadata(kept, "metadata"),
        )
