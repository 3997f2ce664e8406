"""The blocking twin of `chunkstore.store`: the same names, arguments, results and errors.

Holds no logic: each method runs its async twin on an event loop in a thread of its own, so any number of
threads may share a store.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal
from anyio.streams.memory import MemoryObjectReceiveStream

from chunkstore import store as twins
from chunkstore.batches import ChunkSource
from chunkstore.catalog import CollectionRow
from chunkstore.collection import VectorOrText
from chunkstore.dead_letters import DeadLetter
from chunkstore.errors import DatabaseError
from chunkstore.model import ChunkId, Hits, Metadata, StoredChunk, Version
from chunkstore.models import Model
from chunkstore.settings import KEEP_LAST

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Items that cross between the threads at once: a crossing costs about a tenth of a millisecond.
_ITEMS = 256


class ChunkStore:
    """Blocking twin of `chunkstore.store.ChunkStore`. Give it back by `close` or the end of a `with`."""

    def __init__(self, loop: "_Loop", twin: twins.ChunkStore) -> None:
        self._loop = loop
        self._twin = twin

    @classmethod
    def open(
        cls,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        data: Path | str | None = None,
        migrate: bool = False,
        max_size: int = 10,
    ) -> Self:
        """See `chunkstore.store.ChunkStore.open`."""
        loop = _Loop()
        try:
            twin = loop.call(
                twins.ChunkStore.open, dsn, schema=schema, data=data, migrate=migrate, max_size=max_size
            )
        except BaseException:
            loop.close()
            raise
        return cls(loop, twin)

    def close(self) -> None:
        """See `chunkstore.store.ChunkStore.close`."""
        if self._loop.closed:
            return
        try:
            self._loop.call(self._twin.close)
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collection(
        self,
        name: str,
        model: Model | str | None = None,
        *,
        keep_last: int = KEEP_LAST,
        keep_for: timedelta | None = None,
        headings: bool = True,
    ) -> "Collection":
        """See `chunkstore.store.ChunkStore.collection`."""
        twin = self._loop.call(
            self._twin.collection, name, model, keep_last=keep_last, keep_for=keep_for, headings=headings
        )
        return Collection(self, self._loop, twin)

    def collections(self) -> list[CollectionRow]:
        """See `chunkstore.store.ChunkStore.collections`."""
        return self._loop.call(self._twin.collections)


class Collection:
    """Blocking twin of `chunkstore.collection.Collection`."""

    def __init__(self, store: ChunkStore, loop: "_Loop", twin: twins.Collection) -> None:
        self.store = store
        self.name = twin.name
        self.row = twin.row
        self._loop = loop
        self._twin = twin

    @property
    def model_names(self) -> list[str]:
        """See `chunkstore.collection.Collection.model_names`."""
        return self._twin.model_names

    def opener(self) -> Model | str | None:
        """See `chunkstore.collection.Collection.opener`."""
        return self._twin.opener()

    def append(
        self,
        key: str,
        chunks: ChunkSource,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Version:
        """See `chunkstore.collection.Collection.append`; an iterable runs in the calling thread."""
        append = partial(
            self._twin.append,
            expected_version=expected_version,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        return self._loop.feed(chunks, partial(append, key))

    def delete(
        self, key: str, *, expected_version: int | None = None, metadata: Metadata | None = None
    ) -> Version:
        """See `chunkstore.collection.Collection.delete`."""
        return self._loop.call(self._twin.delete, key, expected_version=expected_version, metadata=metadata)

    def rollback(self, key: str, to: int) -> Version:
        """See `chunkstore.collection.Collection.rollback`."""
        return self._loop.call(self._twin.rollback, key, to)

    def pin(self, key: str, version: int) -> Version:
        """See `chunkstore.collection.Collection.pin`."""
        return self._loop.call(self._twin.pin, key, version)

    def unpin(self, key: str, version: int) -> Version:
        """See `chunkstore.collection.Collection.unpin`."""
        return self._loop.call(self._twin.unpin, key, version)

    def erase(self, key: str) -> None:
        """See `chunkstore.collection.Collection.erase`."""
        self._loop.call(self._twin.erase, key)

    def history(self, key: str) -> list[Version]:
        """See `chunkstore.collection.Collection.history`."""
        return self._loop.call(self._twin.history, key)

    def chunks(self, key: str, version: int | None = None) -> Iterator[StoredChunk]:
        """See `chunkstore.collection.Collection.chunks`."""
        return self._loop.iterate(self._twin.chunks(key, version))

    def keys(self) -> Iterator[str]:
        """See `chunkstore.collection.Collection.keys`."""
        return self._loop.iterate(self._twin.keys())

    def search(self, query: VectorOrText, k: int = 10, *, model: str | None = None) -> Hits:
        """See `chunkstore.collection.Collection.search`."""
        return self._loop.call(self._twin.search, query, k, model=model)

    def wait_until_active(self, version: Version, timeout: float = 60.0, *, model: str | None = None) -> None:
        """See `chunkstore.collection.Collection.wait_until_active`."""
        self._loop.call(self._twin.wait_until_active, version, timeout, model=model)

    def add_model(self, model: Model | str) -> None:
        """See `chunkstore.collection.Collection.add_model`."""
        self._loop.call(self._twin.add_model, model)

    def serve(self, model: str) -> None:
        """See `chunkstore.collection.Collection.serve`."""
        self._loop.call(self._twin.serve, model)

    def dead_letters(self) -> list[DeadLetter]:
        """See `chunkstore.collection.Collection.dead_letters`."""
        return self._loop.call(self._twin.dead_letters)

    def retry(self, chunk_id: ChunkId, model: str | None = None) -> None:
        """See `chunkstore.collection.Collection.retry`."""
        self._loop.call(self._twin.retry, chunk_id, model)

    def discard(self, chunk_id: ChunkId, model: str | None = None) -> None:
        """See `chunkstore.collection.Collection.discard`."""
        self._loop.call(self._twin.discard, chunk_id, model)


class _Loop:
    """An event loop in a thread of its own, into which any other thread may call."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal(name="chunkstore"))
        self.closed = False

    def close(self) -> None:
        """Ends the loop and its thread after what still runs."""
        self.closed = True
        self._stack.close()

    def call(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns, run on the loop while this thread waits.

        Raises DatabaseError where the store was closed.
        """
        return _result(self._start(partial(function, *args, **kwargs)))

    def _start(self, function: Callable[[], Awaitable[R]]) -> "Future[R]":
        try:
            return self._portal.start_task_soon(function)
        except RuntimeError:
            self._check_open()
            raise

    def _check_open(self) -> None:
        if self.closed:
            raise DatabaseError("the database was closed")

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items, read from the loop a batch at a time."""
        while batch := self.call(_next_items, items):
            yield from batch

    def feed(
        self,
        items: Iterable[T] | AsyncIterable[T],
        consume: Callable[[Iterable[T] | AsyncIterable[T]], Awaitable[R]],
    ) -> R:
        """What `consume` returns of the items.

        The caller's iterable runs here and not on the loop, where it would stop everybody else's calls and
        could make none of its own.
        """
        if isinstance(items, Sequence | AsyncIterable) or not isinstance(items, Iterable):
            return self.call(consume, items)
        self._check_open()
        send, receive = anyio.create_memory_object_stream[list[T] | Exception](0)
        consuming = self._start(partial(_consume, consume, receive))
        try:
            for batch in _batches(items):
                self.call(send.send, batch)
        except anyio.BrokenResourceError:
            pass  # `consume` has failed or needs no more: its result says which
        except BaseException:
            consuming.cancel()  # before the end of the items can be seen and taken for a commit
            raise
        finally:
            try:
                self.call(send.aclose)
            except DatabaseError:  # closed meanwhile: no loop is left that it could wake
                send.close()
        return _result(consuming)


def _result(running: "Future[R]") -> R:
    try:
        return running.result()
    except BaseException:
        running.cancel()  # Ctrl-C ends the waiting: the work must not go on unseen
        raise


async def _next_items(items: AsyncIterator[T]) -> list[T]:
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == _ITEMS:
            break
    return batch


def _batches(items: Iterable[T]) -> Iterator[list[T] | Exception]:
    iterator = iter(items)
    try:
        while batch := list(islice(iterator, _ITEMS)):
            yield batch
    except Exception as error:  # noqa: BLE001 - raised again where the items are consumed
        yield error


async def _consume(
    consume: Callable[[Iterable[T] | AsyncIterable[T]], Awaitable[R]],
    receive: MemoryObjectReceiveStream[list[T] | Exception],
) -> R:
    with receive:
        return await consume(_unpacked(receive))


async def _unpacked(receive: MemoryObjectReceiveStream[list[T] | Exception]) -> AsyncGenerator[T, None]:
    async for batch in receive:
        if isinstance(batch, Exception):
            raise batch
        for item in batch:
            yield item
