"""A TCP proxy before a test's server, whose connections can be cut, frozen, and black-holed.

Frozen: no byte passes in a direction, and the kernel goes on acknowledging what arrives, as with a stuck
pooler. Vanished: every packet that arrives is dropped unread, as in a network that has lost the way.
"""

import asyncio
import ctypes
import socket
import struct
from asyncio import StreamReader, StreamWriter, TaskGroup
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum

from psycopg.conninfo import make_conninfo

_BLOCK = 65536
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_KEEP_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # the packet filter's instruction "return 0 bytes"


class To(Enum):
    """A direction."""

    SERVER = "server"
    CLIENT = "client"


class Proxy:
    """Forwards to a Unix socket. Made by `proxying`; everything flows until a fault is asked for."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._gates = {direction: _Gate() for direction in To}
        self._forgotten: list[_Gate] = []
        self._links: set[_Link] = set()
        self._refuses = False
        self._vanished = False
        self._lost = b""
        self._every = 1
        self._asked = 0
        self.answers_lost = 0

    @property
    def dsn(self) -> str:
        """The address of the server by way of the proxy."""
        port = self._listener.getsockname()[1]
        return make_conninfo(host="127.0.0.1", port=port, user="postgres", dbname="postgres")

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    # --- faults ---------------------------------------------------------------------------------

    def cut(self) -> int:
        """Ends every connection; new ones are taken. Returns how many there were."""
        links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    def refuse(self) -> None:
        """Ends every connection and every new one, until `heal`."""
        self._refuses = True
        self.cut()

    def freeze(self, *directions: To) -> None:
        """Lets no byte through in the directions, until `heal` delivers what was held up."""
        for direction in directions:
            self._gates[direction].close()

    def forget(self) -> None:
        """Lets new connections flow, and leaves those that there are frozen for ever."""
        self._forgotten += self._gates.values()
        self._gates = {direction: _Gate() for direction in To}

    def vanish(self) -> None:
        """Drops every packet that clients send, acknowledgements and new connections too, until `heal`."""
        self._vanished = True
        for sock in self._sockets():
            _drop_packets(sock)

    def lose_answers(self, to: bytes = b"COMMIT", *, every: int = 1) -> None:
        """Ends a connection when the server has answered what holds `to`, so that nobody hears it.

        Of all such statements every so many; until `heal`.
        """
        self._lost, self._every = to, every

    def heal(self) -> None:
        """Everything flows again, on the connections that are left and on new ones."""
        self._lost, self._refuses = b"", False
        for gate in self._gates.values():
            gate.open()
        if self._vanished:
            self._vanished = False
            for sock in self._sockets():
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    # --- forwarding -----------------------------------------------------------------------------

    async def serve(self, started: asyncio.Event, ended: asyncio.Event) -> None:
        """Takes connections on a free port of this machine until the end is set."""
        async with await asyncio.start_server(self._forward, "127.0.0.1", 0) as server:
            self._listener = server.sockets[0]
            started.set()
            await ended.wait()
            self.heal()
            self.cut()
            for gate in self._forgotten:
                gate.open()

    async def _forward(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            from_server, to_server = await asyncio.open_unix_connection(self._target)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link(to_client, to_server)
        self._links.add(link)
        try:
            async with TaskGroup() as pumps:
                pumps.create_task(self._pump(from_client, to_server, link, self._asks, To.SERVER))
                pumps.create_task(self._pump(from_server, to_client, link, self._answers, To.CLIENT))
        finally:
            link.cut()
            self._links.discard(link)

    async def _pump(
        self,
        source: StreamReader,
        sink: StreamWriter,
        link: "_Link",
        look: Callable[["_Link", bytes], None],
        direction: To,
    ) -> None:
        gate = self._gates[direction]
        with suppress(OSError):
            while data := await source.read(_BLOCK):
                look(link, data)
                await gate.passed()
                sink.write(data)
                await sink.drain()
        await gate.passed()
        link.cut()  # who hangs up on one side is hung up on at the other

    def _asks(self, link: "_Link", data: bytes) -> None:
        if self._lost and self._lost in data:
            self._asked += 1
            link.loses_answer = self._asked % self._every == 0

    def _answers(self, link: "_Link", _: bytes) -> None:
        if link.loses_answer:
            self.answers_lost += 1
            link.cut()

    def _sockets(self) -> list[socket.socket]:
        """Those that are open: a link that was cut is known until both its sides have heard of it."""
        sockets = [self._listener, *(link.client.get_extra_info("socket") for link in self._links)]
        return [sock for sock in sockets if sock.fileno() >= 0]


@asynccontextmanager
async def proxying(target: str) -> AsyncIterator[Proxy]:
    """A proxy before the Unix socket while the block runs."""
    proxy, started, ended = Proxy(target), asyncio.Event(), asyncio.Event()
    async with TaskGroup() as tasks:
        tasks.create_task(proxy.serve(started, ended))
        await started.wait()
        try:
            yield proxy
        finally:
            ended.set()


class _Link:
    """One client's connection and the server's that belongs to it."""

    def __init__(self, client: StreamWriter, server: StreamWriter) -> None:
        self.client = client
        self.server = server
        self.loses_answer = False

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class _Gate:
    """What bytes pass through while it is open."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()

    def close(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        await self._opened.wait()


def _drop_packets(sock: socket.socket) -> None:
    instruction = ctypes.create_string_buffer(_KEEP_NOTHING, len(_KEEP_NOTHING))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
