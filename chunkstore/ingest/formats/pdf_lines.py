"""The lines of a PDF's page: their text in logical order, where they begin, how large their letters are."""

import ctypes
import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec

from chunkstore.ingest.formats.bidi import Glyph, is_right_to_left, logical

_HYPHEN = re.compile("[\ufffe\x02]")
"""What PDFium gives for a hyphen at a line's end, having joined the word."""
_FORMS = re.compile("[\ufb00-\ufb06\ufb1d-\ufdff\ufe70-\ufefc]+")
"""Ligatures and the shapes of Arabic and Hebrew letters, which some fonts name instead of the letters."""
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\xad\ufeff\ufffe\uffff]")


class Line(msgspec.Struct, frozen=True):
    """One line of a page, or more where words were hyphenated; in points from the page's lower left corner.

    `x` and `y` are where the first letter stands, `last_y` is the height of the last one, `size` the
    size of letters.
    """

    text: str
    x: float
    y: float
    last_y: float
    size: float


def lines_of(text_page: Any) -> list[Line]:
    """The lines of a page of text that are not blank, in reading order."""
    return [line for line in _lines(text_page) if line.text]


def _lines(text_page: Any) -> Iterator[Line]:
    import pypdfium2.raw as pdfium

    position = 0
    for raw in text_page.get_text_range(errors="replace").split("\r\n"):
        length = len(raw.encode("utf-16-le", errors="replace")) // 2
        first = pdfium.FPDFText_GetCharIndexFromTextIndex(text_page, position)
        if raw.strip() and first >= 0:
            text = _in_order(text_page, first, raw) if is_right_to_left(raw) else raw
            x, y = _origin(text_page, first)
            last_y = _origin(text_page, first + len(raw.rstrip()) - 1)[1] if _HYPHEN.search(raw) else y
            yield Line(_cleaned(text), x, y, last_y, _size(text_page, first))
        position += length + 2


def _in_order(text_page: Any, first: int, raw: str) -> str:
    glyphs: list[Glyph] = []
    position = first
    for char in raw:
        if unicodedata.combining(char) and glyphs:
            glyphs[-1] = Glyph(glyphs[-1].text + char, glyphs[-1].x)
        else:
            glyphs.append(Glyph(char, _origin(text_page, position)[0]))
        position += 1
    return logical(glyphs)


def _cleaned(text: str) -> str:
    text = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return _NO_TEXT.sub("", text).strip()


def _origin(text_page: Any, index: int) -> tuple[float, float]:
    import pypdfium2.raw as pdfium

    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(text_page, index, x, y)
    return x.value, y.value


def _size(text_page: Any, index: int) -> float:
    """The height of the letters in points, to the nearest half."""
    import pypdfium2.raw as pdfium

    matrix = pdfium.FS_MATRIX()
    scale = 1.0
    if pdfium.FPDFText_GetMatrix(text_page, index, matrix):
        scale = math.hypot(matrix.c, matrix.d) or 1.0
    return round(2 * scale * pdfium.FPDFText_GetFontSize(text_page, index)) / 2
