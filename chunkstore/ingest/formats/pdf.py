"""PDF, by PDFium: its text page by page in reading order, headings by the size of their letters.

What a page shows in larger letters than most of the document is a heading; lines stay lines, but for
words that were hyphenated and for Chinese and Japanese, which have no space at a line's end.
"""

import re
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.installed import not_installed
from chunkstore.ingest.formats.marking import paged
from chunkstore.ingest.formats.pdf_layout import body_size, heading_levels, written
from chunkstore.ingest.formats.pdf_lines import Line, lines_of

_PASSWORD_NEEDED = 4
_LENGTH_BYTES = 1_024
_one_at_a_time = threading.Lock()
"""PDFium must not be used by two threads."""


def read(content: bytes) -> Document:
    """The text of all pages. Raises UnreadableFile for a file that is encrypted, truncated or of images."""
    if find_spec("pypdfium2") is None:
        raise not_installed("PDF", "pypdfium2")
    _refuse_truncated(content)
    with _one_at_a_time:
        pages = list(_pages(content))
    lines = [line for page in pages for line in page]
    if not lines:
        raise UnreadableFile(f"no text: {len(pages):,} pages of images; OCR is not done here")
    body = body_size(lines)
    levels = heading_levels(lines, body)
    text, starts = paged(written(page, body, levels) for page in pages)
    return Document(text, "markdown", pages=starts)


def _refuse_truncated(content: bytes) -> None:
    """Raises UnreadableFile where the end is missing; PDFium would repair what is left, and say nothing."""
    if b"%%EOF" not in content and b"startxref" not in content:
        raise UnreadableFile("truncated: a PDF without its end (%%EOF)")
    if content.find(b"/Linearized", 0, _LENGTH_BYTES) >= 0:
        length = re.search(rb"/L\s+(\d{1,15})", content[:_LENGTH_BYTES])
        if length and int(length[1]) > len(content):
            raise UnreadableFile(f"truncated: {len(content):,} bytes of {int(length[1]):,}")


def _pages(content: bytes) -> Iterator[list[Line]]:
    import pypdfium2
    import pypdfium2.raw

    pdfium: Any = pypdfium2.raw
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if pdfium.FPDF_GetLastError() == _PASSWORD_NEEDED:
            raise UnreadableFile("encrypted: a password is needed to read it") from error
        raise UnreadableFile("a damaged PDF: it cannot be opened") from error
    try:
        for number in range(len(document)):
            try:
                page = document[number]
                text_page = page.get_textpage()
            except pypdfium2.PdfiumError as error:
                raise UnreadableFile(f"a damaged PDF: page {number + 1:,} cannot be read") from error
            yield lines_of(text_page)
            text_page.close()
            page.close()
    finally:
        document.close()
