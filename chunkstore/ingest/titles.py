"""Finds the sections of a plain text whose titles are underlined, as in reStructuredText and in letters."""

import re
from collections.abc import Iterator

from chunkstore.ingest.sections import Heading, Section, sections_of

_LINE = r"(?P<{0}>[=\-~^*+#\"'`.:_])(?P={0}){{2,}}+[ \t\r]*+"
_TITLE = re.compile(
    rf"(?:\A|(?<=\n))(?:{_LINE.format('over')}\n[ \t]*+)?(?P<title>[^\s|][^\n]*+)\n"
    rf"(?P<line>{_LINE.format('under')})(?=\n|\Z)"
)
_COLUMNS = re.compile(r"\S(?:[ ]{3,}|\t)\S")


def titled_sections(text: str) -> Iterator[Section]:
    """The sections in order; together they cover the text. Levels are as the lines first come in it."""
    return sections_of(text, _headings(text))


def _headings(text: str) -> Iterator[Heading]:
    levels: dict[tuple[str, bool], int] = {}
    for found in _TITLE.finditer(text):
        if not _is_title(text, found):
            continue
        style = found["under"], found["over"] is not None
        level = levels.setdefault(style, len(levels) + 1)
        yield Heading(found.start(), found.end(), level, found["title"].strip())


def _is_title(text: str, found: re.Match[str]) -> bool:
    """False for a line of a table or of a longer paragraph, and where the line below is far too short."""
    if found["over"] not in {None, found["under"]}:
        return False
    title = found["title"].strip()
    before = text.rfind("\n", 0, max(found.start() - 1, 0)) + 1
    return (
        not text[before : found.start()].strip()
        and len(found["line"].strip()) >= len(title) * 0.7
        and any(character.isalpha() for character in title)
        and _COLUMNS.search(title) is None
    )
