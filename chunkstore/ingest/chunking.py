"""Makes chunks of a text so that an edit changes the chunks that it touches and hardly any other.

Each chunk ends at the best cut within reach of its size: a paragraph before a list item before a
sentence, and among equals the one with the largest checksum of what follows. So the same text gives
the same cuts wherever it stands, and after an edit the cuts soon fall back into step.
"""

from collections.abc import Iterator
from itertools import accumulate, chain
from zlib import crc32

import msgspec

from chunkstore.errors import InvalidInput
from chunkstore.ingest.document import Document
from chunkstore.ingest.markdown import Block, sections
from chunkstore.ingest.pieces import Piece, Strength, code_cuts, fence_cuts, pieces, prose_cuts
from chunkstore.ingest.sizes import Measure, estimated_tokens
from chunkstore.model import Chunk, Metadata, Place

DEFAULT_SIZE = 240
"""In estimated tokens: at most 150 words of prose, and within the 256 tokens that MiniLM reads."""
SMALLEST_SIZE, LARGEST_SIZE = 10, 10_000


class Chunker(msgspec.Struct, frozen=True):
    """Cuts a document into chunks of at most `size` by `measure`, at least a quarter of it where possible.

    Calling it gives the chunks in order, none blank: `document.text[place.start:place.end]` is the
    content, `place.line` the line that it begins on. Metadata: `headings` (Markdown) from the top
    down, `language` (source code). The same document always gives the same chunks.
    """

    size: int = DEFAULT_SIZE
    measure: Measure = estimated_tokens

    def __post_init__(self) -> None:
        if type(self.size) is not int or not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            raise InvalidInput("size", self.size, f"an integer from {SMALLEST_SIZE} to {LARGEST_SIZE}")

    def __call__(self, document: Document) -> Iterator[Chunk]:
        """The chunks of the document, made as they are asked for."""
        line, counted = 1, 0
        for start, end, metadata in self._spans(document):
            line += document.text.count("\n", counted, start)
            counted = start
            yield Chunk(document.text[start:end], metadata, Place(start=start, end=end, line=line))

    def _spans(self, document: Document) -> Iterator[tuple[int, int, Metadata]]:
        for metadata, parts in _sections(document, self.size - self._least, self.measure):
            for run in _runs(document.text, parts, self._least, self.size):
                yield run[0].start, run[-1].end, metadata

    @property
    def _least(self) -> int:
        return self.size // 4


def _sections(document: Document, limit: int, measure: Measure) -> Iterator[tuple[Metadata, Iterator[Piece]]]:
    """The parts of a document that no chunk crosses: their metadata and their pieces."""
    text = document.text
    if document.kind == "markdown":
        for section in sections(text):
            metadata: Metadata = {"headings": list(section.headings)} if section.headings else {}
            yield (
                metadata,
                chain.from_iterable(_block(text, block, limit, measure) for block in section.blocks),
            )
        return
    metadata = {"language": document.language} if document.language else {}
    cuts = code_cuts if document.kind == "code" else prose_cuts
    yield metadata, pieces(text, cuts(text, 0, len(text)), len(text), limit, measure)


def _block(text: str, block: Block, limit: int, measure: Measure) -> Iterator[Piece]:
    cuts = fence_cuts if block.fenced else prose_cuts
    return pieces(text, cuts(text, block.start, block.end), block.end, limit, measure)


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
