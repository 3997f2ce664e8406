"""An index build that is killed: searches are exact meanwhile, and the index is found and built again."""

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.projector import Projector
from tests.faults.asking import until, value
from tests.faults.models import MODEL

BROKEN = """
SELECT count(*) = 1
FROM pg_index
WHERE indexrelid = to_regclass('search_1_1_hnsw')
  AND NOT indisvalid
"""

KILL = """
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE query LIKE '%CREATE INDEX CONCURRENTLY%'
  AND pid <> pg_backend_pid()
"""


async def test_a_killed_build_leaves_searches_exact_and_is_done_again(
    store: ChunkStore, files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 100)
    await files.append("doc", [Chunk(f"text number {number}") for number in range(200)])
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    projector, stop = Projector(store, MODEL.name), anyio.Event()
    async with store.database.connection() as writer, anyio.create_task_group() as tasks:
        await writer.execute("BEGIN")
        # A writer that does not end holds the build where its index is there and not valid yet.
        await writer.execute("LOCK TABLE search_1_1 IN ROW EXCLUSIVE MODE")
        tasks.start_soon(lambda: projector.run(stop=stop))
        await until(store, BROKEN)
        hits = await files.search("text number 77", k=3)
        assert (hits.exact, hits[0].content) == (True, "text number 77")
        assert await value(store, KILL) == 1
        await until(store, BROKEN)
        await writer.execute("COMMIT")
        await until(store, f"SELECT NOT ({BROKEN}) AND to_regclass('search_1_1_hnsw') IS NOT NULL")
        stop.set()
    assert projector.report.indexes_built == 1
    hits = await files.search("text number 77", k=3)
    assert (hits.exact, hits[0].content) == (False, "text number 77")
