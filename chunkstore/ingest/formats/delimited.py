"""CSV and its kin: a Markdown table, a row a line, the first row as its head."""

import csv
import re
from collections.abc import Iterator
from io import StringIO
from typing import Literal

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.marking import table

_DELIMITERS = ",;\t|"
_TELLING_LINES = 50
_TOLD = re.compile(r"sep=([^\r\n])\r?\n")
"""What some programs put before the first row."""
_QUOTED = re.compile(r'"[^"\n]*"')
_DECIMAL = re.compile(r"(?<=\d),(?=\d)")
_FIELD_LIMIT = 8 * 1024 * 1024
_OPEN_QUOTE = "unexpected end of data"


def read(content: bytes) -> Document:
    """The rows that are not empty. Raises UnreadableFile where a quote is never closed."""
    text = decoded(content)
    told = _TOLD.match(text)
    delimiter = told[1] if told else _delimiter(text)
    try:
        rows = list(_rows(text, delimiter, csv.QUOTE_MINIMAL))
    except UnreadableFile:
        if delimiter != "\t":
            raise
        rows = list(_rows(text, delimiter, csv.QUOTE_NONE))
    written = table(rows[1:] if told else rows)
    return Document(written + "\n" if written else "", "markdown")


def _delimiter(text: str) -> str:
    """The one that stands in most of the first lines; among equals a tab, then the one most often there.

    What is quoted does not count; a comma between digits may be a decimal one, and counts for its line alone.
    """
    lines = [_QUOTED.sub('""', line) for line in text[: 64 * 1024].splitlines()[:_TELLING_LINES]]
    undecimal = [_DECIMAL.sub("", line) for line in lines]

    def likeliness(mark: str) -> tuple[int, bool, int]:
        found = sum(mark in line for line in lines)
        return found, mark == "\t" and found > 0, sum(line.count(mark) for line in undecimal)

    return max(_DELIMITERS, key=likeliness)


def _rows(text: str, delimiter: str, quoting: Literal[0, 3]) -> Iterator[list[str]]:
    limit = csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    begun = 1
    try:
        for row in reader:
            begun = reader.line_num + 1
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        reason = "a quote is opened and never closed" if _OPEN_QUOTE in str(error) else str(error)
        raise UnreadableFile(f"not valid CSV: in the row that begins on line {begun:,}: {reason}") from error
    finally:
        csv.field_size_limit(limit)
