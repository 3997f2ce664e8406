"""When a search is exact and when an index answers it, and that it finds as much."""

import pytest
from psycopg.conninfo import make_conninfo

from chunkstore.collection import Collection
from chunkstore.database import Database
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.projector import Projector
from tests.faults.models import MODEL
from tests.store.fix_pipeline import QUERY, append, docs, drain
from tests.store.fix_store import store

__all__ = ["docs", "store"]


async def test_a_search_is_exact_until_the_first_load_is_over_and_the_index_is_built(
    store: ChunkStore, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 1500)
    for number in range(4):
        await append(docs, f"{number}", *(f"text {number} {chunk}" for chunk in range(500)))
    assert (await docs.search(QUERY)).exact
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    # More came in while the first part was embedded: the load goes on, and there is no index yet.
    for number in range(4, 6):
        await append(docs, f"{number}", *(f"text {number} {chunk}" for chunk in range(500)))
    report = await Projector(store, MODEL.name).run(drain=True)
    assert report.indexes_built == 0
    assert (await docs.search(QUERY)).exact
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    report = await Projector(store, MODEL.name).run(drain=True)
    assert report.indexes_built == 1
    hits = await docs.search(MODEL.embed(["text 3 77"])[0], k=5)
    assert not hits.exact
    assert hits[0].content == "text 3 77"


async def test_a_small_collection_gets_no_index(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", *(f"text {number}" for number in range(50)))
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    assert (await Projector(store, MODEL.name).run(drain=True)).indexes_built == 0
    assert (await docs.search(QUERY)).exact


@pytest.mark.parametrize("goes_on", [True, False])
async def test_an_index_finds_as_many_hits_as_there_are_however_many_rows_lie_superseded(
    store: ChunkStore,
    docs: Collection,
    dsn: str,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    goes_on: bool,
) -> None:
    """Where the server's pgvector goes on with its scans, and as where it cannot (0.7)."""
    if goes_on and not store.database.has_iterative_scans:
        pytest.skip("needs pgvector 0.8")
    monkeypatch.setattr(Database, "has_iterative_scans", goes_on)
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 300)
    for key in ("a", "b"):
        await append(docs, key, *(f"text {key} {number}" for number in range(400)))
    await drain(store)
    # A whole new version is embedded and staged, but not switched to.
    await append(docs, "a", *(f"text of the next version {number}" for number in range(400)))
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    # So few rows would be read one by one.
    by_index = make_conninfo(dsn, options="-c enable_seqscan=off")
    async with await ChunkStore.open(by_index, schema=schema) as other:
        reader = await other.collection("docs")
        hits = await reader.search(MODEL.embed(["text of the next version"])[0], k=100)
    assert hits.exact == (not goes_on)
    assert len(hits) == 100
    assert {hit.version for hit in hits} == {1}
