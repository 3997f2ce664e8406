"""Files of every format ingested into a store: places cut the text, pages are known, failures are named."""

import shutil
from pathlib import Path

import pytest

from chunkstore.collection import Collection
from chunkstore.ingest.parsers import parse
from chunkstore.ingest.pipeline import ingest
from chunkstore.model import Chunk, Place
from projections.verify import verify
from tests.store.fix_store import collection, store
from tests.unit.formats.fix_files import FILES

__all__ = ["collection", "store"]

REFUSED = {
    "encrypted.docx": "encrypted: a password is needed to read it",
    "encrypted.pdf": "encrypted: a password is needed to read it",
    "images.pdf": "no text: 2 pages of images; OCR is not done here",
    "writer.odt": "an OpenDocument file, which is not read here: save it as .docx, .xlsx or .pptx",
    "lying.md": "a PNG image, which is not read here",
}
LEFT_OUT = {"calc.xls", "picture.png", "writer.doc", "writer.rtf"}
"""Of no format that is read, and under no name that promises one."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `files` with all that programs made, and files with lying names."""
    folder = tmp_path / "files"
    folder.mkdir()
    for path in FILES.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    shutil.copy(FILES / "picture.png", folder / "lying.md")
    shutil.copy(FILES / "writer.pdf", folder / "lying.txt")
    return folder


async def latest(collection: Collection, key: str) -> list[Chunk]:
    return [Chunk(stored.content, stored.metadata, stored.place) async for stored in collection.chunks(key)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def place(chunk: Chunk) -> Place:
    assert chunk.place is not None
    return chunk.place


async def test_every_format_is_ingested_and_every_refusal_is_named(
    collection: Collection, folder: Path
) -> None:
    report = await ingest(collection, [folder])
    assert {Path(path).name: reason for path, reason in report.failed} == REFUSED
    read = names(folder) - set(REFUSED) - LEFT_OUT
    assert {key async for key in collection.keys()} == {f"files/{name}" for name in read}  # noqa: SIM118
    for name in read:
        text = parse(folder / name).text
        chunks = await latest(collection, f"files/{name}")
        assert chunks
        assert [text[place(chunk).start : place(chunk).end] for chunk in chunks] == [
            c.content for c in chunks
        ]
    assert (await verify(collection.store)).ok


async def test_a_chunk_of_a_pdf_says_its_page_and_headings_in_any_script(
    collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder / "lying.txt"])
    chunks = await latest(collection, "files/lying.txt")
    found = {chunk.metadata["headings"][-1]: place(chunk).page for chunk in chunks}
    assert found["الأشجار في المدينة"] == 1
    assert found["树木"] == 2


async def test_nothing_is_parsed_or_embedded_again_for_files_of_any_format(
    collection: Collection, folder: Path
) -> None:
    first = await ingest(collection, [folder])
    again = await ingest(collection, [folder])
    assert (again.added, again.updated, again.unchanged) == (0, 0, first.added)
