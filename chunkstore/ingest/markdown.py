"""Finds the sections of a Markdown text: where each begins, under which headings, and what is code in it."""

import re
from collections.abc import Iterator

import msgspec

_MARKS = re.compile(
    r"^ {0,3}(?:(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*+)"
    r"|(?P<hashes>\#{1,6})(?P<title>[ \t][^\n]*+|)[\r]?$"
    r"|(?P<text>[^\s>|#`~*+\-=<][^\n]*+)\n {0,3}(?P<line>=++|-{2,}+)[ \t\r]*+$)",
    re.MULTILINE,
)
_HEADING_LIMIT = 200
"""Characters of a heading that are kept as metadata."""


class Block(msgspec.Struct, frozen=True):
    """`text[start:end]`, prose or a fenced code block."""

    start: int
    end: int
    fenced: bool


class Section(msgspec.Struct, frozen=True):
    """One heading with what follows it up to the next, and the headings above it, itself included."""

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


class _Heading(msgspec.Struct, frozen=True):
    start: int
    end: int
    level: int
    title: str


def sections(text: str) -> Iterator[Section]:
    """The sections in order; together they cover the text. A heading without text joins the next."""
    path: dict[int, str] = {}
    start = 0
    body = 0
    fences: list[Block] = []
    for mark in _marks(text):
        if isinstance(mark, Block):
            fences.append(mark)
            continue
        if text[body : mark.start].strip():
            yield Section(_titles(path), _blocks(start, mark.start, fences))
            start, fences = mark.start, []
        body = mark.end
        path = {level: title for level, title in path.items() if level < mark.level} | {
            mark.level: mark.title
        }
    yield Section(_titles(path), _blocks(start, len(text), fences))


def _marks(text: str) -> Iterator[_Heading | Block]:
    """Headings and fenced code blocks in order; what looks like either inside a fence is neither."""
    opened: re.Match[str] | None = None
    for found in _MARKS.finditer(text):
        if opened is not None:
            if _closes(found, opened["fence"]):
                yield Block(opened.start(), found.end(), fenced=True)
                opened = None
        elif found["fence"]:
            opened = None if found["fence"][0] == "`" and "`" in found["info"] else found
        elif found["hashes"] is not None:
            yield _Heading(found.start(), found.end(), len(found["hashes"]), _title(found["title"]))
        elif _stands_alone(text, found.start()):
            level = 1 if found["line"].startswith("=") else 2
            yield _Heading(found.start(), found.end(), level, _title(found["text"]))
    if opened is not None:
        yield Block(opened.start(), len(text), fenced=True)


def _closes(found: re.Match[str], fence: str) -> bool:
    closing: str | None = found["fence"]
    return closing is not None and closing.startswith(fence) and not found["info"].strip()


def _stands_alone(text: str, start: int) -> bool:
    """True at the first line of a paragraph: an underlined last line of a longer one is no heading here."""
    before = text.rfind("\n", 0, max(start - 1, 0)) + 1
    return not text[before:start].strip()


def _title(marked: str) -> str:
    title = marked.strip()
    bare = title.rstrip("#")
    if not bare or bare[-1].isspace():
        title = bare.rstrip()
    return title[:_HEADING_LIMIT]


def _titles(path: dict[int, str]) -> tuple[str, ...]:
    return tuple(title for _, title in sorted(path.items()) if title)


def _blocks(start: int, end: int, fences: list[Block]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for fence in fences:
        if start < fence.start:
            blocks.append(Block(start, fence.start, fenced=False))
        blocks.append(fence)
        start = fence.end
    if start < end:
        blocks.append(Block(start, end, fenced=False))
    return tuple(blocks)
