"""The embedding consumer and its loop: what is paid for, what is copied, who does what, and when it ends."""

import threading
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from numpy.typing import NDArray

from chunkstore import leases
from chunkstore.collection import Collection
from chunkstore.errors import InvalidInput, LeaseLost, ModelMismatch, UnknownModel
from chunkstore.model import Chunk
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from tests.faults.asking import until, value, values
from tests.faults.models import MODEL, Counting, Held
from tests.store.fix_store import store

__all__ = ["store"]

IN_FLIGHT = "SELECT count(*) = {} FROM leases WHERE owner IS NOT NULL"


@pytest.fixture
async def docs(store: ChunkStore) -> Collection:
    return await store.collection("docs", model=MODEL)


@pytest.fixture
async def one_partition(store: ChunkStore) -> None:
    """Lets whatever is appended before a claim be one range."""
    async with store.database.transaction() as conn:
        await conn.execute("SELECT set_partitions(1)")


async def append(collection: Collection, key: str, *contents: str) -> None:
    await collection.append(key, [Chunk(content) for content in contents])


async def drain(store: ChunkStore, model: HashingModel | None = None, *, batch: int = 256) -> list[str]:
    """Embeds what is left; returns the texts that were paid for, in order."""
    model = model or Counting()
    with anyio.fail_after(60):
        await EmbeddingConsumer(store, model, batch=batch).run(drain=True)
    return sorted(model.texts) if isinstance(model, Counting) else []


# --- what is paid for -----------------------------------------------------------------------------


async def test_a_chunk_is_paid_for_once(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "one", "two", "three")
    assert await drain(store) == ["one", "three", "two"]
    assert await drain(store) == []


async def test_what_a_later_version_replaced_is_skipped_before_the_model_is_paid_for(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "old", "kept")
    await append(docs, "a", "new", "kept")
    assert await drain(store) == ["kept", "new"]


async def test_nothing_is_paid_for_a_file_that_was_deleted_or_erased(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "deleted", "one")
    await append(docs, "erased", "two")
    await docs.delete("deleted")
    await docs.erase("erased")
    assert await drain(store) == []


async def test_after_an_edit_only_the_chunk_that_changed_is_paid_for(
    store: ChunkStore, docs: Collection
) -> None:
    texts = [f"paragraph {number}" for number in range(200)]
    await append(docs, "a", *texts)
    await drain(store)
    await append(docs, "a", "an insertion at the front", *texts)
    assert await drain(store) == ["an insertion at the front"]


async def test_going_back_to_a_kept_version_is_paid_for_only_where_it_was_never_embedded(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "one", "kept")
    await drain(store)
    await append(docs, "a", "two", "kept")
    await append(docs, "a", "three", "kept")
    assert await drain(store) == ["three"]
    await docs.rollback("a", 1)
    assert await drain(store) == []
    await docs.rollback("a", 2)
    assert await drain(store) == ["two"]


async def test_a_chunk_of_an_open_version_is_embedded_before_its_commit(
    store: ChunkStore, docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 1000)
    paid: list[str] = []

    async def slowly() -> Any:
        for number in range(4000):
            if number == 3500:
                paid.extend(await drain(store))
            yield Chunk(f"text {number}")

    await docs.append("a", slowly())
    assert len(paid) >= 1000
    assert len(paid) + len(await drain(store)) == 4000


# --- equal texts ----------------------------------------------------------------------------------


async def test_equal_texts_in_one_batch_are_embedded_once(
    one_partition: None, store: ChunkStore, docs: Collection
) -> None:
    for key in ("a", "b", "c"):
        await append(docs, key, "the same", f"of {key} alone")
    assert await drain(store) == ["of a alone", "of b alone", "of c alone", "the same"]
    assert await value(store, "SELECT count(*) FROM embeddings") == 6


async def test_equal_texts_of_one_file_are_embedded_once(store: ChunkStore, docs: Collection) -> None:
    await docs.append("a", [Chunk("the same", {"number": number}) for number in range(5)])
    assert await drain(store) == ["the same"]
    assert await value(store, "SELECT count(*) FROM embeddings") == 5
    assert await value(store, "SELECT count(DISTINCT embedding) FROM embeddings") == 1


async def test_a_text_that_the_collection_has_embedded_is_copied(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "the same", "first")
    await drain(store)
    await append(docs, "b", "the same", "second")
    consumer = EmbeddingConsumer(store, Counting())
    report = await consumer.run(drain=True)
    assert (report.embedded, report.copied, report.stored) == (1, 1, 2)
    assert await value(store, "SELECT count(DISTINCT embedding) FROM embeddings") == 3


async def test_a_text_of_another_collection_is_not_copied(store: ChunkStore, docs: Collection) -> None:
    others = await store.collection("others", model=MODEL)
    await append(docs, "a", "the same")
    await drain(store)
    await append(others, "a", "the same")
    assert await drain(store) == ["the same"]


