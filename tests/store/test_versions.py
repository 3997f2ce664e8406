"""Versions: their order, tombstones, targets, pins, retries, erasure, and what never changes."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import psycopg
import pytest

from chunkstore import versions
from chunkstore.collection import Collection
from chunkstore.errors import (
    IdempotencyKeyReused,
    InvalidInput,
    NeverActive,
    StaleVersion,
    UnknownFile,
    UnknownVersion,
    WaitTimeout,
)
from chunkstore.model import Chunk, Place, Version
from chunkstore.models import open_model
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from tests.store.fix_store import MODEL

ANY = [1.0] * 8


async def append(collection: Collection, key: str, *contents: str) -> Version:
    return await collection.append(key, [Chunk(content) for content in contents])


async def drain(store: ChunkStore) -> None:
    """Embeds and projects everything that there is."""
    await EmbeddingConsumer(store, open_model(MODEL)).run(drain=True)
    await Projector(store, "hashing-8").run(drain=True)


async def found(collection: Collection) -> list[tuple[int, str]]:
    """What a search sees: versions and contents, in order."""
    return sorted((hit.version, hit.content) for hit in await collection.search(ANY, k=1000))


async def states(collection: Collection, key: str = "doc") -> list[tuple[int, str, bool]]:
    """Number, state and whether it is the target, of every version."""
    return [(version.number, version.state, version.target) for version in await collection.history(key)]


async def value(store: ChunkStore, statement: str) -> object:
    async with store.database.transaction() as conn:
        row = await (await conn.execute(statement.encode())).fetchone()
        assert row is not None
        return row[0]


class Held:
    """Chunks for a streamed append that waits before its last one."""

    def __init__(self, *contents: str) -> None:
        self._contents = contents
        self.reached = anyio.Event()
        self.go_on = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for content in self._contents[:-1]:
            yield Chunk(content)
        self.reached.set()
        await self.go_on.wait()
        yield Chunk(self._contents[-1])


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an append of more than two chunks be streamed."""
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 1)


# --- the order of commits -------------------------------------------------------------------------


@pytest.mark.usefixtures("streamed")
async def test_a_version_that_commits_after_a_later_one_is_superseded_at_birth(
    store: ChunkStore, collection: Collection
) -> None:
    slow = Held("slow 1", "slow 2", "slow 3", "slow 4")
    written: list[Version] = []

    async def write() -> None:
        written.append(await collection.append("doc", slow))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await slow.reached.wait()
        newer = await append(collection, "doc", "newer")
        await drain(store)
        slow.go_on.set()
    assert (written[0].number, written[0].target, newer.number) == (1, False, 2)
    await drain(store)
    assert await found(collection) == [(2, "newer")]
    assert await states(collection) == [(1, "committed", False), (2, "committed", True)]
    assert await value(store, "SELECT count(*) FROM events WHERE type = 'version_activated'") == 1


async def test_two_writers_of_one_file_get_two_numbers(collection: Collection) -> None:
    written: list[Version] = []

    async def write(content: str) -> None:
        written.append(await append(collection, "doc", content))

    async with anyio.create_task_group() as tasks:
        for i in range(6):
            tasks.start_soon(write, f"content {i}")
    assert sorted(version.number for version in written) == [1, 2, 3, 4, 5, 6]
    assert [version.target for version in await collection.history("doc")] == [False] * 5 + [True]


async def test_a_file_that_is_uploaded_faster_than_embedded_becomes_active_with_its_first_complete_target(
    store: ChunkStore, collection: Collection
) -> None:
    for i in range(5):
        await append(collection, "doc", "stays", f"changes {i}")
    await drain(store)
    assert await found(collection) == [(5, "changes 4"), (5, "stays")]
    assert await value(store, "SELECT count(*) FROM embeddings") == 2, (
        "nothing was embedded for versions 1 to 4"
    )


# --- tombstones -----------------------------------------------------------------------------------


