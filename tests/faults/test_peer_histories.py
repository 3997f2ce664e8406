"""Histories that other systems of this kind went through and lost data in, each named for where it was seen.

Here none of them loses, mixes or raises anything, and no search sees anything of it: see `searched`.
"""

from collections.abc import AsyncIterator

import anyio
import numpy as np
import pytest
from anyio import to_thread
from psycopg.pq import TransactionStatus

from chunkstore import log
from chunkstore.collection import Collection
from chunkstore.errors import ChunkstoreError, Conflict
from chunkstore.events import Pinned
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import until, value, values
from tests.faults.fix_searched import EMBEDDED
from tests.faults.models import MODEL, Held
from tests.faults.searching import Checker
from tests.faults.stamped import CHUNKS, sealed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("searched")]

WAITS_FOR_A_LOCK = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


async def drain(store: ChunkStore) -> None:
    """Embeds and projects what is left, and verifies every invariant."""
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)
    assert (await verify(store)).broken == []


async def at_work(model: Held) -> None:
    """Returns when the model has a range's texts and has not answered."""
    assert await to_thread.run_sync(model.began.wait, 30), "the model was never asked"


async def contents(files: Collection, key: str) -> list[str]:
    """What searches see of a file, in its order, but for its seal."""
    hits = await files.search(MODEL.embed(["text"])[0], k=2000)
    return [hit.content for hit in sorted(hits, key=lambda hit: hit.ordinal) if hit.key == key][:-1]


def chunks(*texts: str) -> list[Chunk]:
    return sealed(texts)


# --- an event store on Postgres numbered events by a sequence: issues 1629, 2189, 4953, 4964, 4977 -----


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_no_reader_passes_an_event_that_a_slower_transaction_has_still_to_commit(
    store: ChunkStore, files: Collection, ending: str
) -> None:
    """A fast append overtook a slow one; readers went past the gap, and never saw the slow one's event."""
    await files.append("fast", chunks("text at first"))
    await drain(store)
    partition = await value(store, "SELECT partition FROM files WHERE key = 'fast'")
    async with store.database.connection() as slow, anyio.create_task_group() as tasks:
        await slow.execute("BEGIN")
        position = await log.append(slow, partition, [Pinned(file=None, version=None)])
        tasks.start_soon(files.append, "fast", chunks("text that is fast"))
        await until(store, WAITS_FOR_A_LOCK)
        head = f"SELECT max(last_offset) + 1 FROM events WHERE partition = {partition}"
        assert await value(store, head) == position - 1
        await slow.execute(ending)
        assert slow.info.transaction_status is TransactionStatus.IDLE
    async with store.database.transaction() as reader:
        behind = await log.read(reader, partition, position - 1, 10)
    assert [event.first for event in behind] == [position - 1, *(event.last + 1 for event in behind[:-1])]
    assert isinstance(behind[0].event, Pinned) is (ending == "commit")
    await drain(store)
    assert await contents(files, "fast") == ["text that is fast"]


# --- a vectorizer queued jobs for rows that were deleted: pull requests 823, 824 ------------------------


@pytest.mark.parametrize("ending", ["delete", "erase", "replace"])
async def test_a_job_in_flight_leaves_nothing_of_a_file_that_went_meanwhile(
    store: ChunkStore, files: Collection, searched: Checker, ending: str
) -> None:
    """The row was deleted between the queue's read and the embedding's write, which stayed without a row."""
    await files.append("doc", chunks("text of old", "text to keep"))
    held, consumer_stop = Held(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, held).run(stop=consumer_stop))
        await at_work(held)
        if ending != "replace":
            searched.deleted.add("doc")
        if ending == "delete":
            await files.delete("doc")
        elif ending == "erase":
            await files.erase("doc")
        else:
            await files.append("doc", chunks("text to keep", "text of new"))
        held.go.set()
        consumer_stop.set()
    await drain(store)
    await collect(store)
    await drain(store)
    assert await contents(files, "doc") == (["text to keep", "text of new"] if ending == "replace" else [])
    if ending == "erase":
        assert await value(store, "SELECT count(*) FROM embeddings") == 0
        assert await value(store, "SELECT count(*) FROM search_1_1") == 0


# --- another vectorizer left the vectors of every deleted row behind ------------------------------------


async def test_a_deleted_file_leaves_no_orphan_once_it_is_collected(
    store: ChunkStore, files: Collection, searched: Checker
) -> None:
    await value(store, "UPDATE collections SET keep_last = 1 RETURNING 1")
    for number in range(10):
        await files.append(f"{number}", chunks(f"text {number}", "text of all"))
    await drain(store)
    keys = [key async for key in files.keys()]  # noqa: SIM118
    searched.deleted.update(keys)
    for key in keys:
        await files.delete(key)
    await drain(store)
    await collect(store)
    await drain(store)
    for table in ("chunks", "embeddings", "dead_letters", "segments", "search_1_1", "active_1_1"):
        assert await value(store, f"SELECT count(*) FROM {table}") == 0, table


