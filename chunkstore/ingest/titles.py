"""Finds the sections of a plain text whose titles are underlined, as in reStructuredText and in letters."""

import re
from collections.abc import Iterator

from chunkstore.ingest.sections import Heading, Section, sections_of

_LINE = re.compile(r"\n(?P<mark>[=\-~^*+#\"'`.:_])(?P=mark){2,}+[ \t\r]*+(?=\n|\Z)")
_MARKED = re.compile(r":[\w:+.-]+:`([^`]*)`|``([^`]*)``")
"""Markup inside a title of reStructuredText, which says nothing to a model."""
_COLUMNS = re.compile(r"\S(?:[ ]{3,}|\t)\S")


def titled_sections(text: str) -> Iterator[Section]:
    """The sections in order; together they cover the text. Levels are as the lines first come in it."""
    return sections_of(text, _headings(text))


def _headings(text: str) -> Iterator[Heading]:
    levels: dict[tuple[str, bool], int] = {}
    for line in _LINE.finditer(text):
        start = text.rfind("\n", 0, line.start()) + 1
        title = text[start : line.start()].strip()
        if not _is_title(title, line):
            continue
        above = text.rfind("\n", 0, max(start - 1, 0)) + 1
        over = text[above:start].strip()
        if over.strip(line["mark"]):
            continue
        level = levels.setdefault((line["mark"], bool(over)), len(levels) + 1)
        yield Heading(above if over else start, line.end(), level, _MARKED.sub(r"\1\2", title))


def _is_title(title: str, line: re.Match[str]) -> bool:
    """False for the head of a table, for no words, and where the line below is far too short."""
    return (
        any(character.isalpha() for character in title)
        and len(line[0].strip()) >= len(title) * 0.7
        and not title.startswith("|")
        and _COLUMNS.search(title) is None
    )
