"""A changed chunker or parser is noticed and said before anything is done about it."""

from pathlib import Path

import msgspec
import pytest

from chunkstore.collection import Collection
from chunkstore.ingest import parsers
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document
from chunkstore.ingest.pipeline import IngestReport, Outdated, ingest
from chunkstore.ingest.rehearsal import rehearse
from chunkstore.model import Chunk
from tests.store.fix_formats import ODD, Counted, age, reads
from tests.store.fix_store import collection, store

__all__ = ["collection", "reads", "store"]

SMALLER = Chunker(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, of which one reads otherwise when it is cut smaller."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "long.odd").write_text("A sentence of seven words stands here. " * 20)
    (folder / "short.odd").write_text("One sentence.")
    (folder / "plain.txt").write_text("Another sentence.")
    age(*folder.iterdir())
    return folder


@pytest.fixture
def changed_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The odd format has a new version."""
    for registry in ("_FORMATS", "_BY_NAME"):
        monkeypatch.setattr(parsers, registry, dict(getattr(parsers, registry)))
    parsers.register(msgspec.structs.replace(ODD, version=2))


def numbers(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.outdated


async def test_after_the_chunker_changed_files_stay_as_they_are_and_are_counted(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    assert numbers(await ingest(collection, [folder], chunker=SMALLER)) == (0, 0, 0, 3)
    assert reads() == 2
    assert len(await collection.history("f/long.odd")) == 1
    assert numbers(await ingest(collection, [folder])) == (0, 0, 3, 0), "the old chunker finds its own"


async def test_a_file_that_changed_itself_goes_in_and_the_others_wait(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    (folder / "short.odd").write_text("One sentence. And another.")
    assert numbers(await ingest(collection, [folder], chunker=SMALLER)) == (0, 1, 0, 2)
    assert reads() == 3


async def test_it_is_said_how_many_files_would_be_chunked_anew_before_one_is(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    said: list[str] = []

    async def agree(outdated: Outdated) -> bool:
        said.append(str(outdated))
        assert reads() == 2
        return True

    report = await ingest(collection, [folder], chunker=SMALLER, confirm_rechunk=agree)
    assert said == ["chunker changed: 3 files would be chunked anew"]
    assert numbers(report) == (0, 1, 2, 0), "two are cut as before"
    assert (await latest(collection, "f/long.odd")) > 5
    assert numbers(await ingest(collection, [folder], chunker=SMALLER)) == (0, 0, 3, 0)


async def test_who_refuses_keeps_the_files_as_they_are(collection: Collection, folder: Path) -> None:
    async def refuse(outdated: Outdated) -> bool:
        return False

    await ingest(collection, [folder])
    assert numbers(await ingest(collection, [folder], chunker=SMALLER, confirm_rechunk=refuse)) == (
        0,
        0,
        0,
        3,
    )


async def test_rechunk_asks_nobody(collection: Collection, folder: Path) -> None:
    async def never(outdated: Outdated) -> bool:
        raise AssertionError(outdated)

    await ingest(collection, [folder])
    report = await ingest(collection, [folder], chunker=SMALLER, rechunk=True, confirm_rechunk=never)
    assert numbers(report) == (0, 1, 2, 0)


async def test_a_changed_parser_is_noticed_for_the_files_that_it_read(
    collection: Collection, folder: Path, reads: Counted, changed_parser: None
) -> None:
    parsers.register(ODD)
    await ingest(collection, [folder])
    parsers.register(msgspec.structs.replace(ODD, version=2))
    said: list[str] = []

    async def agree(outdated: Outdated) -> bool:
        said.append(str(outdated))
        return True

    assert numbers(await ingest(collection, [folder])) == (0, 0, 1, 2)
    assert numbers(await ingest(collection, [folder], confirm_rechunk=agree)) == (0, 0, 3, 0)
    assert said == ["parser changed: 2 files would be chunked anew"]
    assert numbers(await ingest(collection, [folder])) == (0, 0, 3, 0)


def test_both_changes_are_said_apart() -> None:
    assert str(Outdated(by_chunker=1, by_parser=1_312)) == (
        "chunker changed: 1 file would be chunked anew; parser changed: 1,312 files would be chunked anew"
    )


async def test_an_outdated_file_that_was_only_touched_is_outdated_and_not_changed(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    await ingest(collection, [folder])
    age(folder / "short.odd", seconds=-30)
    assert numbers(await ingest(collection, [folder], chunker=SMALLER)) == (0, 0, 0, 3)
    assert reads() == 2


async def test_a_chunker_of_ones_own_is_known_by_its_name(collection: Collection, folder: Path) -> None:
    def whole(document: Document) -> list[Chunk]:
        return [Chunk(document.text)]

    await ingest(collection, [folder])
    assert numbers(await ingest(collection, [folder], chunker=whole)) == (0, 0, 0, 3)
    await ingest(collection, [folder], chunker=whole, rechunk=True)
    assert numbers(await ingest(collection, [folder], chunker=whole)) == (0, 0, 3, 0)


async def test_a_rehearsal_counts_what_would_be_chunked_anew(collection: Collection, folder: Path) -> None:
    await ingest(collection, [folder])
    assert numbers(await rehearse(collection, [folder], chunker=SMALLER)) == (0, 0, 0, 3)


async def latest(collection: Collection, key: str) -> int:
    return len([chunk async for chunk in collection.chunks(key)])
