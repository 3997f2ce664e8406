"""Tells waiting processes that the log has grown: a NOTIFY after the commit, a few times a second at most.

A hint and no more: who misses it finds the events by polling. It is sent in a transaction of its own,
because a NOTIFY inside an append would take an instance-wide lock at its commit.
"""

import asyncio
from hashlib import blake2b

from chunkstore.database import Database
from chunkstore.errors import ChunkstoreError

QUIET_SECONDS = 0.1


def channel(schema: str) -> str:
    """The NOTIFY channel of a store; a hash, because a channel's name is shorter than a schema's may be."""
    return f"chunkstore_{blake2b(schema.encode(), digest_size=8).hexdigest()}"


class Hints:
    """Collects hints and sends one for all that come within a tenth of a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sending: asyncio.Task[None] | None = None

    def give(self) -> None:
        """Asks for a hint to be sent soon; call it after a commit."""
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Waits until what was asked for is sent."""
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        await asyncio.sleep(QUIET_SECONDS)
        try:
            async with self._database.transaction() as conn:
                await conn.execute("SELECT pg_notify(%(channel)s, '')", {"channel": channel(self._database.schema)})
        except ChunkstoreError:
            return
