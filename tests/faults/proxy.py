"""A TCP proxy before a test's server, whose connections can be cut, frozen, and black-holed.

Frozen: no byte passes in a direction, and the kernel goes on acknowledging what arrives, as with a stuck
pooler. Vanished: every packet that arrives is dropped unread, as in a network that has lost the way.
"""

import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum

import anyio
from anyio.abc import Listener, SocketAttribute, SocketStream
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
        self._listener: socket.socket | None = None
        self._gates = {direction: _Gate() for direction in To}
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
        assert self._listener is not None
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
            link.scope.cancel()
        return len(links)

    def refuse(self) -> None:
        """Ends every connection and every new one, until `heal`."""
        self._refuses = True
        self.cut()

    def freeze(self, *directions: To) -> None:
        """Lets no byte through in the directions, until `heal` delivers what was held up."""
        for direction in directions:
            self._gates[direction].close()

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
                _take_packets(sock)

    # --- forwarding -----------------------------------------------------------------------------

    async def serve(self, listener: Listener[SocketStream]) -> None:
        """Takes connections until it is cancelled."""
        self._listener = listener.extra(SocketAttribute.raw_socket)
        await listener.serve(self._forward)

    async def _forward(self, client: SocketStream) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            server = await anyio.connect_unix(self._target)
        except OSError:
            await client.aclose()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            async with client, server, anyio.create_task_group() as pumps:
                link.scope = pumps.cancel_scope
                pumps.start_soon(self._pump, client, server, link, self._asks, self._gates[To.SERVER])
                pumps.start_soon(self._pump, server, client, link, self._answers, self._gates[To.CLIENT])
        finally:
            self._links.discard(link)

    async def _pump(
        self,
        source: SocketStream,
        sink: SocketStream,
        link: "_Link",
        look: Callable[["_Link", bytes], None],
        gate: "_Gate",
    ) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await source.receive(_BLOCK)
                look(link, data)
                await gate.passed()
                await sink.send(data)
        link.scope.cancel()  # who hangs up on one side is hung up on at the other

    def _asks(self, link: "_Link", data: bytes) -> None:
        if self._lost and self._lost in data:
            self._asked += 1
            link.loses_answer = self._asked % self._every == 0

    def _answers(self, link: "_Link", _: bytes) -> None:
        if link.loses_answer:
            self.answers_lost += 1
            link.scope.cancel()

    def _sockets(self) -> list[socket.socket]:
        assert self._listener is not None
        return [self._listener, *(link.client.extra(SocketAttribute.raw_socket) for link in self._links)]


@asynccontextmanager
async def proxying(target: str) -> AsyncIterator[Proxy]:
    """A proxy before the Unix socket, on a free port of this machine, while the block runs."""
    proxy = Proxy(target)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with anyio.create_task_group() as tasks:
        for each in listener.listeners:
            tasks.start_soon(proxy.serve, each)
        await anyio.lowlevel.checkpoint()
        yield proxy
        proxy.heal()
        tasks.cancel_scope.cancel()


class _Link:
    """One client's connection and the server's that belongs to it."""

    def __init__(self, client: SocketStream, server: SocketStream) -> None:
        self.client = client
        self.server = server
        self.scope = anyio.CancelScope()
        self.loses_answer = False


class _Gate:
    """What bytes pass through while it is open."""

    def __init__(self) -> None:
        self._opened = anyio.Event()
        self._opened.set()

    def close(self) -> None:
        self._opened = anyio.Event()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        while not self._opened.is_set():
            await self._opened.wait()


def _drop_packets(sock: socket.socket) -> None:
    instruction = ctypes.create_string_buffer(_KEEP_NOTHING, len(_KEEP_NOTHING))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _take_packets(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
