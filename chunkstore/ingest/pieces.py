"""Cuts text into pieces, the smallest parts that a chunk is made of, and says how strong each cut is.

A cut depends on the text around it alone, never on its position: so an edit moves the cuts near it
and no others.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise
from typing import cast

import msgspec

from chunkstore.ingest.sizes import Measure


class Strength(IntEnum):
    """How good a place for a chunk to begin: the higher, the better."""

    WITHIN = 0
    SENTENCE = 1
    ITEM = 2
    PARAGRAPH = 3
    FORCED = 4


class Piece(msgspec.Struct, frozen=True):
    """`text[start:end]`, its size, and the strength of the cut before it."""

    start: int
    end: int
    size: int
    strength: Strength


Cut = tuple[int, Strength]
Spans = tuple[list[str], list[tuple[int, int]]]

_BLANK_LINES = re.compile(r"\n[ \t\r]*+\n\s*+")
_SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’)\]*_]*+\s++(?![a-z])|(?<=[。！？])[」』）]*+\s*+""")
_LIST_ITEM = re.compile(r"\n[ \t]*+(?=(?:[-*+•]|[0-9]{1,3}[.)])[ \t])")
_LINE_END = re.compile(r"\n(?:[ \t\r]*+\n)*+")
_LEADING_BLANK_LINES = re.compile(r"(?:[ \t\r\f\v]*+\n)*+")
_LONG_GAP = re.compile(r"\s{1000,}+")
_LINE_LIMIT = 8_000
"""Characters after which a line is cut wherever that is: to split one takes many times its memory."""


def prose_cuts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Paragraphs, list items and sentences of `text[start:end]`."""
    yield start, Strength.PARAGRAPH
    for blank in _BLANK_LINES.finditer(text, start, end):
        yield from _paragraph_cuts(text, start, blank.start())
        start = blank.end()
        yield start, Strength.PARAGRAPH
    yield from _paragraph_cuts(text, start, end)


def _paragraph_cuts(text: str, start: int, end: int) -> list[Cut]:
    cuts = dict.fromkeys(
        (found.end() for found in _SENTENCE_END.finditer(text, start, end)), Strength.SENTENCE
    )
    cuts |= dict.fromkeys((found.end() for found in _LIST_ITEM.finditer(text, start, end)), Strength.ITEM)
    return sorted(cuts.items())


def fence_cuts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Lines of a code block amid prose: it follows its introduction, and is divided at blank lines first."""
    yield start, Strength.SENTENCE
    for gap in _LINE_END.finditer(text, start, end):
        blank = text.count("\n", gap.start(), gap.end()) > 1
        yield gap.end(), Strength.SENTENCE if blank else Strength.WITHIN


def code_cuts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Lines of source code: best where a blank line is followed by one that is not indented."""
    yield start, Strength.PARAGRAPH
    for gap in _LINE_END.finditer(text, start, end):
        flush = not text[gap.end() : gap.end() + 1].isspace()
        if text.count("\n", gap.start(), gap.end()) > 1:
            yield gap.end(), Strength.PARAGRAPH if flush else Strength.ITEM
        else:
            yield gap.end(), Strength.WITHIN


def pieces(text: str, cuts: Iterator[Cut], end: int, limit: int, measure: Measure) -> Iterator[Piece]:
    """The pieces between the cuts, up to `end`: none blank, none above `limit`, no space at the ends."""
    strongest = Strength.WITHIN
    for (start, strength), (stop, _) in pairwise(_and_end(cuts, end)):
        strongest = max(strongest, strength)
        for first, last, inner in _without_gaps(text, _past_blank_lines(text, start, stop), stop):
            if first < last:
                yield from _bounded(text, first, last, max(strongest, inner), limit, measure)
                strongest = Strength.WITHIN


def _and_end(cuts: Iterator[Cut], end: int) -> Iterator[Cut]:
    yield from cuts
    yield end, Strength.FORCED


def _past_blank_lines(text: str, start: int, end: int) -> int:
    found = _LEADING_BLANK_LINES.match(text, start, end)
    return found.end() if found else start


def _without_gaps(text: str, start: int, end: int) -> Iterator[tuple[int, int, Strength]]:
    """The parts of a piece between white space so long that no chunk should hold it."""
    strength = Strength.WITHIN
    for gap in _LONG_GAP.finditer(text, start, end):
        yield start, gap.start(), strength
        start, strength = gap.end(), Strength.FORCED
    yield start, start + len(text[start:end].rstrip()), strength


def _bounded(
    text: str, start: int, end: int, strength: Strength, limit: int, measure: Measure
) -> Iterator[Piece]:
    """The piece, or its lines where it is too large, or parts of those where they are."""
    if end - start <= _LINE_LIMIT and (size := measure(text[start:end])) <= limit:
        yield Piece(start, end, size, strength)
        return
    for first, last in _lines(text, start, end):
        content = text[first:last]
        if (size := measure(content)) <= limit:
            yield Piece(first, last, size, strength)
        else:
            yield from _parts(content, first, strength, limit, measure)
        strength = Strength.WITHIN


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines that are not blank, those beyond the limit in parts of equal length."""
    while start < end:
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline
        for first in range(start, stop, _LINE_LIMIT):
            last = first + len(text[first : min(first + _LINE_LIMIT, stop)].rstrip())
            if first < last:
                yield first, last
        start = stop + 1


def _parts(content: str, offset: int, strength: Strength, limit: int, measure: Measure) -> Iterator[Piece]:
    from semchunk import chunk as split  # pyright: ignore[reportPrivateImportUsage, reportUnknownVariableType]

    _, spans = cast("Spans", split(content, limit, measure, memoize=False, offsets=True))
    for start, end in spans:
        yield Piece(offset + start, offset + end, measure(content[start:end]), strength)
        strength = Strength.WITHIN
