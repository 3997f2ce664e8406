"""Excel workbooks, by openpyxl: a sheet is a page with its name as heading, a row a line of a table."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from io import BytesIO

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.archive import checked
from chunkstore.ingest.formats.installed import not_installed
from chunkstore.ingest.formats.marking import blocks, heading, paged, table

MAX_CELLS = 2_000_000


def read(content: bytes) -> Document:
    """The values of all sheets as they were when last calculated; empty rows are left out."""
    try:
        import openpyxl
    except ImportError as error:
        raise not_installed("Excel workbook", "openpyxl") from error
    checked(content, "xl/workbook.xml")
    book = openpyxl.load_workbook(BytesIO(content), read_only=True, data_only=True, keep_links=False)
    sheets: list[str] = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()
        sheets.append(_sheet(sheet.title, list(_filled_rows(sheet.values))))
    if not any(sheets):
        raise UnreadableFile("no text: all sheets are empty")
    text, pages = paged(sheets)
    return Document(text, "markdown", pages=pages)


def _sheet(title: str, rows: Sequence[Sequence[str]]) -> str:
    return blocks([heading(title, 2), table(rows)]) if rows else ""


def _filled_rows(rows: Iterator[Sequence[object]]) -> Iterator[list[str]]:
    cells = 0
    for row in rows:
        written = [_written(value) for value in row]
        if any(written):
            cells += len(written)
            if cells > MAX_CELLS:
                raise UnreadableFile(f"a sheet of more than {MAX_CELLS:,} cells")
            yield written


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
