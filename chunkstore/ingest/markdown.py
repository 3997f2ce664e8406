"""Finds the sections of a Markdown text: where each begins, under which headings, and what is code in it."""

import re
from collections.abc import Iterator

from chunkstore.ingest.sections import Block, Heading, Section, sections_of

_MARKS = re.compile(
    r"^(?:(?:(?P<item>[ \t]*+(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]++)++)| {0,3})"
    r"(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*+)"
    r"| {0,3}(?:(?P<hashes>\#{1,6})(?P<title>[ \t][^\n]*+|)[\r]?$"
    r"|(?P<text>[^\s>|#`~*+\-=<][^\n]*+)\n {0,3}(?P<line>=++|-{2,}+)[ \t\r]*+$))",
    re.MULTILINE,
)


def sections(text: str) -> Iterator[Section]:
    """The sections in order; together they cover the text."""
    return sections_of(text, _marks(text))


def _marks(text: str) -> Iterator[Heading | Block]:
    """Headings and fenced code blocks in order; what looks like either inside a fence is neither.

    A code block that a list item begins with is part of the item, and is cut as that is.
    """
    opened: re.Match[str] | None = None
    for found in _MARKS.finditer(text):
        if opened is not None and _closes(found, opened["fence"]):
            if not opened["item"]:
                yield Block(opened.start(), found.end(), fenced=True)
            opened = None
        elif opened is not None and not _leaves(found, opened["item"]):
            continue
        elif found["fence"]:
            opened = None if found["fence"][0] == "`" and "`" in found["info"] else found
        elif found["hashes"] is not None:
            yield Heading(found.start(), found.end(), len(found["hashes"]), _title(found["title"]))
        elif _stands_alone(text, found.start()):
            level = 1 if found["line"].startswith("=") else 2
            yield Heading(found.start(), found.end(), level, _title(found["text"]))
    if opened is not None and not opened["item"]:
        yield Block(opened.start(), len(text), fenced=True)


def _closes(found: re.Match[str], fence: str) -> bool:
    closing: str | None = found["fence"]
    return bool(closing) and closing.startswith(fence) and not found["info"].strip() and not found["item"]


def _leaves(found: re.Match[str], item: str | None) -> bool:
    """True where a list item is over, and with it the code block that it begins with."""
    line = found[0]
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return item is not None and len(indent.expandtabs(4)) < len(item.expandtabs(4))


def _stands_alone(text: str, start: int) -> bool:
    """True at the first line of a paragraph: an underlined last line of a longer one is no heading here."""
    before = text.rfind("\n", 0, max(start - 1, 0)) + 1
    return not text[before:start].strip()


def _title(marked: str) -> str:
    title = marked.strip()
    bare = title.rstrip("#")
    if not bare or bare[-1].isspace():
        title = bare.rstrip()
    return title
