"""Unchanged files are not read again, and their stamps are believed only while they are true."""

import os
import shutil
from pathlib import Path

import anyio
import pytest

from chunkstore import erase as erasing
from chunkstore.collection import Collection
from chunkstore.ingest import stamps
from chunkstore.ingest.changes import Checks
from chunkstore.ingest.pipeline import IngestReport, ingest
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from projections.verify import verify
from tests.store.fix_formats import Counted, age, reads
from tests.store.fix_models import FailingModel
from tests.store.fix_store import collection, store

__all__ = ["collection", "reads", "store"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files that were written a minute ago."""
    folder = tmp_path / "f"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.odd").write_text(f"text {name}")
    age(*folder.iterdir())
    return folder


def numbers(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, len(report.failed)


async def versions(collection: Collection, key: str = "f/a.odd") -> list[int]:
    return [version.number for version in await collection.history(key)]


async def stamped(collection: Collection) -> int:
    async with collection.store.database.transaction() as conn:
        (count,) = await (await conn.execute("SELECT count(*) FROM sources")).fetchone() or (0,)
        return count


# --- what is not read ---------------------------------------------------------------------------


async def test_files_that_have_not_changed_are_not_read(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    first = await ingest(collection, [folder])
    assert (numbers(first), reads()) == ((3, 0, 0, 0), 3)
    again = await ingest(collection, [folder], checks=Checks(hash=False))
    assert (numbers(again), reads()) == ((0, 0, 3, 0), 3)
    assert (again.chunks_added, again.chunks_reused) == (0, 3)


async def test_only_the_file_that_changed_is_read(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    (folder / "a.odd").write_text("another text")
    assert numbers(await ingest(collection, [folder])) == (0, 1, 2, 0)
    assert reads() == 4


async def test_a_file_that_was_only_touched_is_not_parsed_and_makes_no_version(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    age(folder / "a.odd", seconds=-30)
    assert numbers(await ingest(collection, [folder])) == (0, 0, 3, 0)
    assert reads() == 3
    assert await versions(collection) == [1]
    # Its new time was kept: now that alone is enough.
    assert numbers(await ingest(collection, [folder], checks=Checks(hash=False))) == (0, 0, 3, 0)
    assert reads() == 3


async def test_the_time_of_a_file_that_was_just_written_is_not_believed(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    path = folder / "a.odd"
    path.write_text("one text")
    await ingest(collection, [folder])
    state = path.stat()
    path.write_text("two text")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # a clock of coarse ticks does no other
    assert numbers(await ingest(collection, [folder])) == (0, 1, 2, 0)


async def test_a_change_that_kept_size_and_time_is_seen_by_the_hash_alone(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    path = folder / "a.odd"
    state = path.stat()
    path.write_text("TEXT a")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert numbers(await ingest(collection, [folder])) == (0, 0, 3, 0)
    assert numbers(await ingest(collection, [folder], checks=Checks(mtime=False))) == (0, 1, 2, 0)


async def test_without_any_check_every_file_is_read(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    assert numbers(await ingest(collection, [folder], checks=Checks.named("none"))) == (0, 0, 3, 0)
    assert reads() == 6


async def test_an_empty_file_has_a_stamp_too(collection: Collection, folder: Path, reads: Counted) -> None:
    (folder / "a.odd").write_text("")
    age(folder / "a.odd")
    await ingest(collection, [folder])
    assert numbers(await ingest(collection, [folder])) == (0, 0, 3, 0)
    assert reads() == 2


# --- when a stamp is not valid ------------------------------------------------------------------


async def test_a_file_that_somebody_appended_otherwise_is_read_again(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    await collection.append("f/a.odd", [Chunk("by hand")])
    assert numbers(await ingest(collection, [folder])) == (0, 1, 2, 0)
    assert await versions(collection) == [1, 2, 3]


async def test_a_file_that_was_rolled_back_is_read_again(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    (folder / "a.odd").write_text("second text")
    age(folder / "a.odd")
    await ingest(collection, [folder])
    await collection.rollback("f/a.odd", 1)
    assert numbers(await ingest(collection, [folder])) == (0, 1, 2, 0)
    assert await versions(collection) == [1, 2, 3]


async def test_a_file_that_was_deleted_or_erased_comes_back(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    await collection.delete("f/a.odd")
    await collection.erase("f/b.odd")
    assert numbers(await ingest(collection, [folder])) == (2, 0, 1, 0)
    keys = [key async for key in collection.keys()]  # noqa: SIM118
    assert sorted(keys) == ["f/a.odd", "f/b.odd", "f/c.odd"]


async def test_collections_have_stamps_of_their_own(
    store: ChunkStore, collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    other = await store.collection("other", model="hashing:8")
    assert numbers(await ingest(other, [folder])) == (3, 0, 0, 0)


# --- dead letters (rule 8) ----------------------------------------------------------------------


async def test_an_unchanged_file_with_a_dead_letter_is_logged_again_and_not_read(
    store: ChunkStore, folder: Path, reads: Counted
) -> None:
    model = FailingModel()
    collection = await store.collection("failing", model=model)
    await ingest(collection, [folder])
    await EmbeddingConsumer(store, model).run(drain=True)
    assert len(await collection.dead_letters()) == 3
    model.fails = False
    await collection.discard((await collection.dead_letters())[0].chunk_id)
    report = await ingest(collection, [folder])
    assert (numbers(report), reads()) == ((0, 0, 3, 0), 3)
    await EmbeddingConsumer(store, model).run(drain=True)
    await Projector(store, model.name).run(drain=True)
    assert [letter.state for letter in await collection.dead_letters()] == ["discarded"]
    assert len(await collection.search("text", k=9)) == 2
    assert (await verify(store)).ok


async def test_an_unchanged_file_that_waits_for_its_embeddings_is_not_logged_again(
    store: ChunkStore, collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    before = await logged(store)
    await ingest(collection, [folder])
    assert await logged(store) == before


async def test_a_file_that_was_appended_meanwhile_is_not_logged_by_its_old_stamp(
    collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    stamp = (await stamps.known(collection, ["f/a.odd"]))["f/a.odd"]
    assert await stamps.log_again(collection, stamp)
    await collection.append("f/a.odd", [Chunk("by hand")])
    assert not await stamps.log_again(collection, stamp)
    await collection.rollback("f/a.odd", 1)
    assert not await stamps.log_again(collection, stamp)
    await collection.erase("f/a.odd")
    assert not await stamps.log_again(collection, stamp)


async def logged(store: ChunkStore) -> int:
    async with store.database.transaction() as conn:
        (count,) = await (await conn.execute("SELECT count(*) FROM events")).fetchone() or (0,)
        return count


# --- erasure (rule 20, invariant 11) ------------------------------------------------------------


async def test_an_erasure_takes_the_stamp(collection: Collection, folder: Path) -> None:
    await ingest(collection, [folder])
    assert await stamped(collection) == 3
    await collection.erase("f/a.odd")
    assert await stamped(collection) == 2
    assert (await verify(collection.store)).ok


async def test_a_stamp_that_is_saved_while_its_file_is_erased_is_not_kept(
    collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    kept = list((await stamps.known(collection, ["f/a.odd", "f/b.odd"])).values())
    database = collection.store.database
    async with anyio.create_task_group() as tasks, database.transaction() as conn:
        await erasing.erase(conn, collection.row.collection, "f/a.odd")
        tasks.start_soon(stamps.save, collection, kept)
        await until_somebody_waits(collection)
    assert await stamped(collection) == 2
    assert (await verify(collection.store)).ok


async def until_somebody_waits(collection: Collection) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with anyio.fail_after(30):
        while True:
            async with collection.store.database.transaction() as conn:
                (waiting,) = await (await conn.execute(query)).fetchone() or (0,)
            if waiting:
                return
            await anyio.sleep(0.01)


async def test_the_look_up_of_stamps_goes_by_keys(collection: Collection, folder: Path) -> None:
    await ingest(collection, [folder])
    params = {"collection": collection.row.collection, "keys": ["f/a.odd"]}
    async with collection.store.database.transaction() as conn:
        await conn.execute("SET LOCAL enable_seqscan = off")
        found = await conn.execute(b"EXPLAIN " + stamps.SOURCES.stamps, params)
        plan = "\n".join([row[0] for row in await found.fetchall()])
    assert "files_collection_key_key" in plan
    assert "sources_pkey" in plan
    assert "Seq Scan" not in plan


# --- two at once --------------------------------------------------------------------------------


async def test_two_ingestions_of_one_folder_at_once_both_end(collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(150):
        (folder / f"{i}.txt").write_text(f"text {i}")
    reports: list[IngestReport] = []

    async def one() -> None:
        reports.append(await ingest(collection, [folder]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert [report.failed for report in reports] == [(), ()]
    assert await stamped(collection) == 150
    assert (await verify(collection.store)).ok
    shutil.rmtree(folder)


async def test_a_stamp_of_an_erased_file_is_not_the_next_files_of_its_key(
    collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    kept = list((await stamps.known(collection, ["f/a.odd"])).values())
    await collection.erase("f/a.odd")
    await collection.append("f/a.odd", [Chunk("somebody's text")])
    await stamps.save(collection, kept)
    assert await stamps.known(collection, ["f/a.odd"]) == {}
    assert (await verify(collection.store)).ok
