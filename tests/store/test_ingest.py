"""Ingestion of real files into a real store: what becomes of each file, and what is reported."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from chunkstore.collection import Collection
from chunkstore.errors import DatabaseError, InvalidInput
from chunkstore.ingest import frames
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document
from chunkstore.ingest.parsers import parse
from chunkstore.ingest.pipeline import IngestReport, Progress, ingest
from chunkstore.ingest.rehearsal import rehearse
from chunkstore.model import Chunk
from tests.store.fix_store import collection, store

__all__ = ["collection", "store"]

TEXTS = Path(__file__).parents[2] / "examples" / "texts"
WAL = "texts/sqlite-write-ahead-log.md"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder `texts` with three of the example texts."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("sqlite-write-ahead-log.md", "us-declaration-of-independence.txt", "zlib-zpipe.c"):
        shutil.copy(TEXTS / name, folder)
    return folder


def numbers(report: IngestReport) -> tuple[int, int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.deleted, len(report.failed)


async def live(collection: Collection) -> list[str]:
    return sorted([key async for key in collection.keys()])  # noqa: SIM118


async def latest(collection: Collection, key: str) -> list[Chunk]:
    return [Chunk(stored.content, stored.metadata, stored.place) async for stored in collection.chunks(key)]


# --- versions -----------------------------------------------------------------------------------


async def test_every_file_becomes_a_version_of_its_chunks(collection: Collection, texts: Path) -> None:
    report = await ingest(collection, [texts])
    assert numbers(report) == (3, 0, 0, 0, 0)
    assert report.embedded is None
    total = 0
    for key in await live(collection):
        document = parse(texts.parent / key)
        chunks = await latest(collection, key)
        assert chunks == list(Chunker()(document))
        total += len(chunks)
    assert (report.chunks_added, report.chunks_reused) == (total, 0)


async def test_headings_and_language_come_with_the_chunks(collection: Collection, texts: Path) -> None:
    await ingest(collection, [texts])
    markdown = await latest(collection, WAL)
    assert ["Write-Ahead Logging", "2. How WAL Works", "2.1. Checkpointing"] in [
        chunk.metadata["headings"] for chunk in markdown
    ]
    assert {chunk.metadata["language"] for chunk in await latest(collection, "texts/zlib-zpipe.c")} == {"c"}


async def test_files_that_have_not_changed_make_no_version(collection: Collection, texts: Path) -> None:
    first = await ingest(collection, [texts])
    again = await ingest(collection, [texts])
    assert numbers(again) == (0, 0, 3, 0, 0)
    assert (again.chunks_added, again.chunks_reused) == (0, first.chunks_added)
    assert len(await collection.history(WAL)) == 1


async def test_a_sentence_put_in_a_file_adds_a_few_chunks_and_reuses_the_others(
    collection: Collection, texts: Path
) -> None:
    await ingest(collection, [texts])
    before = len(await latest(collection, WAL))
    path = texts.parent / WAL
    path.write_text(path.read_text().replace("\n\n", "\n\nA sentence that was not here before. ", 4))
    report = await ingest(collection, [texts])
    assert numbers(report) == (0, 1, 2, 0, 0)
    assert 1 <= report.chunks_added <= 8
    assert report.chunks_reused >= before - 8
    assert [version.number for version in await collection.history(WAL)] == [1, 2]


async def test_an_empty_file_is_a_version_without_chunks_and_counted(
    collection: Collection, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "empty.md").touch()
    (tmp_path / "d" / "full.md").write_text("A sentence.")
    report = await ingest(collection, [tmp_path / "d"])
    assert (numbers(report), report.without_text) == ((2, 0, 0, 0, 0), 1)
    assert await latest(collection, "d/empty.md") == []
    assert (await ingest(collection, [tmp_path / "d"])).without_text == 1


async def test_a_file_that_comes_back_is_added_again(collection: Collection, texts: Path) -> None:
    await ingest(collection, [texts])
    await collection.delete(WAL)
    assert WAL not in await live(collection)
    assert numbers(await ingest(collection, [texts])) == (1, 0, 2, 0, 0)
    assert WAL in await live(collection)


async def test_a_file_of_more_chunks_than_are_cut_at_once_is_whole(
    collection: Collection, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    text = "".join(f"Sentence number {i} says something else than the others. " for i in range(3_000))
    (tmp_path / "d" / "long.txt").write_text(text)
    report = await ingest(collection, [tmp_path / "d"], chunker=Chunker(20))
    assert report.chunks_added > 2 * frames.FRAME_CHUNKS
    assert await latest(collection, "d/long.txt") == list(Chunker(20)(Document(text)))


async def test_a_chunker_of_ones_own_may_return_a_list(collection: Collection, tmp_path: Path) -> None:
    def lines(document: Document) -> list[Chunk]:
        return [Chunk(line) for line in document.text.splitlines()]

    (tmp_path / "d").mkdir()
    contents = [f"line {i}" for i in range(frames.FRAME_CHUNKS * 2)]
    (tmp_path / "d" / "lines.txt").write_text("\n".join(contents))
    await ingest(collection, [tmp_path / "d"], chunker=lines)
    assert [chunk.content for chunk in await latest(collection, "d/lines.txt")] == contents


# --- what cannot be read ------------------------------------------------------------------------


async def test_a_file_that_cannot_be_read_is_reported_and_the_others_go_on(
    collection: Collection, texts: Path
) -> None:
    (texts / "broken.md").write_bytes(b"words\0words")
    long = texts.joinpath(*["n" * 200] * 6)
    long.mkdir(parents=True)
    (long / "x.md").write_text("a key of more than 1,024 bytes")
    os.close(os.open(os.fsencode(texts) + b"/\xff.md", os.O_CREAT))
    report = await ingest(collection, [texts, "nowhere"])
    assert numbers(report) == (3, 0, 0, 0, 4)
    reasons = {Path(path).name: reason for path, reason in report.failed}
    assert "NUL" in reasons["broken.md"]
    assert "1024 UTF-8 bytes" in reasons["x.md"]
    assert "lone surrogates" in reasons["\\xff.md"]
    assert reasons["nowhere"] == "no such file or folder"
    assert [path for path, _ in report.failed] == sorted(path for path, _ in report.failed)
    assert all(path.isprintable() for path, _ in report.failed)


async def test_a_file_that_became_unreadable_keeps_its_version_even_with_prune(
    collection: Collection, texts: Path
) -> None:
    await ingest(collection, [texts])
    (texts.parent / WAL).write_bytes(b"\0")
    report = await ingest(collection, [texts], prune=True)
    assert numbers(report) == (0, 0, 2, 0, 1)
    assert WAL in await live(collection)


async def test_a_file_that_became_a_picture_is_reported_and_keeps_its_version(
    collection: Collection, tmp_path: Path
) -> None:
    """Its name promises nothing, so that a picture of that name is otherwise left out without a word."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "drawing").write_text("words")
    await ingest(collection, [folder])
    for name in ("drawing", "other"):
        (folder / name).write_bytes(b"\x89PNG\r\n" + bytes(90))
    rehearsed = await rehearse(collection, [folder])
    report = await ingest(collection, [folder], prune=True)
    assert rehearsed.failed == report.failed
    assert [reason for _, reason in report.failed] == ["a PNG image, which is not read here"]
    assert report.left_out == rehearsed.left_out == {"not text": 1}
    assert await live(collection) == ["f/drawing"]


