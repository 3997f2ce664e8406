"""Excel workbooks, by openpyxl: a sheet is a page with its name as heading, a row a line of a table."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.archive import checked, refuse_strict, root
from chunkstore.ingest.formats.installed import not_installed
from chunkstore.ingest.formats.marking import blocks, heading, paged, table

if TYPE_CHECKING:
    from openpyxl import Workbook

_WORKBOOK = "xl/workbook.xml"
_SHEET = re.compile(r"(?:\{[^}]*\})?sheet$")
_ZEROS = re.compile("0{2,}")
MAX_CELLS = 20_000_000


def read(content: bytes) -> Document:
    """The values of all sheets as they were when last calculated; empty rows and columns are left out."""
    if find_spec("openpyxl") is None:
        raise not_installed("Excel workbook", "openpyxl")
    archive = checked(content, _WORKBOOK)
    refuse_strict(archive, _WORKBOOK)
    book = _opened(content)
    named = sum(_SHEET.match(element.tag) is not None for element in root(archive, _WORKBOOK).iter())
    if len(book.sheetnames) < named:
        raise UnreadableFile(f"incomplete: of its {named:,} sheets only {len(book.sheetnames):,} are there")
    sheets: list[str] = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()
        sheets.append(_sheet(sheet.title, list(_filled_rows(sheet.rows))))
    if not any(sheets):
        raise UnreadableFile("no text: all cells are empty; text boxes, charts and pictures are not read")
    text, pages = paged(sheets)
    return Document(text, "markdown", pages=pages)


def _opened(content: bytes) -> "Workbook":
    from openpyxl.reader.excel import ExcelReader

    class Reader(ExcelReader):
        def read_chartsheet(self, sheet: Any, rel: Any) -> None:
            with suppress(
                AttributeError
            ):  # it fails at a chart sheet without a drawing, once that is in the book
                super().read_chartsheet(sheet, rel)

    reader = Reader(BytesIO(content), read_only=True, data_only=True, keep_links=False)
    reader.read()
    return reader.wb


def _sheet(title: str, rows: Sequence[Sequence[str]]) -> str:
    return blocks([heading(title, 2), table(_filled_columns(rows))]) if rows else ""


def _filled_columns(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows without the columns that are empty in all: a lone cell may stand 16,000 to the right."""
    filled = sorted({i for row in rows for i, value in enumerate(row) if value})
    return [[row[i] if i < len(row) else "" for i in filled] for row in rows]


def _filled_rows(rows: Iterable[Sequence[Any]]) -> Iterator[list[str]]:
    cells = 0
    for row in rows:
        cells += len(row)
        if cells > MAX_CELLS:
            raise UnreadableFile(f"a sheet of more than {MAX_CELLS:,} cells, empty ones counted")
        if any(cell.value is not None for cell in row):
            written = [_shown(cell) for cell in row]
            if any(written):
                yield written


def _shown(cell: Any) -> str:
    """The value; a whole number with zeros before it where its format is zeros alone, as of postal codes."""
    written = _written(cell.value)
    if written.isdecimal() and type(cell.value) in {int, float} and _ZEROS.fullmatch(cell.number_format):
        return written.zfill(len(cell.number_format))
    return written


def _written(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | date() | time():
            return value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case _:
            return str(value)
