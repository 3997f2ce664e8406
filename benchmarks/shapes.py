"""What chunks look like: how large they are, and how many of them begin or end inside something whole."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from benchmarks.chunkers import Part
from benchmarks.edits import Span, code_blocks, sentences
from chunkstore.ingest.document import Document

KINDS = ("sentence", "code block", "table row", "list item")

_ROW = re.compile(r"^[ \t]*\|[^\n]+\|[ \t]*$", re.MULTILINE)
_ITEM = re.compile(
    r"^(?P<indent>[ \t]*)(?:[-*+•]|[0-9]{1,3}[.)])[ \t]+\S[^\n]*"
    r"(?:\n(?!(?P=indent)(?:[-*+•]|[0-9]{1,3}[.)])[ \t]|[ \t]*\n|(?P=indent)\S)[^\n]+)*",
    re.MULTILINE,
)


class Shape(msgspec.Struct, frozen=True):
    """Sizes by the measure, and shares of the chunks from 0 to 1."""

    chunks: int
    least: int
    median: float
    most: int
    small: float
    """Below a quarter of the target."""
    large: float
    """Above the target."""
    broken: dict[str, float]
    """By kind: chunks that begin or end inside one which would have fitted a chunk."""


def shape(
    documents: Sequence[Document],
    parts: Sequence[Sequence[Part]],
    sizes: Iterable[int],
    target: int,
    limit: int,
) -> Shape:
    """The shape of the chunks of these documents; a whole of more than `limit` characters counts for none."""
    sizes = sorted(sizes)
    count = len(sizes)
    broken: dict[str, int] = dict.fromkeys(KINDS, 0)
    for document, chunks in zip(documents, parts, strict=True):
        for kind, spans in _wholes(document, limit).items():
            broken[kind] += sum(_breaks(spans, part) for part in chunks)
    return Shape(
        chunks=count,
        least=sizes[0],
        median=median(sizes),
        most=sizes[-1],
        small=bisect_left(sizes, target // 4) / count,
        large=(count - bisect_right(sizes, target)) / count,
        broken={kind: number / count for kind, number in broken.items()},
    )


def _wholes(document: Document, limit: int) -> dict[str, list[Span]]:
    """What should stay whole, by kind; the spans of one kind do not overlap and are in order."""
    text = document.text
    is_markdown = document.kind == "markdown"
    found = {
        "sentence": sentences(text),
        "code block": code_blocks(text) if is_markdown else [],
        "table row": [row.span() for row in _ROW.finditer(text)],
        "list item": [item.span() for item in _ITEM.finditer(text)],
    }
    return {kind: [span for span in spans if span[1] - span[0] <= limit] for kind, spans in found.items()}


def _breaks(spans: Sequence[Span], part: Part) -> bool:
    return _inside(spans, part.start) or _inside(spans, part.end)


def _inside(spans: Sequence[Span], at: int) -> bool:
    i = bisect_right(spans, at, key=lambda span: span[0]) - 1
    return i >= 0 and spans[i][0] < at < spans[i][1]
