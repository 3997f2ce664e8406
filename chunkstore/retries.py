"""Runs a database step again where the server went away or a transaction could not be had."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from chunkstore.errors import (
    AuthenticationFailed,
    DatabaseError,
    InsufficientPrivilege,
    IsolationRefused,
    SchemaNotMigrated,
    SchemaTooNew,
    ServerUnreachable,
    UnsupportedServer,
)

T = TypeVar("T")

_FINAL = (
    AuthenticationFailed,
    InsufficientPrivilege,
    IsolationRefused,
    SchemaNotMigrated,
    SchemaTooNew,
    UnsupportedServer,
)
_TRIES = 8


async def persistently(step: Callable[[], Awaitable[T]]) -> T:
    """The step's result; tried again with growing pauses, for ever while the server is away.

    The step must be one that may run twice: its commit may have come through unheard.
    """
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_passing),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=5),
        stop=_give_up,
        reraise=True,
    )

    async def awaited() -> T:  # a lambda that returns an awaitable would not be awaited under the retries
        return await step()

    return await retrying(awaited)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, DatabaseError) and not isinstance(error, _FINAL)


def _give_up(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return state.attempt_number >= _TRIES and not isinstance(error, ServerUnreachable)
