"""Finds the sections of a Markdown text: where each begins, under which headings, and what is code in it."""

import re
from collections.abc import Iterator

from chunkstore.ingest.sections import Block, Heading, Section, sections_of

_MARKS = re.compile(
    r"^(?:(?:(?P<item>[ \t]*+(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]++)++)| {0,3})"
    r"(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*+)"
    r"| {0,3}(?:(?P<hashes>\#{1,6})(?P<title>[ \t][^\n]*+|)[\r]?$"
    r"|(?P<html><!--|<(?i:pre|script|style|textarea)(?=[\s>]))"
    r"|(?P<text>(?:[^\s>|#`~*+\-=<]|`{1,2}[^`\n]|\*{1,3}[^\s*])[^\n]*+)"
    r"\n {0,3}(?P<line>=++|-{2,}+)[ \t\r]*+$))",
    re.MULTILINE,
)


def sections(text: str) -> Iterator[Section]:
    """The sections in order; together they cover the text."""
    return sections_of(text, _marks(text))


def _marks(text: str) -> Iterator[Heading | Block]:
    """Headings and fenced code blocks in order; inside a fence or a comment nothing is either.

    A code block that a list item begins with is part of the item, and is cut as that is.
    """
    opened: re.Match[str] | None = None
    past_html = 0
    last: dict[str, int] = {}
    for found in _MARKS.finditer(text):
        if found.start() < past_html:
            continue
        if opened is not None and _closes(found, opened["fence"]):
            if not opened["item"]:
                yield Block(opened.start(), found.end(), fenced=True)
            opened = None
        elif opened is not None and not _leaves(found, opened["item"]):
            continue
        elif found["html"]:
            past_html = _html_end(text, found, last)
        elif found["fence"]:
            opened = None if found["fence"][0] == "`" and "`" in found["info"] else found
        elif heading := _heading(text, found):
            yield heading
    if opened is not None and not opened["item"]:
        yield Block(opened.start(), len(text), fenced=True)


def _heading(text: str, found: re.Match[str]) -> Heading | None:
    if found["hashes"] is not None:
        return Heading(found.start(), found.end(), len(found["hashes"]), _title(found["title"]))
    if _stands_alone(text, found.start()):
        level = 1 if found["line"].startswith("=") else 2
        return Heading(found.start(), found.end(), level, _title(found["text"]))
    return None


def _closes(found: re.Match[str], fence: str) -> bool:
    closing: str | None = found["fence"]
    return bool(closing) and closing.startswith(fence) and not found["info"].strip() and not found["item"]


def _leaves(found: re.Match[str], item: str | None) -> bool:
    """True where a list item is over, and with it the code block that it begins with."""
    line = found[0]
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return item is not None and len(indent.expandtabs(4)) < len(item.expandtabs(4))


def _html_end(text: str, found: re.Match[str], last: dict[str, int]) -> int:
    """Where a comment or what HTML shows as it stands ends, 0 for never; `last` keeps the time linear."""
    closing = "-->" if found["html"] == "<!--" else f"</{found['html'][1:]}>"
    if closing not in last:
        last[closing] = text.rfind(closing)
    return text.index(closing, found.end()) if last[closing] >= found.end() else 0


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
