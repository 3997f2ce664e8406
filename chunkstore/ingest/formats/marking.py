"""Writes Markdown: what formats with structure are turned into, so that a chunker sees their structure."""

import re
from collections.abc import Iterable, Sequence

_MEANT_OTHERWISE = re.compile(r"^( {0,3})(#{1,6}(?=\s|$)|```+|~~~+|=+[ \t]*$|-{2,}[ \t]*$)", re.MULTILINE)
_BACKTICKS = re.compile(r"`{3,}")


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def heading(text: str, level: int) -> str:
    """The heading; empty for a text that is blank."""
    line = one_line(text)
    return f"{'#' * min(max(level, 1), 6)} {line}" if line else ""


def plain(text: str) -> str:
    """Plain text inside Markdown: what would be a heading or a fence there is escaped."""
    return _MEANT_OTHERWISE.sub(r"\1\\\2", text)


def fenced(code: str, language: str = "") -> str:
    """A code block; its fence is longer than any in the code."""
    longest = max((len(run) for run in _BACKTICKS.findall(code)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.strip(chr(10))}\n{fence}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table, a row a line, the first one as its head; empty columns at the end are left out."""
    written = [_row(row) for row in rows]
    width = max((len(_filled(row)) for row in rows), default=0)
    if not width:
        return ""
    return "\n".join([written[0], "|" + " --- |" * width, *written[1:]])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in _filled(cells)) + " |"


def _filled(cells: Sequence[str]) -> Sequence[str]:
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def paged(pages: Iterable[str]) -> tuple[str, tuple[int, ...]]:
    """The pages as one text, and the offsets at which they begin; an empty one where the next does."""
    text: list[str] = []
    starts: list[int] = []
    length = 0
    for page in pages:
        starts.append(length)
        if page:
            text.append(page + "\n\n")
            length += len(page) + 2
    return "".join(text), tuple(starts)


def blocks(parts: Iterable[str]) -> str:
    """The parts that are not empty, with an empty line between them."""
    return "\n\n".join(part for part in parts if part)
