"""Where histories are played: one schema until a history leaves it broken, a fresh collection for each.

Hypothesis is blocking and the store is not: every call runs on an event loop in a thread of its own.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from itertools import count
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chunkstore import migrate
from chunkstore.cli.partitions import set_partitions
from chunkstore.dsn import Dsn
from chunkstore.store import ChunkStore
from tests.fix_server import SAME_SALT, drop_schema
from tests.store.fix_store import MODEL
from tests.store.rules.fix_interleave import World

T = TypeVar("T")

Damage = Callable[[World], Awaitable[None]]
"""Takes a protection out of a schema."""

PARTITIONS = 2
_MOST_HISTORIES = 40
"""Of one schema: what `verify` costs grows with the store."""


class Arena:
    """Gives each history a collection to play on."""

    def __init__(
        self, dsn: str, portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch, damage: Damage | None
    ) -> None:
        self._dsn = dsn
        self._portal = portal
        self._monkeypatch = monkeypatch
        self._damage = damage
        self._schema = ExitStack()
        self._world: World | None = None
        self._played = 0
        self._numbers = count()
        self.every_rule = True
        self.verifies = damage is None  # where a hole is looked for, the comparison finds it

    def begin(self, keep_last: int) -> World:
        """A world with an empty collection; nothing is in flight in its store."""
        if self._played >= _MOST_HISTORIES:
            self.leave()
        if self._world is None:
            self._world = self._schema.enter_context(self._opened())
        self._played += 1
        name = f"history-{next(self._numbers)}"
        store = self._world.store

        async def made() -> None:
            assert self._world is not None
            self._world.collection = await store.collection(name, model=MODEL, keep_last=keep_last)

        self.call(made)
        return self._world

    def leave(self) -> None:
        """Gives the schema up; the next history gets a new one."""
        self._world, self._played = None, 0
        self._schema.close()

    def call(self, act: Callable[..., Awaitable[T]], *args: Any) -> T:
        return self._portal.call(act, *args)

    @contextmanager
    def _opened(self) -> Iterator[World]:
        schema = f"test_{uuid4().hex[:16]}"
        try:
            migrate.apply(Dsn(self._dsn), schema)
            with self._portal.wrap_async_context_manager(self._world_of(schema)) as world:
                yield world
        finally:
            drop_schema(self._dsn, schema)

    @asynccontextmanager
    async def _world_of(self, schema: str) -> AsyncIterator[World]:
        async with await ChunkStore.open(self._dsn, schema=schema) as store, AsyncExitStack() as stack:
            async with store.database.transaction() as conn:
                await conn.execute(SAME_SALT)
            await set_partitions(store.database, PARTITIONS)
            world = World(store, await store.collection("first", model=MODEL), stack, self._monkeypatch)
            if self._damage is not None:
                await self._damage(world)
            yield world


@contextmanager
def arena(dsn: str, monkeypatch: pytest.MonkeyPatch, damage: Damage | None = None) -> Iterator[Arena]:
    """An arena on a server; `damage` takes a protection out of each of its schemas."""
    with start_blocking_portal("asyncio") as portal:
        played = Arena(dsn, portal, monkeypatch, damage)
        try:
            yield played
        finally:
            played.leave()
