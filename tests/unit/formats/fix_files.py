"""The files of tests/files, read and refused."""

from pathlib import Path

import pytest

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.parsers import parse

FILES = Path(__file__).parents[2] / "files"


def read(name: str) -> Document:
    """The document of a file that some program made."""
    return parse(FILES / name)


def refused(path: Path) -> str:
    """Why the file is not read."""
    with pytest.raises(UnreadableFile) as caught:
        parse(path)
    return str(caught.value)


def refused_as(folder: Path, name: str, content: bytes) -> str:
    """Why a file of that name and content is not read."""
    path = folder / name
    path.write_bytes(content)
    return refused(path)


def parsed_as(folder: Path, name: str, content: bytes) -> Document:
    """The document of a file of that name and content."""
    path = folder / name
    path.write_bytes(content)
    return parse(path)


def page_of(document: Document, words: str) -> int:
    """The page, from 1, on which the words begin."""
    position = document.text.index(words)
    return sum(start <= position for start in document.pages)
