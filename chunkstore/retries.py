"""Runs a database step again where the server went away or a transaction could not be had."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import tenacity

from chunkstore.errors import (
    AuthenticationFailed,
    DatabaseError,
    InsufficientPrivilege,
    IsolationRefused,
    SchemaNotMigrated,
    ServerUnreachable,
    StoreReplaced,
    UnsupportedServer,
)

T = TypeVar("T")

_FINAL = (
    AuthenticationFailed,
    InsufficientPrivilege,
    IsolationRefused,
    SchemaNotMigrated,
    StoreReplaced,
    UnsupportedServer,
)
_TRIES = 8


async def persistently(step: Callable[[], Awaitable[T]], stop: anyio.Event | None = None) -> T:
    """The step's result; tried again with growing pauses, for ever while the server is away.

    The step must be one that may run twice: its commit may have come through unheard. After `stop` nothing
    is tried again, and a second try that goes on is cancelled: the server's absence is raised.
    """
    stop = stop or anyio.Event()
    tries = 0

    async def pause(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await stop.wait()

    retrying = tenacity.AsyncRetrying(
        sleep=pause,
        retry=tenacity.retry_if_exception(_is_passing),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=5),
        stop=lambda state: stop.is_set() or _give_up(state),
        reraise=True,
    )

    async def awaited() -> T:
        nonlocal tries
        tries += 1
        return await (step() if tries == 1 else _unless(stop, step))

    return await retrying(awaited)


async def _unless(stop: anyio.Event, step: Callable[[], Awaitable[T]]) -> T:
    """The step's result, or its error; a step that waits for a server that is away ends at the stop."""
    results: list[T] = []
    error: Exception = ServerUnreachable("stopped while the server was away")
    async with anyio.create_task_group() as tasks:

        async def end() -> None:
            await stop.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(end)
        try:
            results.append(await step())
        except Exception as caught:  # noqa: BLE001 - out of the group first, which would wrap it
            error = caught
        tasks.cancel_scope.cancel()
    if results:
        return results[0]
    raise error


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, DatabaseError) and not isinstance(error, _FINAL)


def _give_up(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return state.attempt_number >= _TRIES and not isinstance(error, ServerUnreachable)
