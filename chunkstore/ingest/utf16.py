"""Finds UTF-16 that has no byte order mark, by what such text must hold and binary data hardly ever does."""

import unicodedata

_SAMPLE_BYTES = 16_384
_COMMON = frozenset(" \n\r\t0123456789.,。、，؟،")
_ASCII = bytes([*b"\0\t\n\f\r", *range(0x20, 0x7F)])
_NO_TEXT = frozenset({"Cn", "Co", "Cs", "Cc"})
"""Unassigned, private, half a pair, control."""


def unmarked_utf16(content: bytes) -> str | None:
    """`utf-16-le` or `utf-16-be` where the content is text in it, else None.

    Such text holds NUL bytes (the other half of a space or a digit), and read the right way round all
    of its characters are assigned ones, spaces and digits among them.
    """
    sample = content[:_SAMPLE_BYTES]
    if len(content) % 2 or b"\0" not in sample or _is_ascii_with_some(sample):
        return None
    scores = {encoding: _score(sample, encoding) for encoding in ("utf-16-le", "utf-16-be")}
    best = max(scores, key=lambda encoding: scores[encoding])
    return best if scores[best] > 0 else None


def _is_ascii_with_some(sample: bytes) -> bool:
    """True for ASCII in which NUL bytes stand here and there; in UTF-16 every other byte of ASCII is one."""
    return not sample.translate(None, _ASCII) and 4 * sample.count(0) < len(sample)


def _score(sample: bytes, encoding: str) -> int:
    """How many of the characters stand in every text; 0 where one of the others stands in none."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 2:
            return 0
        text = sample[: error.start].decode(encoding)
    common = sum(character in _COMMON for character in text)
    strange = any(
        character not in _COMMON and unicodedata.category(character) in _NO_TEXT for character in text
    )
    return 0 if strange else common
