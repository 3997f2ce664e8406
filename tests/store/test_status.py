"""The status of a store: counts that follow what happens, and lag that says what is left to do."""

import pytest

from chunkstore import Chunk, leases
from chunkstore.model import ModelId
from chunkstore.status import CollectionStatus, GroupStatus, ModelStatus, Status, status
from chunkstore.store import ChunkStore
from tests.store.fix_lived import REFUSED, Lived, PickyModel, lived
from tests.store.fix_store import store

__all__ = ["lived", "store"]


@pytest.fixture
async def young(store: ChunkStore) -> Lived:
    """A store of its own, with an empty collection."""
    model = PickyModel(8)
    return Lived(store, await store.collection("docs", model=model), model)


def docs(seen: Status) -> CollectionStatus:
    return next(collection for collection in seen.collections if collection.name == "docs")


def group(seen: Status, kind: str, model: str = "hashing-8") -> GroupStatus:
    return next(one for one in seen.groups if one.kind == kind and one.model == model)


async def index_of(young: Lived) -> ModelStatus:
    return docs(await status(young.store)).serving


async def execute(of: Lived, statement: str) -> None:
    async with of.store.database.transaction() as conn:
        await conn.execute(statement.encode())


# --- collections --------------------------------------------------------------------------------


async def test_a_store_that_has_lived_is_counted(lived: Lived) -> None:
    seen = await status(lived.store)
    collection = docs(seen)
    assert (collection.files, collection.deleted, collection.open) == (6, 1, 0)
    assert collection.chunks == 2100 + 4 + 2 + 1 + 2 + 2
    # Two are kept of each, one of `pinned` besides; the deleted file has its tombstone.
    assert collection.versions == 1 + 2 + 3 + 2 + 2 + 1 + 1
    model = collection.serving
    assert (model.name, model.dimensions, model.distance) == ("hashing-8", 8, "cosine")
    assert (model.active, model.waiting, model.failed, model.discarded) == (5, 1, 1, 1)
    assert [one.name for one in seen.collections] == ["docs", "other"]
    assert seen.schema == lived.store.database.schema
    assert seen.idle


async def test_an_empty_store_has_a_status(store: ChunkStore) -> None:
    seen = await status(store)
    assert (seen.partitions, seen.offsets, seen.collections, seen.groups) == (16, 0, [], [])
    assert seen.sizes.total > 0


async def test_a_file_waits_from_its_append_to_its_activation(young: Lived) -> None:
    first = await young.collection.append("a", [Chunk("one")])
    await young.append("a", "one", "two")
    model = docs(await status(young.store)).serving
    assert (model.active, model.waiting) == (0, 1)
    assert model.stale_since == first.committed_at
    await young.drain()
    model = docs(await status(young.store)).serving
    assert (model.active, model.waiting, model.stale_since) == (1, 0, None)


async def test_an_open_version_is_counted_apart(young: Lived) -> None:
    await young.open_version("a")
    collection = docs(await status(young.store))
    assert (collection.open, collection.versions, collection.files) == (1, 0, 0)


async def test_models_are_listed_the_serving_one_first(young: Lived) -> None:
    await young.append("a", "one")
    await young.drain()
    await young.collection.add_model("hashing:16")
    old, new = docs(await status(young.store)).models
    assert (old.name, old.serving, old.active, old.waiting) == ("hashing-8", True, 1, 0)
    assert (new.name, new.serving, new.active, new.waiting) == ("hashing-16", False, 0, 1)
    assert not new.backfilling


# --- indexes ------------------------------------------------------------------------------------


