"""Sections of a document: where each begins, under which headings, and what is code in it."""

from collections.abc import Iterable, Iterator

import msgspec

HEADING_LIMIT = 200
"""Characters of a heading that are kept as metadata."""


class Block(msgspec.Struct, frozen=True):
    """`text[start:end]`, prose or a fenced code block."""

    start: int
    end: int
    fenced: bool


class Heading(msgspec.Struct, frozen=True):
    """`text[start:end]` is a heading of this level, 1 the highest."""

    start: int
    end: int
    level: int
    title: str


class Section(msgspec.Struct, frozen=True):
    """One heading with what follows it up to the next, and the headings above it, itself included.

    What comes after the headings begins at `body`.
    """

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]
    body: int


def sections_of(text: str, marks: Iterable[Heading | Block]) -> Iterator[Section]:
    """The sections in order; together they cover the text. A heading without text joins the next."""
    path: dict[int, str] = {}
    start = 0
    body = 0
    fences: list[Block] = []
    for mark in marks:
        if isinstance(mark, Block):
            fences.append(mark)
            continue
        if text[body : mark.start].strip():
            yield Section(_titles(path), _blocks(start, mark.start, fences), body)
            start, fences = mark.start, []
        body = mark.end
        path = {level: title for level, title in path.items() if level < mark.level} | {
            mark.level: mark.title[:HEADING_LIMIT].rstrip()
        }
    yield Section(_titles(path), _blocks(start, len(text), fences), body)


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
