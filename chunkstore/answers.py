"""A connection that does not wait for ever for an answer that is lost.

A network that loses packets is noticed by the kernel (`chunkstore.dsn`). A stuck pooler or proxy is not: it
acknowledges all that it gets and passes nothing on. So who waits for long asks over another connection.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

import anyio
import psycopg
from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from chunkstore.dsn import Dsn

T = TypeVar("T")

FIRST_LOOK = 15.0
"""Seconds after which somebody who waits for an answer asks whether the server is still at work."""
SECOND_LOOK = 5.0
"""Seconds after a first look that found nobody at work; the connection is given up after the second."""
_LOOK_SECONDS = 5

_STATE = b"SELECT state FROM pg_stat_activity WHERE pid = %(process)s"
_AT_REST = ("idle", "idle in transaction", "idle in transaction (aborted)")


class Answering(AsyncConnection[Any]):
    """A connection that shuts itself down where no answer will come: its user gets an OperationalError.

    `is_at_work` says whether the server is still at work on what this connection asked; None waits for ever.
    """

    is_at_work: Callable[["Answering"], Awaitable[bool]] | None = None
    made_at = 0.0
    _waits_since: float | None = None
    _is_timed = False
    _looking: asyncio.Task[None] | None = None

    async def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """The generator's result, as of psycopg, watched meanwhile."""
        self._waits_since = monotonic()
        if not self._is_timed:
            self._look_in(FIRST_LOOK)
        try:
            return await super().wait(gen, *args, **kwargs)
        finally:
            self._waits_since = None
            if self._looking is not None:
                self._looking.cancel()
                self._looking = None

    # A timer outlives many waits: to set and cancel one for each costs more than the rest of the watch.

    def _look_in(self, seconds: float) -> None:
        self._is_timed = True
        asyncio.get_running_loop().call_later(seconds, self._look_if_due)

    def _look_if_due(self) -> None:
        self._is_timed = False
        # Who waits for notifications has asked nothing.
        if self._waits_since is None or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
            return
        left = self._waits_since + FIRST_LOOK - monotonic()
        if left > 0:
            self._look_in(left)
        elif self.is_at_work is not None:
            self._looking = asyncio.create_task(self._look(self.is_at_work))

    async def _look(self, is_at_work: Callable[["Answering"], Awaitable[bool]]) -> None:
        if not await is_at_work(self):
            await asyncio.sleep(SECOND_LOOK)  # the answer may be on its way
            if not await is_at_work(self):
                self._shut_down()
        self._waits_since = monotonic()
        self._look_in(FIRST_LOOK)

    def _shut_down(self) -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as ours:
            ours.shutdown(socket.SHUT_RDWR)


async def is_at_work(dsn: Dsn, connection: Answering, *, pooled: bool) -> bool:
    """Whether the server is at work on the connection's statement; behind a pooler, whether it answers.

    A server that answers and refuses another connection is given the benefit of the doubt.
    """
    try:
        with anyio.fail_after(_LOOK_SECONDS):
            async with await AsyncConnection.connect(_same_server(dsn, connection), autocommit=True) as other:
                cursor = await other.execute(_STATE, {"process": connection.info.backend_pid})
                row = await cursor.fetchone()
    except (psycopg.Error, TimeoutError) as error:
        return "FATAL" in str(error)
    return pooled or (row is not None and row[0] not in _AT_REST)


def _same_server(dsn: Dsn, connection: Answering) -> str:
    # Of several that the DSN may name, by a list or by a name of many addresses.
    info = connection.info
    address = {"host": info.host, "port": info.port} | ({"hostaddr": info.hostaddr} if info.hostaddr else {})
    return make_conninfo(dsn.conninfo(connect_timeout=_LOOK_SECONDS), **address)
