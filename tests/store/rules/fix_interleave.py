"""Drives connections by hand to an interleaving, and takes a rule's line out of the code.

A `Session` is one connection whose transaction the test opens and ends. A step that should wait is started
with `World.waits`, which returns only when Postgres says that it waits for the other session: no sleeps.
`World.without`, `World.without_sql` and `World.without_python` remove a rule's line from a function of the
schema, a named statement or a Python function, and fail where the line is not there exactly once.
"""

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any, TypeVar

import anyio
import numpy as np
import pytest
from psycopg import AsyncConnection

from chunkstore import embeddings, leases, rows
from chunkstore.collection import Collection
from chunkstore.embeddings import Owed
from chunkstore.leases import Checkpoint, Lease
from chunkstore.model import Chunk, ChunkId, FileId, ModelId
from chunkstore.statements import Statements
from chunkstore.store import ChunkStore
from tests.store.rules import damage

T = TypeVar("T")

DEADLINE = 10
DIMENSIONS = 8


class Session:
    """One connection, one transaction at a time, begun and ended by the test."""

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        self.conn = conn
        self.pid = conn.info.backend_pid

    async def begin(self, isolation: str = "READ COMMITTED") -> "Session":
        await self.conn.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        return self

    async def commit(self) -> None:
        await self.conn.execute("COMMIT")

    async def rollback(self) -> None:
        await self.conn.execute("ROLLBACK")

    async def value(self, statement: str, **params: Any) -> Any:
        """The first column of the first row."""
        return await rows.fetch_value(self.conn, statement.encode(), params or None)

    async def values(self, statement: str, **params: Any) -> list[Any]:
        """The first column of every row."""
        return await rows.fetch_values(self.conn, statement.encode(), params or None)


