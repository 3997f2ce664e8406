"""Tells waiting processes that the log has grown: a NOTIFY after the commit, ten times a second at most.

A hint and no more: who misses one finds the events by polling, so it works through pgbouncer too. It is
sent in a transaction of its own, because a NOTIFY inside an append takes an instance-wide lock at commit.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from time import monotonic

import anyio
import psycopg

from chunkstore.database import Database
from chunkstore.errors import ChunkstoreError

QUIET_SECONDS = 0.1
_AT_ONCE = 2
FIRST_POLL = 0.02
LONGEST_POLL = 2.0
_QUIET_AT_MOST = 60.0


def channel(schema: str) -> str:
    """The NOTIFY channel of a store; a hash, because a channel's name is shorter than a schema's may be."""
    return f"chunkstore_{blake2b(schema.encode(), digest_size=8).hexdigest()}"


class Hints:
    """Sends two hints at once, and then one for all that come within a tenth of a second.

    Two, because a process that appends and embeds has an append to tell of, and its vectors soon after.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sending: asyncio.Task[None] | None = None
        self._asked = False
        self._sent = deque([-math.inf] * _AT_ONCE, maxlen=_AT_ONCE)

    def give(self) -> None:
        """Asks for a hint to be sent; call it after a commit."""
        self._asked = True
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Waits until what was asked for is sent."""
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        while self._asked:
            await asyncio.sleep(max(0.0, self._sent[0] + _AT_ONCE * QUIET_SECONDS - monotonic()))
            self._sent.append(monotonic())
            self._asked = False  # before it is sent: what commits meanwhile needs one of its own
            try:
                async with self._database.transaction() as conn:
                    await conn.execute(f"NOTIFY {channel(self._database.schema)}".encode())
            except ChunkstoreError:
                return


class Waiting:
    """Waits for more work: until a hint, a stop, or a poll, whose pause doubles while nothing comes."""

    def __init__(self) -> None:
        self._hinted = anyio.Event()
        self._pause = FIRST_POLL

    def hint(self) -> None:
        """Ends the wait that is going on, or the next one."""
        self._hinted.set()

    def worked(self) -> None:
        """Says that there was work, so that the next look comes soon."""
        self._pause = FIRST_POLL

    async def wait(self) -> None:
        """Returns at a hint, or after the current pause."""
        with anyio.move_on_after(self._pause):
            await self._hinted.wait()
        self._hinted = anyio.Event()
        self._pause = min(self._pause * 2, LONGEST_POLL)


@asynccontextmanager
async def listening(database: Database, stop: anyio.Event) -> AsyncIterator[Waiting]:
    """A Waiting that the store's hints and `stop` wake, while the block runs."""
    waiting = Waiting()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_wake_at, stop, waiting)
        tasks.start_soon(_listen, database, waiting)
        yield waiting
        tasks.cancel_scope.cancel()


async def _wake_at(stop: anyio.Event, waiting: Waiting) -> None:
    await stop.wait()
    waiting.hint()


async def _listen(database: Database, waiting: Waiting) -> None:
    while not database.is_pooled:  # no pooler passes LISTEN on: the polls find what there is
        try:
            async with database.connection() as conn:
                await conn.execute(f"LISTEN {channel(database.schema)}".encode())
                while True:
                    async for _ in conn.notifies(timeout=_QUIET_AT_MOST):
                        waiting.hint()
                    await conn.execute(b"SELECT")  # fails where the connection is gone without a word
        except (ChunkstoreError, psycopg.Error):
            await anyio.sleep(LONGEST_POLL)  # the polls go on meanwhile
