"""Makes chunks of a text so that an edit changes the chunks that it touches and hardly any other.

Each chunk ends at the best cut within reach of its size: a paragraph before a list item before a
sentence, and among equals the one with the largest checksum of what follows. So the same text gives
the same cuts wherever it stands, and after an edit the cuts soon fall back into step.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain

import msgspec

from chunkstore.errors import InvalidInput
from chunkstore.ingest import syntax
from chunkstore.ingest.cuts import Cut, Strength, fence_cuts, past_blank_lines, prose_cuts
from chunkstore.ingest.dividing import divide
from chunkstore.ingest.document import Document
from chunkstore.ingest.markdown import sections
from chunkstore.ingest.pieces import Piece, pieces
from chunkstore.ingest.sections import Section
from chunkstore.ingest.sizes import Measure, estimated_tokens
from chunkstore.ingest.titles import titled_sections
from chunkstore.model import Chunk, Metadata, Place

DEFAULT_SIZE = 240
"""In estimated tokens: at most 150 words of prose, and within the 256 tokens that MiniLM reads."""
SMALLEST_SIZE, LARGEST_SIZE = 10, 10_000
_HEADING_LIMITS = (200, 100, 50, 25)
"""Characters that are kept of each heading, where more would take half of a chunk."""
_JOINED = "{}\n\n"
"""How headings stand before the content that a model reads."""
_VERSION = 4
"""To be raised with every change that cuts some text in another way."""

_Cuttable = tuple[Iterator[Cut], int]
"""The cuts in a stretch of the text, and where it ends."""


class Chunker(msgspec.Struct, frozen=True):
    """Cuts a document into chunks of at most `size` by `measure`, headings included.

    Calling it gives the chunks in order, none blank: `document.text[place.start:place.end]` is the
    content, `place.line` the line and `place.page` the page that it begins on. Metadata: `headings`
    from the top down, shortened where they would take half of the size; `language` (source code).
    A chunk is below a quarter of the size only where its section is, or where a whole sentence, table
    row, list item or block of code would be cut for it. The same document always gives the same chunks.
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
        by = measure or type(self.measure).__qualname__
        return f"chunker {_VERSION}, size {self.size}, {by}, code by {syntax.how()}"

    def __call__(self, document: Document) -> Iterator[Chunk]:
        """The chunks of the document, made as they are asked for."""
        line, counted = 1, 0
        lines = _in_lines(document)
        for start, end, metadata in self._spans(lines):
            line += lines.text.count("\n", counted, start)
            counted = start
            page = bisect_right(document.pages, start) or None
            place = Place(start=start, end=end, page=page, line=line)
            yield Chunk(document.text[start:end], metadata, place)

    def divide(self, text: str, parts: Iterator[Piece], least: int, most: int) -> Iterator[tuple[int, int]]:
        """Where each chunk begins and ends; a chunker of another kind has another way."""
        return divide(text, parts, least, most)

    def _spans(self, document: Document) -> Iterator[tuple[int, int, Metadata]]:
        text = document.text
        for section_metadata, blocks in _sections(document):
            metadata, most = self._fitted(section_metadata)
            parts = chain.from_iterable(pieces(text, cuts, end, most, self.measure) for cuts, end in blocks)
            for start, end in self.divide(text, parts, most // 4, most):
                yield start, end, metadata

    def _fitted(self, metadata: Metadata) -> tuple[Metadata, int]:
        """The metadata with headings of at most half of the size, and what they leave for content."""
        if "headings" not in metadata:
            return metadata, self.size
        for limit in _HEADING_LIMITS:
            headings = [title[:limit].rstrip() for title in metadata["headings"]]
            left = self.size - self.measure(_JOINED.format(" > ".join(headings)))
            if left >= self.size // 2:
                return {"headings": headings}, left
        return {}, self.size


def _in_lines(document: Document) -> Document:
    """The document; where its lines end as on an old Macintosh, as long a one whose lines can be seen."""
    if "\r" not in document.text or "\n" in document.text:
        return document
    return msgspec.structs.replace(document, text=document.text.replace("\r", "\n"))


def _sections(document: Document) -> Iterator[tuple[Metadata, Iterator[_Cuttable]]]:
    """The parts of a document that no chunk crosses: their metadata, and how each stretch of them is cut."""
    if document.kind == "code":
        metadata: Metadata = {"language": document.language} if document.language else {}
        yield metadata, iter([(syntax.syntax_cuts(document.text, document.language), len(document.text))])
        return
    find = sections if document.kind == "markdown" else titled_sections
    for section in find(document.text):
        metadata = {"headings": list(section.headings)} if section.headings else {}
        yield metadata, _cuttable(document.text, section)


def _cuttable(text: str, section: Section) -> Iterator[_Cuttable]:
    body = past_blank_lines(text, section.body, len(text))
    for block in section.blocks:
        cuts = (fence_cuts if block.fenced else prose_cuts)(text, block.start, block.end)
        yield _after_headings(cuts, body), block.end


def _after_headings(cuts: Iterator[Cut], body: int) -> Iterator[Cut]:
    """The cuts, but none that matters between the headings of a section and what they are for."""
    for at, strength in cuts:
        yield at, strength if at > body else Strength.WITHIN
