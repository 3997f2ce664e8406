"""Turns the bytes of a text file into text; refuses what is no text, with the reason and the byte's position.

In order: a byte order mark, UTF-8, UTF-16 without a mark, the encoding that the text itself declares,
then whichever encoding chardet finds. Bytes that are valid UTF-8, or are but for a few, are never read as
anything else.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterator
from io import BytesIO
from itertools import islice

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.utf16 import unmarked_utf16

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32 before UTF-16, whose mark begins like it."""

_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,200}?\bencoding\s*=\s*["']([\w.:-]{2,40})"""
    rb"""|<meta[^>]{0,400}?\bcharset\s*=\s*["']?\s*([\w.:-]{2,40})"""
    rb"""|^[^\n]{0,200}\bcoding[:=][ \t]*([\w.-]{2,40})""",
    re.IGNORECASE,
)
"""What XML, HTML and the first line of source code say of their encoding."""

_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "gb2312": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
}
"""What is meant where a text names the smaller encoding (the labels of the WHATWG's Encoding Standard)."""
_WIDE = ("utf-16", "utf-32")
"""Declared in letters of one byte each, they are not what the text is in."""

_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_ESCAPED = re.compile(rb"\x1b\$[@AB]|\x1b\$[()][A-Z]|\x1b\([IJ]")
"""How ISO-2022 switches to Chinese, Japanese and Korean: all of it in ASCII, and so valid UTF-8."""

_OUTSIDE_ASCII = re.compile(r"[^\x00-\x7f]+")
_WORD = re.compile(r"[^\W\d_]+")
_OTHERS = frozenset({"GREEK", "CYRILLIC", "HEBREW", "ARABIC"})

_HEAD_BYTES = 4_096
_TELLING_LINES = 400
_TELLING_BYTES = 65_536
_FEW = 6
"""So many bytes outside ASCII tell no encoding from another."""
_NOISE = 0.03
"""The confidence, of 1, that chardet has in bytes that mean nothing; in a sentence 0.05 and more.

What is mostly ASCII is no noise, whatever the rest of it is."""
_LIKELIEST = "cp1252"
"""Taken where too little tells otherwise: Western European, by far the most used."""
_NEAR = 0.66
"""Of the best one's confidence: so near, the likeliest is taken before it."""


def decoded(content: bytes) -> str:
    """The text. Raises UnreadableFile for what is none."""
    if marked := _mark(content):
        mark, encoding = marked
        return _checked(_strictly(content[len(mark) :], encoding, len(mark)), encoding)
    if (encoding := unmarked_utf16(content)) is not None:
        return _checked(_strictly(content, encoding, 0), encoding)
    if (position := content.find(b"\0")) >= 0:
        raise UnreadableFile(f"a binary file: it holds a NUL byte at position {position:,}")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return _detected(content, error.start)
    return _escaped(content) if _ESCAPED.search(content) else _checked(text, "utf-8")


def labelled(content: bytes, label: str | None = None) -> str:
    """The text of a part whose sender may have said its encoding. Raises UnreadableFile for what is none.

    Labels of Western text are no more than a guess of the sender's program: UTF-8 is read as that.
    """
    meant = list(_meant(label)) if label else ["utf-8"]
    for encoding in ["utf-8", *meant] if _LIKELIEST in meant else meant:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return decoded(content)


def _meant(label: str) -> Iterator[str]:
    """The encodings that the label may stand for, by their names in Python; none where it is unknown."""
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return
    if name in _MEANT:
        yield _MEANT[name]
    yield name


def is_text(head: bytes) -> bool:
    """True where a file that begins so may be text: no NUL but in UTF-16 or UTF-32."""
    return b"\0" not in head or _mark(head) is not None or unmarked_utf16(head) is not None


