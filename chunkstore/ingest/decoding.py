"""Turns the bytes of a text file into text; refuses what is no text, with the reason.

In order: a byte order mark, UTF-8, then whichever encoding charset-normalizer finds.
"""

import codecs
import re
from io import BytesIO
from itertools import islice

from chunkstore.errors import UnreadableFile

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32 before UTF-16, whose mark begins like it."""

_SIGNATURES = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
}
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_TELLING_LINES = 200
_TELLING_BYTES = 65_536
_LIKELIEST = "cp1252"
"""Taken where it explains the bytes as well as another: Western European, by far the most used."""


def is_binary(head: bytes) -> bool:
    """True where a file that begins so is no text."""
    return not _mark(head) and (b"\0" in head or _signature(head) is not None)


def decoded(content: bytes) -> str:
    """The text. Raises UnreadableFile for what is none."""
    if marked := _mark(content):
        mark, encoding = marked
        return _checked(_strictly(content[len(mark) :], encoding), encoding)
    if (kind := _signature(content)) is not None:
        raise UnreadableFile(f"{kind}, which is not read here")
    if b"\0" in content:
        raise UnreadableFile("a binary file: it holds NUL bytes")
    try:
        return _checked(content.decode(), "utf-8")
    except UnicodeDecodeError:
        return _detected(content)


def _mark(content: bytes) -> tuple[bytes, str] | None:
    return next((marked for marked in _MARKS if content.startswith(marked[0])), None)


def _signature(content: bytes) -> str | None:
    return next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)


def _detected(content: bytes) -> str:
    """The text in the likeliest encoding in which all of it can be read."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(_sample(content)))
    best = [m for m in matches if (m.chaos, -m.coherence) == (matches[0].chaos, -matches[0].coherence)]
    for match in sorted(best, key=lambda match: match.encoding != _LIKELIEST):
        try:
            return _checked(content.decode(match.encoding), match.encoding)
        except UnicodeDecodeError:
            continue
    raise UnreadableFile("its encoding cannot be told; UTF-8 is safest")


def _sample(content: bytes) -> bytes:
    """The lines that are not all ASCII, up to a limit: the others tell nothing."""
    telling = (line for line in BytesIO(content) if not line.isascii())
    return b"".join(islice(telling, _TELLING_LINES))[:_TELLING_BYTES]


def _strictly(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise UnreadableFile(f"it is not valid {encoding}") from error


def _checked(text: str, encoding: str) -> str:
    """The text, unless it holds what no text does: many control characters, NUL, half a surrogate pair."""
    controls = len(_CONTROLS.findall(text))
    if "\0" in text or controls > 8 + len(text) // 100:
        raise UnreadableFile(f"a binary file: read as {encoding} it holds {controls} control characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnreadableFile(f"read as {encoding} it holds half of a surrogate pair") from error
    return text