async def test_a_deletion_is_a_version_that_empties_searches(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    await drain(store)
    version = await collection.delete("doc", metadata={"why": "gone"})
    assert (version.number, version.tombstone, version.chunks) == (2, True, 0)
    await drain(store)
    assert await found(collection) == []
    keys = collection.keys()
    assert [key async for key in keys] == []
    assert [(v.tombstone, v.metadata) for v in await collection.history("doc")] == [
        (False, {}),
        (True, {"why": "gone"}),
    ]
    earlier = collection.chunks("doc", 1)
    assert [chunk.content async for chunk in earlier] == ["one"]


async def test_deleting_twice_changes_nothing(collection: Collection) -> None:
    await append(collection, "doc", "one")
    await collection.delete("doc")
    again = await collection.delete("doc")
    assert (again.number, again.unchanged, again.tombstone) == (2, True, True)


async def test_a_deleted_file_comes_back_with_its_next_append(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    await collection.delete("doc")
    version = await append(collection, "doc", "one")
    assert (version.number, version.added, version.reused) == (3, 0, 1)
    await drain(store)
    assert await found(collection) == [(3, "one")]


async def test_deleting_what_was_never_there_is_an_error(collection: Collection) -> None:
    with pytest.raises(UnknownFile, match="'doc'"):
        await collection.delete("doc")
    with pytest.raises(UnknownFile):
        await collection.history("doc")


# --- expected_version and idempotency keys --------------------------------------------------------


async def test_an_append_that_expects_another_version_writes_nothing(
    store: ChunkStore, collection: Collection
) -> None:
    assert (await collection.append("doc", [Chunk("one")], expected_version=0)).number == 1
    assert (await collection.append("doc", [Chunk("two")], expected_version=1)).number == 2
    for stale in (0, 1, 3):
        with pytest.raises(StaleVersion, match=f"{stale} is not the latest version, which is 2"):
            await collection.append("doc", [Chunk("three")], expected_version=stale)
        with pytest.raises(StaleVersion):
            await collection.delete("doc", expected_version=stale)
    assert await value(store, "SELECT count(*) FROM chunks") == 2
    assert (await collection.delete("doc", expected_version=2)).number == 3


async def test_of_two_appends_that_expect_the_same_one_wins(collection: Collection) -> None:
    outcomes: list[str] = []

    async def write(content: str) -> None:
        try:
            await collection.append("doc", [Chunk(content)], expected_version=0)
            outcomes.append("written")
        except StaleVersion:
            outcomes.append("stale")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, "one")
        tasks.start_soon(write, "two")
    assert sorted(outcomes) == ["stale", "written"]


async def test_a_retried_append_returns_the_first_ones_version(collection: Collection) -> None:
    first = await collection.append("doc", [Chunk("one")], idempotency_key="k")
    await append(collection, "doc", "two")
    again = await collection.append("doc", [Chunk("one")], idempotency_key="k")
    assert (first.number, again.number, again.unchanged) == (1, 1, True)
    assert await states(collection) == [(1, "committed", False), (2, "committed", True)]


async def test_a_retry_is_not_asked_what_version_it_expected(collection: Collection) -> None:
    await collection.append("doc", [Chunk("one")], expected_version=0, idempotency_key="k")
    again = await collection.append("doc", [Chunk("one")], expected_version=0, idempotency_key="k")
    assert again.number == 1


@pytest.mark.parametrize("count", [1, 5], ids=["at once", "streamed"])
async def test_an_idempotency_key_for_other_content_is_refused(
    store: ChunkStore, collection: Collection, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 1)
    contents = [f"content {i}" for i in range(count)]
    await collection.append("doc", [Chunk(content) for content in contents], idempotency_key="k")
    for other in ([*contents[:-1], "other"], [*contents, "more"]):
        with pytest.raises(IdempotencyKeyReused, match="version 1"):
            await collection.append("doc", [Chunk(content) for content in other], idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        await collection.append(
            "doc", [Chunk(content) for content in contents], idempotency_key="k", metadata={"a": 1}
        )
    with pytest.raises(IdempotencyKeyReused):
        places = [Chunk(content, {}, Place(line=1)) for content in contents]
        await collection.append("doc", places, idempotency_key="k")
    assert await value(store, "SELECT count(*) FROM chunks") == count


async def test_an_idempotency_key_belongs_to_its_file(collection: Collection) -> None:
    await collection.append("doc", [Chunk("one")], idempotency_key="k")
    other = await collection.append("other", [Chunk("two")], idempotency_key="k")
    assert (other.number, other.unchanged) == (1, False)


async def test_an_unchanged_append_remembers_its_key(collection: Collection) -> None:
    await append(collection, "doc", "one")
    await collection.append("doc", [Chunk("one")], idempotency_key="k")
    await append(collection, "doc", "two")
    assert (await collection.append("doc", [Chunk("one")], idempotency_key="k")).number == 1


# --- rollback -------------------------------------------------------------------------------------


async def test_a_rollback_holds_until_the_next_append_which_says_so(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    await append(collection, "doc", "two")
    await drain(store)
    rolled_back = await collection.rollback("doc", 1)
    assert (rolled_back.number, rolled_back.target) == (1, True)
    await drain(store)
    assert await found(collection) == [(1, "one")]
    version = await append(collection, "doc", "three")
    assert (version.number, version.target, version.replaced_rollback_to) == (3, True, 1)
    assert (await append(collection, "doc", "four")).replaced_rollback_to is None
    await drain(store)
    assert await found(collection) == [(4, "four")]


async def test_an_append_reuses_the_chunks_of_what_was_rolled_back_to(collection: Collection) -> None:
    await append(collection, "doc", "one", "first")
    await append(collection, "doc", "two", "second")
    await collection.rollback("doc", 1)
    version = await append(collection, "doc", "one", "two", "new")
    assert (version.added, version.reused) == (1, 2)


async def test_a_rollback_to_the_target_changes_nothing(store: ChunkStore, collection: Collection) -> None:
    await append(collection, "doc", "one")
    events = await value(store, "SELECT count(*) FROM events")
    await collection.rollback("doc", 1)
    assert await value(store, "SELECT count(*) FROM events") == events


async def test_a_rollback_before_a_deletion_brings_the_file_back(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    await collection.delete("doc")
    await drain(store)
    await collection.rollback("doc", 1)
    await drain(store)
    assert await found(collection) == [(1, "one")]
    assert (await collection.delete("doc")).number == 3
    await drain(store)
    assert await found(collection) == []


async def test_a_rollback_goes_to_committed_versions_alone(store: ChunkStore, collection: Collection) -> None:
    for i in range(5):
        await append(collection, "doc", f"content {i}")
    await drain(store)
    await collect(store)
    for missing in (1, 2, 6):
        with pytest.raises(UnknownVersion, match=str(missing)):
            await collection.rollback("doc", missing)
        with pytest.raises(UnknownVersion):
            await collection.pin("doc", missing)
    with pytest.raises(UnknownFile):
        await collection.rollback("other", 1)


# --- pins -----------------------------------------------------------------------------------------


async def test_a_pinned_version_is_kept_until_it_is_unpinned(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    assert (await collection.pin("doc", 1)).pinned
    for content in ("two", "three", "four", "five"):
        await append(collection, "doc", content)
    await drain(store)
    await collect(store)
    kept = collection.chunks("doc", 1)
    assert [chunk.content async for chunk in kept] == ["one"]
    assert not (await collection.unpin("doc", 1)).pinned
    await collect(store)
    assert [state for _, state, _ in await states(collection)] == [
        "collected",
        "collected",
        *["committed"] * 3,
    ]
    with pytest.raises(UnknownVersion):
        gone = collection.chunks("doc", 1)
        assert [chunk async for chunk in gone]


# --- erasure --------------------------------------------------------------------------------------


async def test_an_append_after_an_erasure_is_the_first_version_of_a_new_file(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    await append(collection, "doc", "two")
    await drain(store)
    await collection.erase("doc")
    assert await found(collection) == []
    with pytest.raises(UnknownFile):
        await collection.history("doc")
    with pytest.raises(UnknownFile):
        await collection.erase("doc")
    version = await append(collection, "doc", "one")
    assert (version.number, version.reused) == (1, 0)
    await drain(store)
    assert await found(collection) == [(1, "one")]


async def test_an_erasure_frees_the_files_idempotency_keys(collection: Collection) -> None:
    await collection.append("doc", [Chunk("one")], idempotency_key="k")
    await collection.erase("doc")
    assert (await collection.append("doc", [Chunk("two")], idempotency_key="k")).number == 1


# --- waiting --------------------------------------------------------------------------------------


async def test_waiting_ends_when_this_or_a_later_version_is_active(
    store: ChunkStore, collection: Collection
) -> None:
    first = await append(collection, "doc", "one")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collection.wait_until_active, first)
        await append(collection, "doc", "two")
        await drain(store)


async def test_waiting_without_a_consumer_times_out(collection: Collection) -> None:
    version = await append(collection, "doc", "one")
    with pytest.raises(WaitTimeout, match="version 1 of 'doc'"):
        await collection.wait_until_active(version, timeout=0.02)


@pytest.mark.parametrize("fate", ["erased", "rolled back"])
async def test_waiting_for_what_can_never_be_active_is_an_error(collection: Collection, fate: str) -> None:
    await append(collection, "doc", "one")
    version = await append(collection, "doc", "two")

    async def decide() -> None:
        await (collection.erase("doc") if fate == "erased" else collection.rollback("doc", 1))

    with pytest.RaisesGroup(NeverActive):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collection.wait_until_active, version)
            tasks.start_soon(decide)


async def test_waiting_for_a_version_that_was_collected_is_an_error(
    store: ChunkStore, collection: Collection
) -> None:
    first = await append(collection, "doc", "one")
    for content in ("two", "three", "four"):
        await append(collection, "doc", content)
    await collect(store)
    with pytest.raises(NeverActive, match="collected"):
        await collection.wait_until_active(first)


# --- what the database refuses --------------------------------------------------------------------

REFUSED = [
    "UPDATE events SET n = n",
    "DELETE FROM events",
    "TRUNCATE events",
    "UPDATE chunks SET content = 'other'",
    "TRUNCATE chunks",
    "UPDATE embeddings SET model = model",
    "TRUNCATE embeddings",
    "UPDATE segments SET chunks = '{}'",
    "TRUNCATE segments",
    "INSERT INTO embeddings SELECT * FROM embeddings ON CONFLICT (chunk_id, model) DO UPDATE SET model = 1",
    "MERGE INTO events e USING chunks c ON true WHEN MATCHED THEN DELETE",
]


async def test_what_is_committed_never_changes_for_the_owner_either(
    store: ChunkStore, collection: Collection
) -> None:
    await append(collection, "doc", "one")
    await drain(store)
    async with store.database.connection() as owner:
        for role in ("origin", "replica"):
            await owner.execute(f"SET session_replication_role = {role}".encode())
            for statement in REFUSED:
                with pytest.raises(psycopg.errors.RestrictViolation, match="never change"):
                    await owner.execute(statement.encode())


async def test_a_second_tombstone_with_other_metadata_is_a_version(collection: Collection) -> None:
    await collection.append("doc", [Chunk("text")])
    first = await collection.delete("doc", metadata={"why": "moved"})
    second = await collection.delete("doc", metadata={"why": "withdrawn"})
    assert (second.number, second.unchanged) == (first.number + 1, False)
    assert (await collection.delete("doc", metadata={"why": "withdrawn"})).unchanged


@pytest.mark.parametrize("act", ["pin", "unpin", "rollback"])
async def test_what_an_act_returns_is_the_version_that_it_was_done_to(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    version = await collection.append("doc", [Chunk("text")])
    read = versions.history

    async def reads_late(conn: Any, *args: Any) -> list[Version]:
        """Somebody erases the file and appends its key again, unless its lock keeps him from it."""
        with anyio.move_on_after(0.3):
            await collection.erase("doc")
            await collection.append("doc", [Chunk("another file's")])
        return await read(conn, *args)

    monkeypatch.setattr(versions, "history", reads_late)
    assert (await getattr(collection, act)("doc", 1)).file == version.file


async def test_a_version_of_another_collection_is_not_waited_for(
    store: ChunkStore, collection: Collection
) -> None:
    other = await store.collection("other", model="hashing:8")
    version = await other.append("doc", [Chunk("text")])
    with pytest.raises(InvalidInput, match="a version of the collection 'docs'"):
        await collection.wait_until_active(version)
