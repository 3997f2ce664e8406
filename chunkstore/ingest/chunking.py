"""Makes chunks of a text so that an edit changes the chunks that it touches and hardly any other.

Each chunk ends at the best cut within reach of its size: a paragraph before a list item before a
sentence, and among equals the one with the largest checksum of what follows. So the same text gives
the same cuts wherever it stands, and after an edit the cuts soon fall back into step.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate, chain
from zlib import crc32

import msgspec

from chunkstore.errors import InvalidInput
from chunkstore.ingest.document import Document
from chunkstore.ingest.markdown import Block, sections
from chunkstore.ingest.pieces import Cut, Piece, Strength, code_cuts, fence_cuts, pieces, prose_cuts
from chunkstore.ingest.sizes import Measure, estimated_tokens
from chunkstore.model import Chunk, Metadata, Place

DEFAULT_SIZE = 240
"""In estimated tokens: at most 150 words of prose, and within the 256 tokens that MiniLM reads."""
SMALLEST_SIZE, LARGEST_SIZE = 10, 10_000
_VERSION = 1
"""To be raised with every change that cuts some text in another way."""

_Cuttable = tuple[Callable[[str, int, int], Iterator[Cut]], int, int]
"""A stretch of the text from one offset to another, and what finds the cuts in it."""


class Chunker(msgspec.Struct, frozen=True):
    """Cuts a document into chunks of at most `size` by `measure`, headings included.

    Calling it gives the chunks in order, none blank: `document.text[place.start:place.end]` is the
    content, `place.line` the line that it begins on. Metadata: `headings` (Markdown) from the top
    down, `language` (source code). Only the last chunk of a section is below a quarter of the size.
    The same document always gives the same chunks.
    """

    size: int = DEFAULT_SIZE
    measure: Measure = estimated_tokens

    def __post_init__(self) -> None:
        if type(self.size) is not int or not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            raise InvalidInput("size", self.size, f"an integer from {SMALLEST_SIZE} to {LARGEST_SIZE}")

    @property
    def fingerprint(self) -> str:
        """What decides the cuts, on one line: where two chunkers' agree, so do their chunks."""
        measure = getattr(self.measure, "name", None) or getattr(self.measure, "__qualname__", None)
        return f"chunker {_VERSION}, size {self.size}, {measure or type(self.measure).__qualname__}"

    def __call__(self, document: Document) -> Iterator[Chunk]:
        """The chunks of the document, made as they are asked for."""
        line, counted = 1, 0
        for start, end, metadata in self._spans(document):
            line += document.text.count("\n", counted, start)
            counted = start
            yield Chunk(document.text[start:end], metadata, Place(start=start, end=end, line=line))

    def _spans(self, document: Document) -> Iterator[tuple[int, int, Metadata]]:
        for metadata, blocks in _sections(document):
            most = self._room(metadata)
            least = most // 4
            parts = (
                pieces(document.text, cuts(document.text, start, end), end, most - least, self.measure)
                for cuts, start, end in blocks
            )
            for run in _runs(document.text, chain.from_iterable(parts), least, most):
                yield run[0].start, run[-1].end, metadata

    def _room(self, metadata: Metadata) -> int:
        """The size left for content beside the headings, which a model reads with it; half at least."""
        return max(self.size // 2, self.size - self.measure(" > ".join(metadata.get("headings", ()))))


def _sections(document: Document) -> Iterator[tuple[Metadata, list[_Cuttable]]]:
    """The parts of a document that no chunk crosses: their metadata, and how each stretch of them is cut."""
    if document.kind == "markdown":
        for section in sections(document.text):
            metadata: Metadata = {"headings": list(section.headings)} if section.headings else {}
            yield metadata, [_cuttable(block) for block in section.blocks]
        return
    metadata = {"language": document.language} if document.language else {}
    yield metadata, [(code_cuts if document.kind == "code" else prose_cuts, 0, len(document.text))]


def _cuttable(block: Block) -> _Cuttable:
    return fence_cuts if block.fenced else prose_cuts, block.start, block.end


def _runs(text: str, parts: Iterator[Piece], least: int, most: int) -> Iterator[list[Piece]]:
    """The pieces in runs, a chunk each."""
    run: list[Piece] = []
    size = 0
    for piece in parts:
        while run and (piece.strength is Strength.FORCED or size + piece.size > most):
            cut = len(run) if piece.strength is Strength.FORCED else _best_cut(text, [*run, piece], least)
            yield run[:cut]
            size -= _size(run[:cut])
            run = run[cut:]
        run.append(piece)
        size += piece.size
    if run:
        yield run


def _best_cut(text: str, run: list[Piece], least: int) -> int:
    """Where to end the chunk: at one of the cuts that leave at least `least` in it, or else the last."""
    sizes = accumulate(piece.size for piece in run)
    enough = [i for i, size in enumerate(sizes, 1) if size >= least and i < len(run)]
    return max(enough, key=lambda i: _rank(text, run[i]), default=len(run) - 1)


def _rank(text: str, piece: Piece) -> tuple[int, int]:
    return piece.strength, crc32(text[piece.start : piece.end].encode())


def _size(run: list[Piece]) -> int:
    return sum(piece.size for piece in run)