# --- an indexing API kept its records apart from the vectors: issue 39937 -------------------------------


async def test_an_append_that_dies_is_not_taken_for_done_by_the_next(
    store: ChunkStore, files: Collection
) -> None:
    """The record was written and the vectors were not: every later run said 'unchanged'."""
    texts = [f"text {number}" for number in range(50)]
    for died in range(5):
        key = f"doc-{died}"
        async with store.database.connection() as blocker, anyio.create_task_group() as tasks:
            await blocker.execute("BEGIN")
            # The partition's lock is an append's last: everything heavy is written, and nothing committed.
            await blocker.execute("SELECT FROM partitions ORDER BY partition FOR UPDATE")
            errors: list[BaseException] = []

            async def dying(key: str = key, errors: list[BaseException] = errors) -> None:
                try:
                    await files.append(key, chunks(*texts))
                except ChunkstoreError as error:
                    errors.append(error)

            tasks.start_soon(dying)
            await until(store, WAITS_FOR_A_LOCK)
            killed = (
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
            assert await value(store, killed) == 1
            await blocker.execute("ROLLBACK")
        if errors:
            assert await value(store, "SELECT count(*) FROM versions WHERE file > 1") == died
            version = await files.append(key, chunks(*texts))
            assert (version.unchanged, version.added) == (False, len(texts) + 1)
    await drain(store)
    for died in range(5):
        assert await contents(files, f"doc-{died}") == texts


# --- an agent's memory lost 682 of 690 embeddings to foreign keys: issue 4516 ---------------------------


async def test_690_chunks_that_are_uploaded_again_while_they_are_embedded_are_all_found(
    store: ChunkStore, files: Collection
) -> None:
    first = [f"text {number}" for number in range(690)]
    again = [f"text {number}" if number % 2 else f"text {number} anew" for number in range(690)]
    await files.append("doc", chunks(*first))
    held, stop = Held(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: EmbeddingConsumer(store, held, batch=100).run(stop=stop))
        await at_work(held)
        await files.append("doc", chunks(*again))
        held.go.set()
        stop.set()
    await drain(store)
    assert await contents(files, "doc") == again
    assert await value(store, "SELECT count(*) FROM dead_letters") == 0


# --- a stale run overwrote a newer one, or brought back what was deleted: issue 1611 --------------------


@pytest.mark.parametrize("newer", ["append", "delete"])
async def test_a_run_that_began_before_a_newer_one_changes_nothing_when_it_ends(
    store: ChunkStore, files: Collection, searched: Checker, monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 1)
    await files.append("doc", chunks("text at first"))
    is_open, go = anyio.Event(), anyio.Event()

    async def slowly() -> AsyncIterator[Chunk]:
        yield Chunk("text of the stale run")
        yield Chunk("text that makes it open")
        is_open.set()
        await go.wait()
        yield Chunk("text of its end")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(files.append, "doc", slowly())
        await is_open.wait()
        await until(store, "SELECT count(*) = 1 FROM versions WHERE state = 'open'")
        if newer == "append":
            await files.append("doc", chunks("text of the newer run"))
        else:
            searched.deleted.add("doc")
            await files.delete("doc")
        go.set()
    await drain(store)
    assert await contents(files, "doc") == (["text of the newer run"] if newer == "append" else [])


async def test_a_run_that_says_what_it_began_from_is_refused_after_a_newer_one(
    store: ChunkStore, files: Collection
) -> None:
    seen = await files.append("doc", chunks("text at first"))
    newer = await files.append("doc", chunks("text of the newer run"))
    with pytest.raises(Conflict):
        await files.append("doc", chunks("text of the stale run"), expected_version=seen.number)
    assert (await files.history("doc"))[-1].number == newer.number
    await drain(store)
    assert await contents(files, "doc") == ["text of the newer run"]


# --- one run's vectors were stored under the chunk ids of another: issue 103 ----------------------------


async def test_every_vector_is_that_of_its_own_chunk_whoever_embedded_it_and_when(
    store: ChunkStore, files: Collection
) -> None:
    """Two runs shared row numbers; here a vector is written to the exact chunk version alone."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for batch in (1, 7, 64):
            tasks.start_soon(lambda batch=batch: EmbeddingConsumer(store, MODEL, batch=batch).run(stop=stop))
        for run in range(8):
            texts = [f"text {number} of run {run if number % 3 else 0}" for number in range(60)]
            await files.append("doc", chunks(*(texts if run % 2 else reversed(texts))))
            if run == 0:  # later ones overtake each other, and may leave no vector but the last one's
                await until(store, f"SELECT ({EMBEDDED}) = 61")
        stop.set()
    await drain(store)
    stored = "SELECT {} FROM embeddings e JOIN chunks c USING (chunk_id) ORDER BY chunk_id"
    vectors = await values(store, stored.format("e.embedding::real[]"))
    texts = await values(store, stored.format("c.content"))
    assert len(vectors) > CHUNKS + 61
    assert np.allclose(np.array(vectors), MODEL.embed(texts), atol=1e-6)
