"""What Ctrl-C and SIGTERM do to a command: they end it cleanly, at once or after the work in hand."""

import signal
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import anyio

from chunkstore.cli.codes import Exit
from chunkstore.cli.output import say

Command = Callable[[], Awaitable[Exit | None]]


class Interrupts:
    """Runs one command, and what the signals make of it.

    The first signal cancels the command, or asks it to stop where it has said that it can; the next
    cancels it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._stop: anyio.Event | None = None
        self._cancelled = False

    def run(self, command: Command) -> Exit:
        """The command's exit code. Raises what it raises."""
        _current.set(self)
        return anyio.run(self._run, command)

    def code(self) -> Exit | None:
        """The exit code that the signals make, or None where they leave the command its own."""
        if self._received == signal.SIGINT:
            return Exit.INTERRUPTED
        return Exit.TERMINATED if self._cancelled else None

    def stop(self) -> anyio.Event:
        """The event that the first signal sets, for a command that stops by itself."""
        self._stop = self._stop or anyio.Event()
        return self._stop

    async def _run(self, command: Command) -> Exit:
        code: Exit | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, tasks.cancel_scope)
            code = await command()
            tasks.cancel_scope.cancel()
        return code or Exit.OK

    async def _watch(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for received in signals:
                self._received = received
                if self._stop is None or self._stop.is_set():
                    self._cancelled = True
                    scope.cancel()
                    return
                self._stop.set()
                say("finishing what is in hand; once more, and it is given back unfinished")


_current: ContextVar[Interrupts] = ContextVar("interrupts")


def stop_event() -> anyio.Event:
    """Set at the first Ctrl-C or SIGTERM; whoever asks for it promises to stop soon after."""
    return _current.get().stop()
