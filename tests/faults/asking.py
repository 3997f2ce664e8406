"""Asks the database, also while it is being killed, and waits until it answers as it should."""

from collections.abc import Awaitable, Callable
from typing import Any

import tenacity

from chunkstore.retries import persistently
from chunkstore.store import ChunkStore

DEADLINE = 45

ALL_ACTIVE = """
SELECT count(*) = 0
FROM files f
LEFT JOIN active_versions a ON a.file = f.file
WHERE a.version IS DISTINCT FROM f.target
  AND f.key IS NOT NULL
"""
"""Whether the active version of every file that is not erased is its target."""


TOLD_TWICE = """
SELECT count(*)
FROM (
    SELECT FROM events e CROSS JOIN unnest(e.chunks) AS c (chunk)
    WHERE e.type = 'chunks_embedded'
    GROUP BY c.chunk, e.data ->> 'model'
    HAVING count(*) > 1
    UNION ALL
    SELECT FROM events
    WHERE type IN ('version_committed', 'version_collected', 'version_abandoned', 'file_erased')
    GROUP BY type, file, version
    HAVING count(*) > 1
) AS twice
"""
"""How much the log says twice that happens once: an embedding, a version's commit and end, an erasure."""


async def values(store: ChunkStore, statement: str) -> list[Any]:
    """The first column of every row."""

    async def ask() -> list[Any]:
        async with store.database.transaction() as conn:
            return [row[0] for row in await (await conn.execute(statement)).fetchall()]

    return await persistently(ask)


async def value(store: ChunkStore, statement: str) -> Any:
    """The first column of the first row."""
    return (await values(store, statement))[0]


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, *, seconds: float = DEADLINE) -> None:
    """Returns when the condition holds; fails at the deadline."""
    looking = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda held: not held),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(seconds),
        retry_error_callback=lambda _: False,
    )
    assert await looking(holds), f"not within {seconds:.1f} s: {what}"


async def until(store: ChunkStore, statement: str, *, seconds: float = DEADLINE) -> None:
    """Returns when the statement's value is true or, for a count, above zero; fails at the deadline."""

    async def holds() -> bool:
        return bool(await value(store, statement))

    await eventually(holds, statement, seconds=seconds)
