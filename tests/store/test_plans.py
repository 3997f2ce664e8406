"""The plan of every hot statement: it goes by the index it should, and reads no table from end to end."""

import re
from typing import Any

import numpy as np
import pytest

from chunkstore import Chunk, ChunkStore, Collection
from chunkstore import leases as leasing
from chunkstore.arrays import Bigints
from chunkstore.embeddings import EMBEDDINGS
from chunkstore.leases import LEASES
from chunkstore.log import LOG
from chunkstore.search import SEARCH, nearest_statement
from chunkstore.versions import VERSIONS
from projections.indexes import INDEXES

LEASE = {"group": "embed:1", "partition": 0, "lo": 0, "epoch": 1}

# Statement, its parameters, and the indexes that its plan must name.
HOT: dict[str, tuple[bytes, dict[str, Any], set[str]]] = {
    "read the log": (LOG.read, {"partition": 0, "start": 0, "limit": 10}, {"events_pkey"}),
    "read a range": (
        EMBEDDINGS.read_range,
        {"partition": 0, "lo": 0, "hi": 256, "model": 1},
        {
            "events_chunks_appended",
            "chunks_pkey",
            "chunks_by_text",
            "embeddings_pkey",
            "segments_by_range",
            "files_pkey",
        },
    ),
    "read copies": (EMBEDDINGS.copies, {"sources": Bigints([1]), "model": 1}, {"embeddings_pkey"}),
    "leave texts that others have in hand": (
        EMBEDDINGS.in_hand,
        {"group": "embed:1", "partition": 0, "lo": 0, "model": 1, "collections": [1], "text_hashes": [b"0"]},
        {"events_chunks_appended", "chunks_pkey", "chunks_by_text", "files_pkey", "embeddings_pkey"},
    ),
    "read a file's state": (
        VERSIONS.state,
        {"file": 1, "idempotency_key": None},
        {"files_pkey", "versions_pkey"},
    ),
    "renew a lease": (LEASES.renew, LEASE | {"lease": "1 s"}, {"leases_pkey"}),
    "look for work": (LEASES.partitions_behind, {"group": "project:1"}, {"progress_pkey", "events_pkey"}),
    "count what waits, for an index that is due": (
        INDEXES.waiting_chunks,
        {"group": "embed:1", "limit": 500},
        {"events_chunks_appended", "progress_pkey"},
    ),
    "see where a version stands": (
        SEARCH.standing,
        {"file": 1, "version": 1, "model": 1},
        {"files_pkey", "versions_pkey", "active_versions_pkey", "dead_letters_by_file"},
    ),
}


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_goes_by_its_indexes(collection: Collection, name: str) -> None:
    statement, params, indexes = HOT[name]
    await collection.append("a", [Chunk(f"text {i}") for i in range(100)])
    plan = await explained(collection.store, statement, params)
    assert {index for index in indexes if index in plan} == indexes, plan
    assert "Seq Scan" not in plan, plan


async def test_texts_in_hand_are_found_by_probes_alone(collection: Collection) -> None:
    statement, params, _ = HOT["leave texts that others have in hand"]
    await embed_many(collection, 2000)
    async with collection.store.database.connection() as conn:
        await conn.execute("ANALYZE")
    # Of many texts: the more there are, the sooner a planner that is free would read a table whole.
    params = params | {"collections": [1] * 1000, "text_hashes": [b"%d" % i for i in range(1000)]}
    plan = await explained(collection.store, statement, params)
    assert not re.search(r"Hash \w*Join|Merge \w*Join", plan.replace("Nested Loop", "")), plan
    assert "files_collection_key_key" not in plan, plan


@pytest.mark.parametrize(
    ("function", "index"),
    [("chunks_by_hash", "chunks_by_text"), ("segments_by_digest", "segments_by_digest")],
)
async def test_what_a_function_returns_is_found_by_its_index(
    collection: Collection, function: str, index: str
) -> None:
    await collection.append("a", [Chunk(f"text {i}") for i in range(100)])
    async with collection.store.database.transaction() as conn:
        cursor = await conn.execute("SELECT prosrc FROM pg_proc WHERE oid = %(f)s::regproc", {"f": function})
        (source,) = await cursor.fetchone() or ("",)
    query = source.partition("RETURN QUERY")[2].partition(";")[0]
    for name, value in {"_file": "1", "_digests": "ARRAY['0'::bytea]", "_hashes": "'0'::bytea"}.items():
        query = re.sub(rf"\b(_text)?{name}\b", value, query)
    plan = await explained(collection.store, query.encode(), {})
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan


async def test_a_search_scans_the_vectors_index_and_joins_by_primary_keys(collection: Collection) -> None:
    await embed_many(collection, 2000)
    model = collection._models[0]
    async with collection.store.database.connection() as conn:
        await conn.execute(
            f"CREATE INDEX {model.search_table}_hnsw ON {model.search_table}"
            " USING hnsw (embedding halfvec_cosine_ops)".encode()
        )
        await conn.execute("ANALYZE")
    table = model.search_table
    params = {"query": str([1.0] * 8), "model": model.model, "table": table, "collection": 1}
    plan = await explained(collection.store, nearest_statement(model, 10), params, seqscan=True)
    assert f"Index Scan using {model.search_table}_hnsw" in plan, plan
    assert f"{model.active_table}_pkey" in plan, plan


async def test_a_search_that_comes_again_is_not_planned_again(dsn: str, schema: str) -> None:
    async with await ChunkStore.open(dsn, schema=schema, max_size=1) as store:
        collection = await store.collection("docs", model="hashing:8")
        await embed_many(collection, 100)
        for number in range(20):
            await collection.search([number, *[1.0] * 7], k=10)
        async with store.database.transaction() as conn:
            cursor = await conn.execute(
                "SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE %s", ["%nearest%"]
            )
            assert await cursor.fetchall() == [
                (10,)
            ]  # after 5 to be prepared, and 5 planned for their values


async def embed_many(collection: Collection, count: int) -> None:
    """Appends and embeds chunks and makes them active, by the functions that consumers use."""
    from consumers.embedding import EmbeddingConsumer
    from projections.projector import Projector

    await collection.append("many", [Chunk(f"word{i} other{i % 7}") for i in range(count)])
    await EmbeddingConsumer(collection.store, Bits()).run(drain=True)
    await Projector(collection.store, "hashing-8").run(drain=True)


class Bits:
    """A model under the collection's name whose vectors are random and cost nothing."""

    name, dimensions, distance = "hashing-8", 8, "cosine"

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.random.default_rng(len(texts)).normal(size=(len(texts), 8)).astype(np.float32)


async def explained(
    store: ChunkStore, statement: bytes, params: dict[str, Any], *, seqscan: bool = False
) -> str:
    """The plan; on tables this small, scans must be made dear for an index to be chosen."""
    async with store.database.transaction() as conn:
        if not seqscan:
            await conn.execute("SET LOCAL enable_seqscan = off")
        cursor = await conn.execute(b"EXPLAIN " + statement, params)
        return "\n".join(line for (line,) in await cursor.fetchall())


def test_the_groups_named_here_are_the_real_ones() -> None:
    from chunkstore.model import ModelId

    assert leasing.embedding_group(ModelId(1)) == "embed:1"
    assert leasing.projector_group(ModelId(1)) == "project:1"
