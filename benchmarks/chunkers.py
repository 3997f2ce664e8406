"""The chunkers that are compared: ours, other content-defined ones over the same pieces, those in common use.

Each cuts a document into spans of the text, with what a model is given for each. All are held to one size by
one measure; those in common use get no headings and no overlap, as their defaults have it.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import accumulate, pairwise
from typing import Any
from zlib import crc32

import msgspec

from chunkstore.chunks import model_text
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.cuts import Strength
from chunkstore.ingest.document import Document
from chunkstore.ingest.pieces import Piece
from chunkstore.ingest.sizes import Measure

OURS = "ours"
PLAIN = "ours, headings left out"


class Part(msgspec.Struct, frozen=True):
    """A chunk `document.text[start:end]`, and the text that a model is given for it."""

    start: int
    end: int
    text: str


Cut = Callable[[Document], list[Part]]

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n\s*\n")
_SPACE = re.compile(r"\s+")


def all_chunkers(size: int, measure: Measure) -> dict[str, Cut]:
    """Every chunker that is installed, by the name that the tables give it."""
    return {
        OURS: partial(_ours, Chunker(size, measure)),
        PLAIN: partial(_ours, Chunker(size, measure), headings=False),
        "best cut within reach": partial(_ours, _WithinReach(size, measure)),
        "rolling hash": partial(_ours, _Rolling(size, measure)),
        **_common(size, measure),
    }


def _common(size: int, measure: Measure) -> dict[str, Cut]:
    chunkers: dict[str, Cut] = {
        "fixed size": partial(_packed, unit=_SPACE, size=size, measure=measure),
        "sentence packer": partial(_packed, unit=_SENTENCE_END, size=size, measure=measure),
        "semchunk": partial(_semchunk, size=size, measure=measure),
    }
    if find_spec("langchain_text_splitters") is None:
        return chunkers
    return chunkers | {
        "recursive characters": partial(_recursive, size=size, measure=measure, by_syntax=False),
        "recursive, by Markdown": partial(_recursive, size=size, measure=measure, by_syntax=True),
    }


class _WithinReach(Chunker, frozen=True):
    """One chunk after the other: each ends at its best cut between a quarter of the size and all of it."""

    def divide(self, text: str, parts: Iterator[Piece], least: int, most: int) -> Iterator[tuple[int, int]]:
        run: list[Piece] = []
        size = 0
        for piece in parts:
            while run and (piece.strength is Strength.FORCED or size + piece.size > most):
                sizes = list(accumulate(part.size for part in run))
                enough = [i for i in range(1, len(run)) if sizes[i - 1] >= least]
                cut = max(enough, key=lambda i: _rank(text, run[i]), default=len(run))
                cut = len(run) if piece.strength is Strength.FORCED else cut
                yield run[0].start, run[cut - 1].end
                run = run[cut:]
                size = sum(part.size for part in run)
            run.append(piece)
            size += piece.size
        if run:
            yield run[0].start, run[-1].end


class _Rolling(Chunker, frozen=True):
    """As backups are cut: at each piece with a checksum below a threshold, higher for a paragraph."""

    def divide(self, text: str, parts: Iterator[Piece], least: int, most: int) -> Iterator[tuple[int, int]]:
        run: list[Piece] = []
        size = 0
        for piece in parts:
            ease = 2.0 if piece.strength >= Strength.PARAGRAPH else 0.5
            chance = ease * piece.size / (most * 0.55 - least)
            here = size >= least and _rank(text, piece)[1] < chance * 2**32
            if run and (piece.strength is Strength.FORCED or here or size + piece.size > most):
                yield run[0].start, run[-1].end
                run, size = [], 0
            run.append(piece)
            size += piece.size
        if run:
            yield run[0].start, run[-1].end


def _rank(text: str, piece: Piece) -> tuple[int, int]:
    return piece.strength, crc32(text[piece.start : piece.end].encode(errors="replace"))


def _ours(chunker: Chunker, document: Document, *, headings: bool = True) -> list[Part]:
    parts: list[Part] = []
    for chunk in chunker(document):
        place = chunk.place
        assert place is not None
        assert place.start is not None
        assert place.end is not None
        text = model_text(chunk.content, chunk.metadata.get("headings") if headings else None)
        parts.append(Part(place.start, place.end, text))
    return parts


def _packed(document: Document, *, unit: re.Pattern[str], size: int, measure: Measure) -> list[Part]:
    """Filled with one unit after another until the next would be too much."""
    text = document.text
    ends = [0, *(found.end() for found in unit.finditer(text)), len(text)]
    parts: list[Part] = []
    begin, filled = 0, 0
    for start, end in pairwise(ends):
        more = measure(text[start:end])
        if filled and filled + more > size:
            parts += _part(text, begin, start)
            begin, filled = start, 0
        filled += more
    return parts + _part(text, begin, len(text))


def _semchunk(document: Document, *, size: int, measure: Measure) -> list[Part]:
    from semchunk import chunk  # pyright: ignore[reportPrivateImportUsage]

    found: Any = chunk(document.text, size, measure, memoize=False, offsets=True)
    return [part for start, end in found[1] for part in _part(document.text, start, end)]


def _recursive(document: Document, *, size: int, measure: Measure, by_syntax: bool) -> list[Part]:
    import langchain_text_splitters as library

    splitter: Any = library.RecursiveCharacterTextSplitter
    options: dict[str, Any] = {
        "chunk_size": size,
        "chunk_overlap": 0,
        "length_function": measure,
        "add_start_index": False,
    }
    if by_syntax and document.kind == "markdown":
        made = splitter.from_language(library.Language.MARKDOWN, **options)
    else:
        made = splitter(**options)
    parts: list[Part] = []
    end = 0
    for content in made.split_text(document.text):
        start = document.text.find(content, end)
        if start < 0:
            continue
        end = start + len(content)
        parts += _part(document.text, start, end)
    return parts


def _part(text: str, start: int, end: int) -> list[Part]:
    content = text[start:end]
    start += len(content) - len(content.lstrip())
    content = content.strip()
    return [Part(start, start + len(content), content)] if content else []