async def test_two_files_with_one_key_are_refused_and_nothing_is_written(
    collection: Collection, texts: Path, tmp_path: Path
) -> None:
    shutil.copytree(texts, tmp_path / "other" / "texts")
    with pytest.raises(InvalidInput, match="rename one folder"):
        await ingest(collection, [texts, tmp_path / "other" / "texts"])
    assert await live(collection) == []


async def test_a_chunker_that_fails_over_a_file_is_that_files_failure(
    collection: Collection, texts: Path
) -> None:
    def breaks_over_code(document: Document) -> Iterator[Chunk]:
        if document.language == "c":
            raise ZeroDivisionError("no such luck")
        yield Chunk(document.text)

    report = await ingest(collection, [texts], chunker=breaks_over_code)
    assert numbers(report) == (2, 0, 0, 0, 1)
    assert report.failed[0][1] == "the chunker failed: ZeroDivisionError: no such luck"


async def test_an_error_that_is_not_one_files_ends_the_ingestion_as_itself(
    collection: Collection, texts: Path
) -> None:
    await collection.store.database.close()
    with pytest.raises(DatabaseError):
        await ingest(collection, [texts])


# --- prune --------------------------------------------------------------------------------------


async def test_without_prune_nothing_is_deleted(collection: Collection, texts: Path) -> None:
    await ingest(collection, [texts])
    (texts.parent / WAL).unlink()
    assert numbers(await ingest(collection, [texts])) == (0, 0, 2, 0, 0)
    assert WAL in await live(collection)