async def test_equal_texts_of_two_collections_in_one_batch_are_both_embedded(
    one_partition: None, store: ChunkStore, docs: Collection
) -> None:
    others = await store.collection("others", model=MODEL)
    await append(docs, "a", "the same")
    await append(others, "a", "the same")
    model = Counting()
    await drain(store, model)
    assert model.calls == [["the same", "the same"]]


async def test_the_heading_of_a_chunk_is_part_of_its_text(store: ChunkStore, docs: Collection) -> None:
    await docs.append("a", [Chunk("body", {"headings": ["Title", "Part"]}), Chunk("body")])
    paid = await drain(store)
    assert len(paid) == 2
    assert all(text.endswith("body") for text in paid)
    assert any("Title" in text and "Part" in text for text in paid)


# --- what is written ------------------------------------------------------------------------------


async def test_a_batch_is_one_event(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", *(f"text {number}" for number in range(100)))
    await drain(store, batch=50)
    embedded = await values(store, "SELECT cardinality(chunks) FROM events WHERE type = 'chunks_embedded'")
    assert embedded == [50, 50]


async def test_a_range_that_owes_nothing_is_done_without_an_event(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "one")
    await append(docs, "a", "two")
    await append(docs, "a", "three")
    await drain(store, batch=1)
    assert await value(store, "SELECT count(*) FROM events WHERE type = 'chunks_embedded'") == 1
    assert await value(store, "SELECT count(*) FROM leases") == 3
    assert await value(store, "SELECT count(*) FROM done") == 3


async def test_the_vectors_are_the_models_to_the_last_bit(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "one text", "another text")
    await drain(store)
    stored = await values(
        store,
        "SELECT e.embedding::real[] FROM embeddings e JOIN chunks c USING (chunk_id) ORDER BY c.content",
    )
    assert np.array_equal(np.float32(stored), MODEL.embed(["another text", "one text"]))


# --- who does what --------------------------------------------------------------------------------


class Stepping(Counting):
    """Each call waits until the test lets one go on."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Semaphore(0)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        assert self.let.acquire(timeout=60), "the test never let the model go on"
        return vectors


async def test_a_consumer_that_puts_chunks_back_which_failed_before_goes_on_for_ever(
    one_partition: None, store: ChunkStore, docs: Collection
) -> None:
    """It embeds such a chunk alone, so it puts it back while it has something else in hand."""
    times, put_back = 3, list[int]()
    for number in range(times):
        await append(docs, f"bad-{number}", f"failed before {number}")
        async with store.database.transaction() as conn:
            lease = await leases.claim(
                conn, leases.embedding_group(docs._serving.model), batch=1, seconds=60, owner="test"
            )
            assert lease is not None
            await leases.count_attempt(conn, lease, delay=3600)
            put_back.append(lease.lo)
    model, stop = Stepping(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, model).run(stop=stop))
        for number, lo in enumerate(put_back):
            await append(docs, f"other-{number}", f"other {number}")
            with anyio.fail_after(30):
                while len(model.calls) == 2 * number:
                    await anyio.lowlevel.checkpoint()
            async with store.database.transaction() as conn:
                await conn.execute("UPDATE leases SET expires = now() WHERE lo = %s", (lo,))
            await until(store, f"SELECT epoch > 1 AND owner IS NULL FROM leases WHERE lo = {lo}")
            model.let.release(2)
            await until(store, f"SELECT count(*) = {2 * number + 2} FROM embeddings")
        stop.set()
    assert [text.split()[0] for text in model.texts] == ["other", "failed"] * times


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attribute", "other"), [("dimensions", 33), ("distance", "l2")])
async def test_a_model_that_is_not_as_the_store_knows_it_is_refused_before_anything_is_embedded(
    store: ChunkStore, docs: Collection, attribute: str, other: Any
) -> None:
    await append(docs, "a", "one")
    model = Counting()
    setattr(model, attribute, other)
    with pytest.raises(ModelMismatch, match="hashing-32"):
        await EmbeddingConsumer(store, model).run(drain=True)
    assert model.calls == []
    assert await value(store, "SELECT count(*) FROM leases") == 0


async def test_a_model_that_no_collection_has_is_refused(store: ChunkStore, docs: Collection) -> None:
    with pytest.raises(UnknownModel, match="hashing-7"):
        await EmbeddingConsumer(store, HashingModel(7)).run(drain=True)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("batch", {"batch": 0}),
        ("batch", {"batch": 2.5}),
        ("lease_seconds", {"lease_seconds": 0}),
        ("lease_seconds", {"lease_seconds": float("nan")}),
    ],
)
async def test_a_batch_or_lease_that_makes_no_sense_is_refused(
    store: ChunkStore, field: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        EmbeddingConsumer(store, MODEL, **options)
    assert refused.value.field == field


async def test_a_collection_without_the_model_is_left_alone(store: ChunkStore, docs: Collection) -> None:
    others = await store.collection("others", model="hashing:8")
    await append(docs, "a", "mine")
    await append(others, "a", "not mine")
    assert await drain(store) == ["mine"]


# --- the loop -------------------------------------------------------------------------------------


class Overlapping(Counting):
    """Says, at every call but the first, whether the next range was read and the last stored meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().embed(texts)
        return self.held.embed(texts) if len(self.calls) == 2 else vectors


async def test_the_next_range_is_read_and_the_last_one_stored_while_the_model_works(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", *(f"text {number}" for number in range(40)))
    model = Overlapping()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, model, batch=10).run(drain=True))
        # The second call holds the model: the first range gets stored, and the third is in hand.
        await until(store, "SELECT count(*) = 10 FROM embeddings")
        await until(store, "SELECT count(*) = 3 FROM leases")
        assert len(model.calls) == 2
        model.held.go.set()
    assert await value(store, "SELECT count(*) FROM embeddings") == 40


