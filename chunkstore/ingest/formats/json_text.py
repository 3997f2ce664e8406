"""JSON and JSON Lines: checked, and kept as they stand, with escaped characters spelled out.

What stands on a few very long lines is laid out anew. Comments and trailing commas are let pass.
"""

import json
import re

import msgspec

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document

_LONG_LINE = 2_000
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)"
)
_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*+")|//[^\n]*+|/\*.*?(?:\*/|\Z)', re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:[^"\\\n]|\\.)*+")|,(?=\s*[}\]])')
"""Both match whole strings as well, which are put back: nothing inside one is a comment or a comma."""


def read(content: bytes) -> Document:
    """One value; several, a line each, are taken as well."""
    text = decoded(content)
    try:
        loaded(text)
    except json.JSONDecodeError as error:
        return _lenient(text, error)
    return _document(_laid_out(text))


def read_lines(content: bytes) -> Document:
    """A value a line; blank lines are let pass."""
    text = decoded(content)
    _check_lines(text)
    return _document(text)


def loaded(text: str) -> object:
    """The value, numbers as text. Raises JSONDecodeError; UnreadableFile where it nests too deep."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except RecursionError:
        raise UnreadableFile("its values nest too deep") from None


def refused(error: json.JSONDecodeError, line: int | None = None) -> UnreadableFile:
    """The error to raise for text that is no JSON."""
    return UnreadableFile(
        f"not valid JSON: {error.msg} at line {line or error.lineno:,}, column {error.colno:,}"
    )


def _lenient(text: str, error: json.JSONDecodeError) -> Document:
    """Text that is not JSON: JSON Lines, or JSON with comments; `error` is raised for anything else."""
    try:
        if error.msg == "Extra data":
            _check_lines(text)
        else:
            uncommented = _COMMENT.sub(_only_string, text)
            loaded(_LAST_COMMA.sub(_only_string, uncommented))
    except (json.JSONDecodeError, UnreadableFile):
        raise refused(error) from error
    return _document(text)


def _only_string(found: re.Match[str]) -> str:
    return found[1] or ""


def _check_lines(text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                loaded(line)
            except json.JSONDecodeError as error:
                raise refused(error, number) from error


def _laid_out(text: str) -> str:
    if max(map(len, text.split("\n")), default=0) <= _LONG_LINE:
        return text
    try:
        return msgspec.json.format(text, indent=2)
    except msgspec.DecodeError:  # NaN and its like, which Python writes
        return text


def _document(text: str) -> Document:
    return Document(_ESCAPE.sub(_spelled, text), "code", "json")


def _spelled(found: re.Match[str]) -> str:
    """The character that an escape stands for, if it is a printable one outside ASCII; else the escape."""
    high, low, single = found.groups()
    if high:
        character = chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
    else:
        character = chr(int(single, 16)) if single else ""
    return character if character > "\x7f" and character.isprintable() else found[0]