async def test_prune_deletes_what_has_gone_from_the_folders_given_and_nothing_else(
    collection: Collection, texts: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("a note")
    await ingest(collection, [texts, tmp_path / "notes"])
    await collection.append("made by hand", [Chunk("text")])
    (texts.parent / WAL).unlink()
    (tmp_path / "notes" / "a.md").unlink()
    report = await ingest(collection, [texts], prune=True)
    assert numbers(report) == (0, 0, 2, 1, 0)
    assert await live(collection) == [
        "made by hand",
        "notes/a.md",
        "texts/us-declaration-of-independence.txt",
        "texts/zlib-zpipe.c",
    ]
    assert [version.tombstone for version in await collection.history(WAL)] == [False, True]


async def test_prune_of_a_folder_that_is_missing_deletes_nothing(collection: Collection, texts: Path) -> None:
    await ingest(collection, [texts])
    shutil.rmtree(texts)
    report = await ingest(collection, [texts, f"{texts}/*.md"], prune=True)
    assert numbers(report) == (0, 0, 0, 0, 2)
    assert len(await live(collection)) == 3


@pytest.mark.parametrize("answer", [True, False])
async def test_before_a_prune_the_keys_are_shown_and_a_refusal_deletes_none(
    collection: Collection, texts: Path, answer: bool
) -> None:
    await ingest(collection, [texts])
    (texts.parent / WAL).unlink()
    (texts / "zlib-zpipe.c").unlink()
    shown: list[Sequence[str]] = []

    async def confirm(keys: Sequence[str]) -> bool:
        shown.append(keys)
        assert WAL in await live(collection)
        return answer

    report = await ingest(collection, [texts], prune=True, confirm_prune=confirm)
    assert shown == [[WAL, "texts/zlib-zpipe.c"]]
    assert report.deleted == (2 if answer else 0)
    assert (WAL in await live(collection)) is not answer


async def test_a_prune_that_finds_nothing_asks_nothing(collection: Collection, texts: Path) -> None:
    async def confirm(keys: Sequence[str]) -> bool:
        raise AssertionError(keys)

    await ingest(collection, [texts], prune=True, confirm_prune=confirm)


# --- progress -----------------------------------------------------------------------------------


async def test_progress_tells_every_file_once_and_how_many_there_are(
    collection: Collection, texts: Path
) -> None:
    await ingest(collection, [texts])
    (texts / "zlib-zpipe.c").unlink()
    (texts / "new.md").write_text("new")
    (texts / "broken.md").write_bytes(b"\0")
    told: list[Progress] = []
    await ingest(collection, [texts], prune=True, on_progress=told.append)
    assert [progress.done for progress in told] == [1, 2, 3, 4, 5]
    assert [progress.total for progress in told] == [4, 4, 4, 4, 5]
    assert {progress.key: progress.outcome for progress in told} == {
        WAL: "unchanged",
        "texts/us-declaration-of-independence.txt": "unchanged",
        "texts/new.md": "added",
        "texts/broken.md": "failed",
        "texts/zlib-zpipe.c": "deleted",
    }
