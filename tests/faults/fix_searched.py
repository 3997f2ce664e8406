"""Fixtures that search all the time while a test runs, and check every result and what is left at the end."""

from collections.abc import AsyncIterator

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.store import ChunkStore
from projections.projector import Projector
from tests.faults.asking import ALL_ACTIVE, value
from tests.faults.models import MODEL
from tests.faults.searching import Checker, Reader
from tests.faults.siege import all_whole_and_active, nothing_is_broken
from tests.faults.stamped import CHUNKS

EMBEDDED = f"SELECT count(*) - {CHUNKS} FROM embeddings"
"""How many chunks are embedded beside those of the first version that `searched` begins with."""

EMBEDDED_EVENTS = "SELECT count(*) - 1 FROM events WHERE type = 'chunks_embedded'"
"""How many events tell of them."""

UNFINISHED = """
leases l
WHERE NOT EXISTS (
    SELECT FROM done d
    WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
)
"""
"""The ranges that are not done, to be selected from."""

TWO_LISTEN = "SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'LISTEN chunkstore%'"
"""Whether a consumer waits for hints beside the projector of `searched`."""


@pytest.fixture
async def searched(store: ChunkStore, files: Collection) -> AsyncIterator[Checker]:
    """What a reader finds who searches all through the test, from a first version of `doc` on.

    A projector switches what is complete meanwhile. After the test what was given up is retried with a
    model that works: within a time every file is active as it was last written, `verify` finds nothing
    wrong, and neither did any search.
    """
    await all_whole_and_active(store, files, ["doc"])
    reader = Reader(files, keys=None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Projector(store, MODEL.name).run)
        tasks.start_soon(reader.run)
        yield reader.checker
        for letter in await files.dead_letters():
            await files.retry(letter.chunk_id)
        await nothing_is_broken(store)
        tasks.cancel_scope.cancel()
    await reader.look()
    assert await value(store, ALL_ACTIVE)
    assert reader.checker.faults == []