async def test_an_index_is_none_then_building_then_ready_or_broken(young: Lived) -> None:
    model = await index_of(young)
    assert (model.index, model.exact) == ("none", True)
    await execute(
        young, "CREATE INDEX search_1_1_hnsw ON search_1_1 USING hnsw (embedding halfvec_cosine_ops)"
    )
    model = await index_of(young)
    assert (model.index, model.exact) == ("ready", False)
    await execute(
        young, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'search_1_1_hnsw'::regclass"
    )
    model = await index_of(young)
    assert (model.index, model.exact) == ("broken", True)
    async with young.store.database.transaction() as builder:
        await builder.execute("LOCK TABLE search_1_1 IN SHARE UPDATE EXCLUSIVE MODE")
        model = await index_of(young)
        assert (model.index, model.exact) == ("building", True)


# --- groups -------------------------------------------------------------------------------------


async def test_lag_is_what_the_groups_have_not_done(young: Lived) -> None:
    version = await young.collection.append("a", [Chunk(f"text {i}") for i in range(1500)])
    await young.append("b", "text")
    seen = await status(young.store)
    assert group(seen, "shared").lag == 1501
    assert group(seen, "ordered").lag == 1501 + 2
    assert seen.offsets == 1503
    oldest = group(seen, "shared").oldest
    assert oldest is not None
    assert version.committed_at is not None
    assert abs((oldest - version.committed_at).total_seconds()) < 60
    assert not seen.idle
    await young.drain()
    seen = await status(young.store)
    assert [(one.lag, one.in_flight, one.leases, one.oldest) for one in seen.groups] == [
        (0, 0, 0, None),
        (0, 0, 0, None),
    ]
    assert seen.idle


async def test_chunks_of_claimed_ranges_are_in_flight(young: Lived) -> None:
    await young.collection.append("a", [Chunk(f"text {i}") for i in range(1500)])
    async with young.store.database.transaction() as conn:
        name = leases.embedding_group(ModelId(1))
        held = await leases.claim(conn, name, batch=1200, seconds=60, owner="test")
        given_back = await leases.claim(conn, name, batch=200, seconds=60, owner="test")
        assert held is not None
        assert given_back is not None
        await leases.release(conn, given_back)
    shared = group(await status(young.store), "shared")
    assert (shared.lag, shared.in_flight, shared.leases) == (1500, 1400, 1)


async def test_a_projector_that_holds_a_checkpoint_is_counted(young: Lived) -> None:
    await young.append("a", "one")
    async with young.store.database.transaction() as conn:
        await leases.claim_checkpoint(conn, leases.projector_group(ModelId(1)), 3, seconds=60, owner="test")
    assert group(await status(young.store), "ordered").leases == 1


# --- dead letters and sizes ---------------------------------------------------------------------


async def test_a_chunk_that_was_given_up_is_failed_until_it_is_discarded(young: Lived) -> None:
    await young.append("a", "fine", f"bad: {REFUSED}")
    await young.drain()
    model = docs(await status(young.store)).serving
    assert (model.failed, model.discarded, model.waiting) == (1, 0, 1)
    (letter,) = await young.collection.dead_letters()
    await young.collection.discard(letter.chunk_id)
    await young.drain()
    model = docs(await status(young.store)).serving
    assert (model.failed, model.discarded, model.waiting, model.active) == (0, 1, 0, 1)


async def test_sizes_are_those_of_the_tables(lived: Lived) -> None:
    sizes = (await status(lived.store)).sizes
    parts = (sizes.log, sizes.chunks, sizes.manifests, sizes.embeddings, sizes.projections)
    assert all(part > 0 for part in parts)
    assert sum(parts) < sizes.total
    async with lived.store.database.transaction() as conn:
        cursor = await conn.execute("SELECT pg_total_relation_size('chunks')")
        assert await cursor.fetchone() == (sizes.chunks,)


async def test_a_rollback_that_waits_is_said_since_when(young: Lived) -> None:
    await young.append("a", "text one")
    await young.append("a", "text two")
    await young.drain()
    await young.collection.rollback("a", 1)
    (row,) = (await status(young.store)).collections
    assert row.models[0].waiting == 1
    assert row.models[0].stale_since is not None