async def test_draining_ends_when_nothing_is_left_and_not_before_another_consumer_is_done(
    store: ChunkStore, docs: Collection
) -> None:
    await append(docs, "a", "one", "two")
    slow, ended = Held(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, slow, batch=1).run(drain=True))
        await until(store, IN_FLIGHT.format(2))

        async def wait_for_the_other() -> None:
            await EmbeddingConsumer(store, MODEL).run(drain=True)
            ended.set()

        tasks.start_soon(wait_for_the_other)
        await append(docs, "b", "three")
        await until(store, "SELECT count(*) = 1 FROM embeddings")
        assert not ended.is_set()
        slow.go.set()
    assert ended.is_set()
    assert await value(store, "SELECT count(*) FROM embeddings") == 3


async def test_draining_an_empty_store_ends_at_once(store: ChunkStore, docs: Collection) -> None:
    assert await drain(store) == []


async def test_three_consumers_share_the_work_and_pay_for_nothing_twice(
    store: ChunkStore, docs: Collection
) -> None:
    for number in range(20):
        await append(docs, f"{number}", *(f"text {number} {chunk}" for chunk in range(30)))
    models = [Counting() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for model in models:
            tasks.start_soon(lambda model=model: EmbeddingConsumer(store, model, batch=16).run(drain=True))
    paid = [text for model in models for text in model.texts]
    assert len(paid) == len({*paid}) == 600
    assert all(model.calls for model in models)


async def test_a_stop_that_comes_first_claims_nothing(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", "one")
    stop = anyio.Event()
    stop.set()
    with anyio.fail_after(10):
        await EmbeddingConsumer(store, MODEL).run(stop=stop)
    assert await value(store, "SELECT count(*) FROM leases") == 0


async def test_a_cancelled_consumer_gives_its_ranges_back(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", *(f"text {number}" for number in range(20)))
    model = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, model, batch=10).run())
        await until(store, IN_FLIGHT.format(2))
        tasks.cancel_scope.cancel()
    model.go.set()
    assert await values(store, "SELECT (owner, attempts, epoch)::text FROM leases") == ["(,0,1)"] * 2


async def test_a_full_partition_does_not_starve_the_others(store: ChunkStore, docs: Collection) -> None:
    for number in range(40):
        await append(docs, f"{number}", f"short {number}")
    first = "partition = (SELECT min(partition) FROM files)"
    full = await value(store, f"SELECT min(key) FROM files WHERE {first}")
    elsewhere = await values(store, f"SELECT 'short ' || key FROM files WHERE NOT {first}")
    await append(docs, full, *(f"long {number}" for number in range(200)))
    model = Counting()
    await drain(store, model, batch=10)
    waited = next(number for number, call in enumerate(model.calls) if {*call} & {*elsewhere})
    assert waited <= 1, f"{waited} ranges of the full partition came first"


async def test_progress_is_reported_range_by_range(store: ChunkStore, docs: Collection) -> None:
    await append(docs, "a", *(f"text {number}" for number in range(30)))
    seen: list[int] = []
    consumer = EmbeddingConsumer(
        store, MODEL, batch=10, on_progress=lambda report: seen.append(report.stored)
    )
    await consumer.run(drain=True)
    assert seen == [10, 20, 30]


# --- leases that were given back ------------------------------------------------------------------


@pytest.mark.parametrize("step", ["renew", "release", "count_attempt"])
async def test_a_lease_that_was_given_back_cannot_be_renewed_or_given_back_again(
    store: ChunkStore, docs: Collection, step: str
) -> None:
    await append(docs, "a", "one")
    group = leases.embedding_group(docs._serving.model)
    async with store.database.transaction() as conn:
        lease = await leases.claim(conn, group, batch=10, seconds=60, owner="test")
        assert lease is not None
        await leases.release(conn, lease)
    before = await values(store, "SELECT l::text FROM leases l")
    with pytest.raises(LeaseLost):
        async with store.database.transaction() as conn:
            match step:
                case "renew":
                    await leases.renew(conn, lease, seconds=60)
                case "release":
                    await leases.release(conn, lease)
                case _:
                    await leases.count_attempt(conn, lease, delay=60)
    assert await values(store, "SELECT l::text FROM leases l") == before
