"""Jupyter notebooks: Markdown cells as they stand, code cells as code blocks; outputs are left out."""

import json

import msgspec

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.json_text import loaded, refused
from chunkstore.ingest.formats.marking import blocks, fenced

Source = str | list[str]


class _Cell(msgspec.Struct):
    cell_type: str
    source: Source | None = None
    input: Source | None = None
    """Where format 3 keeps the source of code."""
    level: str = "1"
    """Of a heading cell of format 3."""


class _Worksheet(msgspec.Struct):
    cells: list[_Cell] = msgspec.field(default_factory=list[_Cell])


class _Language(msgspec.Struct):
    name: str | None = None


class _Kernel(msgspec.Struct):
    language: str | None = None


class _Metadata(msgspec.Struct):
    language_info: _Language = msgspec.field(default_factory=_Language)
    kernelspec: _Kernel = msgspec.field(default_factory=_Kernel)


class _Notebook(msgspec.Struct):
    nbformat: str
    cells: list[_Cell] = msgspec.field(default_factory=list[_Cell])
    worksheets: list[_Worksheet] = msgspec.field(default_factory=list[_Worksheet])
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


def read(content: bytes) -> Document:
    """The cells in order. Raises UnreadableFile where the file is no notebook of format 3 or 4."""
    try:
        book = msgspec.convert(loaded(decoded(content)), _Notebook)
    except json.JSONDecodeError as error:
        raise refused(error) from error
    except msgspec.ValidationError as error:
        raise UnreadableFile(f"not a notebook: {error}") from error
    language = book.metadata.language_info.name or book.metadata.kernelspec.language or ""
    cells = book.cells or [cell for sheet in book.worksheets for cell in sheet.cells]
    text = blocks(_written(cell, language) for cell in cells)
    if not text:
        raise UnreadableFile("no text: all cells are empty")
    return Document(text + "\n", "markdown", language or None)


class _Marks(msgspec.Struct):
    nbformat: int
    cells: list[msgspec.Raw] | None = None
    worksheets: list[msgspec.Raw] | None = None


def is_notebook(content: bytes) -> bool:
    """False for JSON that speaks of notebooks somewhere and is none itself."""
    try:
        marks = msgspec.json.decode(content, type=_Marks)
    except (msgspec.DecodeError, RecursionError):
        return False
    return marks.cells is not None or marks.worksheets is not None


def _written(cell: _Cell, language: str) -> str:
    source = _joined(cell.source) or _joined(cell.input)
    if not source.strip():
        return ""
    match cell.cell_type:
        case "code":
            return fenced(source, language)
        case "heading":
            return f"{'#' * int(cell.level)} {source}" if cell.level in {*"123456"} else source
        case _:
            return source


def _joined(source: Source | None) -> str:
    return source if isinstance(source, str) else "".join(source or ())