def without_mark(head: bytes) -> bytes:
    """The beginning of a text as UTF-8 where it is UTF-16 or UTF-32, else as it is; no byte order mark."""
    mark, encoding = _mark(head) or (b"", unmarked_utf16(head[: len(head) // 2 * 2]) or "utf-8")
    rest = head[len(mark) :]
    return rest if encoding == "utf-8" else rest.decode(encoding, errors="ignore").encode(errors="ignore")


def _mark(content: bytes) -> tuple[bytes, str] | None:
    return next((marked for marked in _MARKS if content.startswith(marked[0])), None)


def _detected(content: bytes, first: int) -> str:
    """The text in the first encoding in which all of it can be read; byte `first` is no UTF-8."""
    if _is_damaged_utf8(content):
        raise UnreadableFile(
            f"damaged UTF-8: the byte 0x{content[first]:02X} at position {first:,} is none, though most of"
            " the others are; save it anew"
        )
    for encoding in _candidates(content):
        try:
            text = _checked(content.decode(encoding), encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if not _mixes_scripts(text):
            return text
    raise UnreadableFile(
        f"its encoding cannot be told: the byte 0x{content[first]:02X} at position {first:,} is no UTF-8; "
        "save it as UTF-8"
    )


def _is_damaged_utf8(content: bytes) -> bool:
    """Whether characters of UTF-8 outside ASCII are at least twice as many as the places that are none.

    In other encodings they are at most half as many: chance makes few.
    """
    text = content.decode(errors="replace")
    broken = text.count("\ufffd") - content.count("\ufffd".encode())
    return sum(map(len, _OUTSIDE_ASCII.findall(text))) - broken >= 2 * broken


def _mixes_scripts(text: str) -> bool:
    """Whether most of the words outside ASCII have Latin letters beside Greek, Cyrillic, Hebrew or Arabic."""
    words = [word for word in _WORD.findall(text[:_TELLING_BYTES]) if not word.isascii()]
    scripts = [{unicodedata.name(letter, "").partition(" ")[0] for letter in word} for word in words]
    mixed = sum("LATIN" in of_word and not of_word.isdisjoint(_OTHERS) for of_word in scripts)
    return 2 * mixed > len(words)


def _candidates(content: bytes) -> Iterator[str]:
    """Encodings to try, the likeliest first."""
    if declared := _DECLARED.search(content, 0, _HEAD_BYTES):
        yield from (
            name for name in _meant(declared[declared.lastindex or 0].decode()) if not name.startswith(_WIDE)
        )
    sample = _sample(content)
    outside = sum(byte > 0x7F for byte in sample)
    if outside < _FEW and 2 * outside <= len(sample):
        yield _LIKELIEST
    yield from _guessed(sample)


def _guessed(sample: bytes) -> list[str]:
    from chardet import EncodingEra, detect_all

    found = detect_all(sample, encoding_era=EncodingEra.ALL & ~EncodingEra.MAINFRAME, compat_names=False)
    mostly_ascii = 4 * sum(byte > 0x7F for byte in sample) < len(sample)
    least = 0.0 if mostly_ascii else _NOISE
    likely = {str(result["encoding"]): result["confidence"] for result in found if result["encoding"]}
    best = max(likely.values(), default=0.0)
    if best <= least:
        return []
    near = likely.get(_LIKELIEST, 0.0) >= _NEAR * best
    return sorted(likely, key=lambda name: near and name != _LIKELIEST)


def _sample(content: bytes) -> bytes:
    """The lines that are not all ASCII, up to a limit: the others tell nothing."""
    telling = (line for line in BytesIO(content) if not line.isascii())
    return b"".join(islice(telling, _TELLING_LINES))[:_TELLING_BYTES]


def _escaped(content: bytes) -> str:
    """Text in one of the ISO-2022 encodings, or in ASCII that looks like it."""
    for encoding in _guessed(content[:_TELLING_BYTES]):
        if encoding.startswith(("iso2022", "hz")):
            try:
                return _checked(content.decode(encoding), encoding)
            except UnicodeDecodeError:
                continue
    return _checked(content.decode(), "utf-8")


def _strictly(content: bytes, encoding: str, offset: int) -> str:
    """The text; `offset` is the position of its first byte in the file."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        position = error.start + offset
        raise UnreadableFile(f"not valid {encoding}: {error.reason} at position {position:,}") from error


def _checked(text: str, encoding: str) -> str:
    """The text, unless it holds what no text does: many control characters, NUL, half a surrogate pair."""
    controls = len(_CONTROLS.findall(text))
    if (position := text.find("\0")) >= 0 or controls > 8 + len(text) // 100:
        held = f"a NUL at character {position:,}" if position >= 0 else f"{controls:,} control characters"
        raise UnreadableFile(f"a binary file: read as {encoding} it holds {held}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnreadableFile(f"read as {encoding} it holds half of a surrogate pair") from error
    return text
