"""Cuts text into pieces, the smallest parts that a chunk is made of: measured, and none too large for one."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import msgspec

from chunkstore.ingest.cuts import Cut, Strength, past_blank_lines
from chunkstore.ingest.sizes import Measure, measured


class Piece(msgspec.Struct, frozen=True):
    """`text[start:end]`, its size, and the strength of the cut before it."""

    start: int
    end: int
    size: int
    strength: Strength


class _Span(msgspec.Struct, frozen=True):
    """A piece before it is measured; up to `stop` there is white space alone."""

    start: int
    end: int
    stop: int
    strength: Strength


_Offsets = tuple[list[str], list[tuple[int, int]]]

_GAP = 1000
_LONG_GAP = re.compile(rf"\s{{{_GAP},}}+")
_LINE_LIMIT = 8_000
"""Characters after which a line is cut wherever that is: to split one takes many times its memory."""
_AT_ONCE = 256
"""Pieces that are measured together."""


def pieces(text: str, cuts: Iterator[Cut], end: int, limit: int, measure: Measure) -> Iterator[Piece]:
    """The pieces between the cuts, up to `end`: none blank, none above `limit`, no space at their ends."""
    batch: list[_Span] = []
    for span in _spans(text, cuts, end):
        batch.append(span)
        if len(batch) == _AT_ONCE:
            yield from _sized(text, batch, limit, measure)
            batch = []
    yield from _sized(text, batch, limit, measure)


def _spans(text: str, cuts: Iterator[Cut], end: int) -> Iterator[_Span]:
    strongest = Strength.WITHIN
    for (start, strength), (stop, _) in pairwise(_and_end(cuts, end)):
        strongest = max(strongest, strength)
        begin = past_blank_lines(text, start, stop) if text[start : start + 1].isspace() else start
        for first, last, following, inner in _without_gaps(text, begin, stop):
            if first < last:
                yield _Span(first, last, following, max(strongest, inner))
                strongest = Strength.WITHIN


def _and_end(cuts: Iterator[Cut], end: int) -> Iterator[Cut]:
    yield from cuts
    yield end, Strength.FORCED


def _without_gaps(text: str, start: int, end: int) -> Iterator[tuple[int, int, int, Strength]]:
    """The parts of a piece between white space so long that no chunk should hold it."""
    strength = Strength.WITHIN
    if end - start < _GAP:
        yield start, start + len(text[start:end].rstrip()), end, strength
        return
    for gap in _LONG_GAP.finditer(text, start, end):
        yield start, gap.start(), gap.start(), strength
        start, strength = gap.end(), Strength.FORCED
    yield start, start + len(text[start:end].rstrip()), end, strength


def _sized(text: str, spans: list[_Span], limit: int, measure: Measure) -> Iterator[Piece]:
    """The pieces that these make: white space after one counts, as some tokenizers count it."""
    texts = [text[span.start : span.stop] if _is_short(span) else "" for span in spans]
    for span, size in zip(spans, measured(measure, texts), strict=True):
        if size <= limit and _is_short(span):
            yield Piece(span.start, span.end, size, span.strength)
        else:
            yield from _bounded(text, span, limit, measure)


def _is_short(span: _Span) -> bool:
    return span.end - span.start <= _LINE_LIMIT


def _bounded(text: str, span: _Span, limit: int, measure: Measure) -> Iterator[Piece]:
    """The lines of a piece that is too large, or parts of those where they are."""
    strength = span.strength
    for first, last in _lines(text, span.start, span.end):
        content = text[first:last]
        if (size := measure(content)) <= limit:
            yield Piece(first, last, size, strength)
        else:
            yield from _parts(content, first, strength, limit, measure)
        strength = Strength.WITHIN


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines that are not blank, those beyond the limit in parts, between words where there are such."""
    while start < end:
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline
        while start < stop:
            most = min(start + _LINE_LIMIT, stop)
            space = text.rfind(" ", start + _LINE_LIMIT // 2, most) if most < stop else -1
            part = most if space < 0 else space + 1
            last = start + len(text[start:part].rstrip())
            if start < last:
                yield start, last
            start = part
        start = stop + 1


def _parts(content: str, offset: int, strength: Strength, limit: int, measure: Measure) -> Iterator[Piece]:
    from semchunk import chunk as split  # pyright: ignore[reportPrivateImportUsage, reportUnknownVariableType]

    _, spans = cast("_Offsets", split(content, limit, measure, memoize=False, offsets=True))
    for start, end in spans:
        yield Piece(offset + start, offset + end, measure(content[start:end]), strength)
        strength = Strength.WITHIN
