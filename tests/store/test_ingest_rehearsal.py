"""A rehearsal says what an ingestion would do, and writes nothing."""

from pathlib import Path

import pytest
from psycopg import sql

from chunkstore.collection import Collection
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.pipeline import IngestReport, Progress, ingest
from chunkstore.ingest.rehearsal import rehearse
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from tests.store.fix_formats import age
from tests.store.fix_store import collection, store

__all__ = ["collection", "store"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of each kind: what it is after an ingestion and `edited`, its name says."""
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("unchanged", "touched", "updated", "gone", "breaks", "same_chunks", "by_hand"):
        (folder / f"{name}.md").write_text(f"# {name}\n\nA text.\n")
    age(*folder.iterdir())
    return folder


def edit(folder: Path) -> None:
    age(folder / "touched.md", seconds=-10)
    (folder / "updated.md").write_text("# updated\n\nAnother text.\n")
    (folder / "gone.md").unlink()
    (folder / "breaks.md").write_bytes(b"\0\1\2\3")
    (folder / "same_chunks.md").write_text("# same_chunks\n\nA text.\n\n\n")
    (folder / "added.md").write_text("# added\n")
    (folder / "long.txt").write_text("A sentence that is one of many. " * 60_000)


async def row_counts(store: ChunkStore) -> dict[str, int]:
    counts: dict[str, int] = {}
    async with store.database.transaction() as conn:
        tables = await conn.execute(
            "SELECT relname FROM pg_class"
            " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        for (table,) in await tables.fetchall():
            query = sql.SQL("SELECT count(*), coalesce(sum(hashtext(t::text)::bigint), 0) FROM {} t")
            found = await (await conn.execute(query.format(sql.Identifier(table)))).fetchone()
            counts[table] = found  # type: ignore[assignment]
    return counts


def numbers(report: IngestReport) -> tuple[int, ...]:
    return report.added, report.updated, report.unchanged, report.deleted, len(report.failed)


async def test_a_rehearsal_says_what_the_ingestion_then_does_and_writes_nothing(
    collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    await collection.append("f/by_hand.md", [Chunk("by hand")])
    edit(folder)
    before = await row_counts(collection.store)
    told: list[Progress] = []
    rehearsed = await rehearse(collection, [folder, "nowhere"], prune=True, on_progress=told.append)
    assert await row_counts(collection.store) == before
    assert len(before) > 15
    assert {Path(progress.key).stem: progress.outcome for progress in told} == {
        "unchanged": "unchanged",
        "touched": "unchanged",
        "same_chunks": "unchanged",
        "updated": "updated",
        "by_hand": "updated",
        "added": "added",
        "long": "added",
        "gone": "deleted",
        "breaks": "failed",
    }
    assert [progress.done for progress in told] == list(range(1, 10))
    report = await ingest(collection, [folder, "nowhere"], prune=True)
    assert numbers(report) == numbers(rehearsed)
    assert report.failed == rehearsed.failed


async def test_files_without_any_text_are_counted_as_the_ingestion_counts_them(
    collection: Collection, folder: Path
) -> None:
    (folder / "blank.md").write_text(" \n")
    (folder / "touched_blank.md").write_text("")
    age(folder / "blank.md", folder / "touched_blank.md")
    assert (await rehearse(None, [folder])).without_text == 2
    assert (await rehearse(collection, [folder])).without_text == 2
    await ingest(collection, [folder])
    age(folder / "touched_blank.md", seconds=-10)
    assert (await rehearse(collection, [folder])).without_text == 2
    smaller = Chunker(20)
    assert (await rehearse(collection, [folder], chunker=smaller)).without_text == 2
    assert (await rehearse(collection, [folder], chunker=smaller, rechunk=True)).without_text == 2
    assert (await ingest(collection, [folder], chunker=smaller)).without_text == 2


async def test_without_a_collection_every_file_would_be_added(folder: Path, store: ChunkStore) -> None:
    before = await row_counts(store)
    edit(folder)
    assert numbers(await rehearse(None, [folder], prune=True)) == (7, 0, 0, 0, 1)
    assert await row_counts(store) == before


async def test_without_prune_nothing_would_be_deleted(collection: Collection, folder: Path) -> None:
    await ingest(collection, [folder])
    edit(folder)
    assert (await rehearse(collection, [folder])).deleted == 0