class World:
    """A store with one collection, sessions on it, and an observer that sees what is committed."""

    def __init__(
        self,
        store: ChunkStore,
        collection: Collection,
        stack: AsyncExitStack,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.store = store
        self.collection = collection
        self.monkeypatch = monkeypatch
        self._stack = stack
        self._observer: Session | None = None

    @property
    def model(self) -> ModelId:
        return self.collection._serving.model

    @property
    def number(self) -> int:
        return self.collection.row.collection

    @property
    def search_table(self) -> str:
        return self.collection._serving.search_table

    @property
    def active_table(self) -> str:
        return self.collection._serving.active_table

    # --- sessions -------------------------------------------------------------------------------

    async def session(self) -> Session:
        """A connection of its own; nothing is begun."""
        session = Session(await self._stack.enter_async_context(self.store.database.connection()))
        await session.conn.execute("SET deadlock_timeout = '20ms'")
        return session

    async def begun(self) -> Session:
        """A connection of its own inside a transaction."""
        return await (await self.session()).begin()

    async def observer(self) -> Session:
        if self._observer is None:
            self._observer = await self.session()
        return self._observer

    async def value(self, statement: str, **params: Any) -> Any:
        """The first column of the first row of what is committed."""
        return await (await self.observer()).value(statement, **params)

    async def values(self, statement: str, **params: Any) -> list[Any]:
        """The first column of every row of what is committed."""
        return await (await self.observer()).values(statement, **params)

    async def waits(self, step: Coroutine[Any, Any, T], on: Session, *, count: int = 1) -> asyncio.Task[T]:
        """Starts the step; returns its task when `count` backends wait for what `on` holds."""
        task = asyncio.create_task(step)
        await self.until_waiting(on, task, count=count)
        return task

    async def until_waiting(self, on: Session, task: asyncio.Task[Any], *, count: int = 1) -> None:
        """Returns when `count` backends wait for `on`; fails where the task ends without waiting."""
        if not await self._seen_waiting(on, task, count):
            outcome = task.exception() or task.result()
            pytest.fail(f"the step was to wait, and ended at once: {outcome!r}")

    async def races(self, step: Coroutine[Any, Any, T], *, against: Session | int) -> asyncio.Task[T]:
        """Starts the step; returns its task when it waits for `against` or has ended without waiting."""
        task = asyncio.create_task(step)
        await self._seen_waiting(against, task, 1)
        return task

    async def waiter(self, on: Session) -> int:
        """The process id of the one backend that waits for `on`."""
        (pid,) = await self.values(
            "SELECT pid FROM pg_stat_activity WHERE %(pid)s = ANY (pg_blocking_pids(pid))", pid=on.pid
        )
        return pid

    async def _seen_waiting(self, on: Session | int, task: asyncio.Task[Any], count: int) -> bool:
        observer = await self.observer()
        with anyio.fail_after(DEADLINE):
            while not task.done():
                blocked = await observer.value(
                    "SELECT count(*) FROM pg_stat_activity WHERE %(pid)s = ANY (pg_blocking_pids(pid))",
                    pid=on.pid if isinstance(on, Session) else on,
                )
                if blocked >= count:
                    return True
                await asyncio.wait([task], timeout=0.002)
        return False

    # --- a rule's line removed ------------------------------------------------------------------

    async def without(self, function: str, line: str, instead: str = "") -> None:
        """Makes a function of the schema anew with the line replaced."""
        observer = await self.observer()
        source = await observer.value(
            "SELECT pg_get_functiondef(p.oid) FROM pg_proc p"
            " WHERE p.proname = %(function)s AND p.pronamespace = current_schema()::regnamespace",
            function=function,
        )
        assert source is not None, f"no function {function} in the schema"
        await observer.conn.execute(_replaced(source, line, instead, function).encode())

    def without_sql(self, statements: Statements, name: str, line: str, instead: str = "") -> None:
        """Makes a named statement anew with the line replaced."""
        text = _replaced(statements.text(name), line, instead, name)
        self.monkeypatch.setitem(statements._texts, name, text)

    def without_python(
        self, owner: ModuleType | type, function: str, line: str, instead: str = "pass"
    ) -> None:
        """Makes a function of the module or class anew with the line replaced."""
        original = getattr(owner, function)
        source = _replaced(textwrap.dedent(inspect.getsource(original)), line, instead, function)
        scope: dict[str, Any] = {}
        exec(compile(source, original.__code__.co_filename, "exec"), original.__globals__, scope)
        self.monkeypatch.setattr(owner, function, scope[function])

    # --- what the story is told with ------------------------------------------------------------

    async def file_of(self, key: str) -> FileId:
        file = await self.value(
            "SELECT file FROM files WHERE collection = %(collection)s AND key = %(key)s",
            collection=self.number,
            key=key,
        )
        assert file is not None, f"no file {key!r}"
        return FileId(file)

    async def chunk(self, content: str, key: str | None = None) -> ChunkId:
        """The one chunk of that content (of the file of `key`, if given)."""
        found = await self.values(
            "SELECT c.chunk_id FROM chunks c JOIN files f USING (file)"
            " WHERE c.content = %(content)s AND (%(key)s::text IS NULL OR f.key = %(key)s)",
            content=content,
            key=key,
        )
        assert len(found) == 1, f"{len(found)} chunks hold {content!r}"
        return ChunkId(found[0])

    async def append(self, key: str, *contents: str, **options: Any) -> int:
        """Appends chunks of those contents; returns the version's number."""
        return (await self.collection.append(key, [Chunk(content) for content in contents], **options)).number

    async def claim(self, session: Session, *, batch: int = 256, seconds: float = 60.0) -> Lease:
        """Claims the next range of the embedding group inside the session's transaction."""
        lease = await leases.claim(
            session.conn, leases.embedding_group(self.model), batch=batch, seconds=seconds, owner="test"
        )
        assert lease is not None, "there is nothing to claim"
        return lease

    async def claimed(self, *, batch: int = 256, seconds: float = 60.0) -> Lease:
        """Claims the next range and commits."""
        async with self.store.database.transaction() as conn:
            lease = await leases.claim(
                conn, leases.embedding_group(self.model), batch=batch, seconds=seconds, owner="test"
            )
        assert lease is not None, "there is nothing to claim"
        return lease

    async def expire(self, lease: Lease) -> None:
        """Lets the lease's time be over."""
        await self.value(
            "UPDATE leases SET expires = '-infinity'"
            " WHERE consumer_group = %(group)s AND partition = %(partition)s AND lo = %(lo)s RETURNING 1",
            group=lease.group,
            partition=lease.partition,
            lo=lease.lo,
        )

    async def owed(self, lease: Lease) -> list[Owed]:
        async with self.store.database.transaction() as conn:
            return await embeddings.owed(conn, lease, self.model)

    async def complete(
        self, session: Session, lease: Lease, chunks: Sequence[ChunkId], *, finished: bool = True
    ) -> list[ChunkId]:
        """Stores a vector for each chunk inside the session's transaction."""
        return await embeddings.complete(
            session.conn, lease, self.model, chunks, vectors_for(chunks), finished=finished
        )

    async def drain(self) -> None:
        """Embeds everything that is owed, range by range."""
        while True:
            async with self.store.database.transaction() as conn:
                lease = await leases.claim(
                    conn, leases.embedding_group(self.model), batch=256, seconds=60, owner="test"
                )
                if lease is None:
                    return
                owed = [chunk.chunk_id for chunk in await embeddings.owed(conn, lease, self.model)]
                await embeddings.complete(conn, lease, self.model, owed, vectors_for(owed))

    async def checkpoint(self, partition: int) -> Checkpoint:
        """Claims the projector's checkpoint of a partition and commits."""
        async with self.store.database.transaction() as conn:
            held = await leases.claim_checkpoint(
                conn, leases.projector_group(self.model), partition, seconds=60, owner="test"
            )
        assert held is not None, "somebody holds the checkpoint"
        return held

    async def activate(self, *keys: str, session: Session | None = None) -> dict[str, str]:
        """Activates what is complete of files of one partition; the outcome by key."""
        numbers = {key: await self.file_of(key) for key in keys}
        partition = await self.partition_of(keys[0])
        held = await self.checkpoint(partition)
        statement = "SELECT outcome FROM activate(%(model)s, %(partition)s, %(epoch)s, %(files)s::bigint[])"
        params = {"model": self.model, "partition": partition, "epoch": held.epoch}
        if session is not None:
            found = await session.values(statement, **params, files=list(numbers.values()))
        else:
            async with self.store.database.transaction() as conn:
                found = await rows.fetch_values(
                    conn, statement.encode(), {**params, "files": list(numbers.values())}
                )
        if session is None:
            async with self.store.database.transaction() as conn:
                await leases.release_checkpoint(conn, held, position=held.position)
        return dict(zip(sorted(numbers, key=numbers.__getitem__), found, strict=True))

    async def keys_in_one_partition(self, count: int) -> list[str]:
        """Keys whose files will share a partition."""
        return await self.values(
            "SELECT key FROM (SELECT 'file-' || i AS key FROM generate_series(1, 999) AS i) AS keys"
            " WHERE (hashtextextended(key, %(collection)s) & 2147483647) %% 16 = 5 LIMIT %(count)s",
            collection=self.number,
            count=count,
        )

    async def partition_of(self, key: str) -> int:
        return await self.value(
            "SELECT partition FROM files WHERE file = %(file)s", file=await self.file_of(key)
        )

    async def active_version(self, key: str) -> int | None:
        return await self.value(
            "SELECT version FROM active_versions WHERE file = %(file)s AND model = %(model)s",
            file=await self.file_of(key),
            model=self.model,
        )

    async def searchable(self) -> list[str]:
        """The contents that a search can find, sorted."""
        return sorted(hit.content for hit in await self.collection.search(np.ones(DIMENSIONS), k=100))

    async def logged(self, kind: str) -> int:
        return await self.value("SELECT count(*) FROM events WHERE type = %(kind)s", kind=kind)

    async def damage(self) -> list[str]:
        """The invariants that the committed data breaks, each named; empty where all hold."""
        checks = [
            f"SELECT $${name}$$ WHERE EXISTS ({statement})" for name, statement in damage.STATEMENTS.items()
        ]
        tables = {"search": self.search_table, "active": self.active_table}
        return await self.values(" UNION ALL ".join(checks).format(**tables))


def vectors_for(chunks: Iterable[ChunkId]) -> np.ndarray:
    """A vector for each chunk, told apart by the chunk's number: `(n, 8) float32`."""
    rows_ = [[1.0, float(chunk % 7 + 1)] + [0.5] * (DIMENSIONS - 2) for chunk in chunks]
    return np.array(rows_, dtype=np.float32).reshape(len(rows_), DIMENSIONS)


def _replaced(source: str, line: str, instead: str, where: str) -> str:
    found = source.count(line)
    assert found == 1, f"{where} holds the rule's line {found} times, not once: {line!r}"
    return source.replace(line, instead)


@pytest.fixture
async def world(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """A store with one collection, whose connections the test drives by hand."""
    async with AsyncExitStack() as stack:
        yield World(store, collection, stack, monkeypatch)
