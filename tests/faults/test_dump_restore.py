"""A store that is dumped while it lives and restored goes on where the dump was: nothing hidden or repeated.

Offsets are read from the log itself, so nothing of the old cluster (transaction numbers, say) decides what is
seen. What a process holds in memory may not fit the copy: it is told so.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict

from chunkstore import leases
from chunkstore.collection import Collection
from chunkstore.errors import StoreReplaced
from chunkstore.model import Chunk
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import ALL_ACTIVE, TOLD_TWICE, until, value, values
from tests.faults.fix_copies import Copier, MakeDatabase
from tests.faults.fix_processes import Fleet
from tests.faults.models import MODEL, Held
from tests.faults.processes import COLLECTION
from tests.faults.stamped import KEYS, broken, chunks_of

pytestmark = pytest.mark.slow

SCHEMA = "faults"
Door = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

LOG = "SELECT ARRAY[e.partition::text, e::text] FROM events e ORDER BY partition, last_offset"
HELD = """
SELECT count(*)
FROM leases l
LEFT JOIN done d USING (consumer_group, partition, lo)
WHERE l.owner IS NOT NULL AND d.lo IS NULL
"""
ACTIVATED = "SELECT count(*) > {} FROM events WHERE type = 'version_activated'"


async def test_a_dump_of_a_living_store_goes_on_in_a_new_cluster(
    fleet: Fleet, store: ChunkStore, files: Collection, dsn: str, copier: Copier, cluster: str
) -> None:
    for key in KEYS:
        await files.append(key, chunks_of(key, "first"))
    for role in ("upload", "upload-streamed", "consume", "consume-gated", "project", "collect"):
        fleet.start(role)
    await until(store, ACTIVATED.format(25))
    await until(store, HELD)
    await anyio.to_thread.run_sync(copier.dump, dsn, store.database.schema)
    await until(store, f"SELECT count(*) > {await value(store, 'SELECT count(*) FROM events')} FROM events")
    fleet.end()

    await anyio.to_thread.run_sync(copier.restore, cluster)
    async with await ChunkStore.open(cluster, schema=store.database.schema) as copy:
        assert (await verify(copy)).broken == []
        log = await _log(copy)
        assert log == {
            partition: events[: len(log[partition])] for partition, events in (await _log(store)).items()
        }
        assert await value(copy, HELD) > 0

        await _drain(copy)
        copied = await copy.collection(COLLECTION)
        assert await value(copy, ALL_ACTIVE)
        assert broken(await copied.search("upload", k=2000)) == []
        for key in KEYS:
            await copied.append(key, chunks_of(key, "last"))
        await _drain(copy)
        assert broken(await copied.search("upload", k=2000)) == []
        assert await value(copy, TOLD_TWICE) == 0
        assert (await verify(copy)).broken == []


async def _log(store: ChunkStore) -> dict[str, list[str]]:
    log: dict[str, list[str]] = {str(partition): [] for partition in range(16)}
    for partition, event in await values(store, LOG):
        log[partition].append(event)
    return log


async def _drain(store: ChunkStore) -> None:
    with anyio.fail_after(60):
        await EmbeddingConsumer(store, MODEL).run(drain=True)
        await Projector(store, MODEL.name).run(drain=True)


class Swapped:
    """A store in a database of its own, which is put back to where it was when it was dumped."""

    def __init__(self, dsn: str, make: MakeDatabase, copier: Copier) -> None:
        self.dsn = make()
        self._spare = make()
        self._copier = copier
        self._server = dsn

    def dump(self) -> None:
        self._copier.dump(self.dsn, SCHEMA)

    def put_back(self) -> None:
        """What an operator does: the store's address leads to the restored copy afterwards."""
        self._copier.restore(self._spare)
        live, spare = (
            sql.Identifier(str(conninfo_to_dict(dsn)["dbname"])) for dsn in (self.dsn, self._spare)
        )
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(live))
            connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(spare, live))

    async def open(self) -> ChunkStore:
        return await ChunkStore.open(self.dsn, schema=SCHEMA, migrate=True)


@pytest.fixture
def swapped(dsn: str, make_database: MakeDatabase, copier: Copier) -> Swapped:
    return Swapped(dsn, make_database, copier)


async def test_a_vector_of_a_past_that_is_gone_is_not_stored_under_a_chunk_of_the_restored_store(
    swapped: Swapped,
) -> None:
    async with await swapped.open() as store:
        files = await store.collection(COLLECTION, model=MODEL)
        await anyio.to_thread.run_sync(swapped.dump)
        await files.append("doc", [Chunk("written after the dump")])
        (lost,) = await values(store, "SELECT chunk_id FROM chunks")
        model = Held()
        with pytest.raises(ExceptionGroup) as ended:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: EmbeddingConsumer(store, model).run(drain=True))
                await anyio.to_thread.run_sync(model.began.wait)
                await anyio.to_thread.run_sync(swapped.put_back)
                async with await swapped.open() as restored:
                    again = await restored.collection(COLLECTION)
                    await again.append("doc", [Chunk("written after the restore")])
                    assert await values(restored, "SELECT chunk_id FROM chunks") == [lost]
                    async with restored.database.transaction() as conn:
                        assert await leases.claim(conn, "embed:1", batch=10, seconds=60, owner="other")
                    model.go.set()
        assert [type(error) for error in ended.value.exceptions] == [StoreReplaced]
    async with await swapped.open() as restored:
        assert await values(restored, "SELECT chunk_id FROM embeddings") == []
        assert await value(restored, HELD) == 1


async def test_every_door_says_that_the_store_was_replaced_and_opening_it_again_helps(
    swapped: Swapped,
) -> None:
    async with await swapped.open() as store:
        await anyio.to_thread.run_sync(swapped.dump)
        await anyio.to_thread.run_sync(swapped.put_back)
        for door in (store.database.transaction, store.database.snapshot, store.database.connection):

            async def use(door: Door = door) -> None:
                async with door() as conn:
                    await conn.execute("SELECT FROM files")

            with pytest.raises(StoreReplaced, match="'faults' was restored"):
                await persistently(use)
    async with await swapped.open() as store:
        assert await values(store, "SELECT file FROM files") == []
