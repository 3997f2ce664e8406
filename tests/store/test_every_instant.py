"""What a search sees while files are written, embedded, switched, rolled back and collected."""

import anyio

from chunkstore.collection import Collection
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from projections.verify import verify
from tests.faults.models import MODEL
from tests.faults.stamped import KEYS, broken, chunks_of
from tests.store.fix_pipeline import QUERY, docs, drain
from tests.store.fix_store import store

__all__ = ["docs", "store"]


async def test_a_search_sees_every_file_at_exactly_one_version_at_every_instant(
    store: ChunkStore, docs: Collection
) -> None:
    keys = KEYS[:6]
    for key in keys:
        await docs.append(key, chunks_of(key, "first"))
    await drain(store)
    stop, faults, versions = anyio.Event(), list[str](), set[tuple[str, int]]()

    async def read() -> None:
        while not stop.is_set():
            hits = await docs.search(QUERY, k=1000)
            faults.extend(broken(hits, keys))
            versions.update((hit.key, hit.version) for hit in hits)

    async def write() -> None:
        for upload in range(12):
            for key in keys:
                await docs.append(key, chunks_of(key, f"{upload}", 25 + upload % 10))
                if upload % 4 == 3:
                    await docs.rollback(key, max(1, upload - 1))
            await collect(store)
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, MODEL, batch=40).run(stop=stop))
        tasks.start_soon(lambda: Projector(store, MODEL.name).run(stop=stop))
        tasks.start_soon(read)
        tasks.start_soon(write)
    assert faults == []
    assert len(versions) > 2 * len(keys), "the reader hardly saw a switch"
    await drain(store)
    report = await verify(store)
    assert report.broken == []
