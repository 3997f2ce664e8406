"""Checks what callers hand in before anything is written; errors name field, value and what is allowed."""

import math
import re
from contextlib import suppress
from typing import Any

import msgspec

from chunkstore.errors import InvalidInput
from chunkstore.model import ChunkId, Place
from chunkstore.settings import (
    MAX_CONTENT_BYTES,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_K,
    MAX_KEY_BYTES,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
)

_INT4_MAX = 2**31 - 1
_INT8_MAX = 2**63 - 1


def checked_key(key: object, field: str = "key", limit: int = MAX_KEY_BYTES) -> str:
    """The key as it is. Raises InvalidInput unless it is text of 1 to `limit` UTF-8 bytes without NUL."""
    allowed = f"text of 1 to {limit} UTF-8 bytes without NUL or lone surrogates"
    if not isinstance(key, str) or not 1 <= len(_utf8(key, field, allowed)) <= limit or "\0" in key:
        raise InvalidInput(field, key, allowed)
    return key


def checked_idempotency_key(key: object) -> str | None:
    """The idempotency key, or None where none was given."""
    return None if key is None else checked_key(key, "idempotency_key", MAX_IDEMPOTENCY_KEY_BYTES)


def checked_content(content: object, position: int) -> bytes:
    """The chunk's content as UTF-8. Raises InvalidInput for empty, too long, NUL or lone surrogates."""
    if isinstance(content, str):
        try:
            encoded = content.encode()
        except UnicodeEncodeError:
            encoded = b""
        if 1 <= len(encoded) <= MAX_CONTENT_BYTES and b"\0" not in encoded:
            return encoded
    allowed = f"content is text of 1 to {MAX_CONTENT_BYTES} UTF-8 bytes without NUL or lone surrogates"
    raise InvalidInput(f"chunks[{position}].content", _outline(content), allowed)


def _outline(content: object) -> str:
    """What is wrong with a content, without a word of it: errors are logged."""
    if not isinstance(content, str):
        return type(content).__name__
    if not content:
        return content
    for name, found in (("NUL", "\0"), ("a lone surrogate", "[\ud800-\udfff]")):
        if (at := re.search(found, content)) is not None:
            return f"text of {len(content)} characters with {name} at {at.start()}"
    return f"text of {len(content.encode())} bytes"


def checked_place(place: object, position: int) -> Place | None:
    """The place as it is. Raises InvalidInput for negative or reversed offsets, pages or lines below 1."""
    if place is None:
        return None
    if not isinstance(place, Place):
        raise InvalidInput(f"chunks[{position}].place", place, "a place is a Place or None")
    start, end = place.start, place.end
    for name, value, least in (
        ("start", start, 0),
        ("end", end, 0),
        ("page", place.page, 1),
        ("line", place.line, 1),
    ):
        if value is not None and (type(value) is not int or not least <= value <= _INT4_MAX):
            allowed = f"an integer from {least} to {_INT4_MAX}, or None"
            raise InvalidInput(f"chunks[{position}].place.{name}", value, allowed)
    if start is not None and end is not None and end < start:
        raise InvalidInput(f"chunks[{position}].place.end", end, f"at least the start, {start}")
    return place


def checked_metadata(metadata: Any, field: str) -> bytes:
    """The metadata as JSON with sorted keys. Raises InvalidInput unless it is an object within the limits."""
    if not isinstance(metadata, dict):
        raise InvalidInput(field, metadata, "metadata is a JSON object (a dict)")
    _check_json(metadata, field, depth=1)
    try:
        encoded = msgspec.json.encode(metadata, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(field, metadata, f"metadata is a JSON object: {error}") from error
    if len(encoded) > MAX_METADATA_BYTES:
        raise InvalidInput(field, f"{len(encoded)} bytes", f"at most {MAX_METADATA_BYTES} bytes of JSON")
    return encoded


def _check_json(value: Any, field: str, depth: int) -> None:
    """Raises InvalidInput at the first thing that JSON, or jsonb, cannot hold."""
    if depth > MAX_METADATA_DEPTH:
        raise InvalidInput(field, "a deeper nesting", f"at most {MAX_METADATA_DEPTH} levels")
    match value:
        case str():
            _check_text(value, field)
        case dict():
            for name, inner in value.items():
                if not isinstance(name, str):
                    raise InvalidInput(field, name, "keys of JSON objects are text")
                _check_text(name, f"{field} key")
                _check_json(inner, f"{field}.{name[:40]}", depth + 1)
        case list() | tuple():
            for i, inner in enumerate(value):
                _check_json(inner, f"{field}[{i}]", depth + 1)
        case float() if not math.isfinite(value):
            raise InvalidInput(field, value, "a finite number: JSON has no NaN and no infinity")
        case None | bool() | int() | float():
            return
        case _:
            raise InvalidInput(field, value, "JSON holds objects, arrays, text, numbers, true, false, null")


def _check_text(text: str, field: str) -> None:
    allowed = "text without NUL or lone surrogates"
    if b"\0" in _utf8(text, field, allowed):
        raise InvalidInput(field, text, allowed)


def checked_version(number: object, field: str, least: int = 1) -> int:
    """The version number. Raises InvalidInput unless it is an integer from `least` on."""
    if type(number) is not int or not least <= number <= _INT4_MAX:
        raise InvalidInput(field, number, f"an integer from {least} to {_INT4_MAX}")
    return number


def checked_k(k: object) -> int:
    """The number of hits wanted. Raises InvalidInput unless it is an integer from 1 to MAX_K."""
    if type(k) is not int or not 1 <= k <= MAX_K:
        raise InvalidInput("k", k, f"an integer from 1 to {MAX_K}")
    return k


def checked_timeout(timeout: object) -> float:
    """The timeout in seconds. Raises InvalidInput unless it is a number from 0 on."""
    if not isinstance(timeout, bool) and isinstance(timeout, int | float) and timeout >= 0:
        with suppress(OverflowError):
            return float(timeout)
    raise InvalidInput("timeout", timeout, "a number of seconds from 0 on")


def checked_chunk_id(number: object) -> ChunkId:
    """The chunk's number. Raises InvalidInput unless it is an integer that a chunk can have."""
    if type(number) is not int or not 0 <= number <= _INT8_MAX:
        raise InvalidInput("chunk_id", number, f"an integer from 0 to {_INT8_MAX}")
    return ChunkId(number)


def _utf8(text: str, field: str, allowed: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(field, text, allowed) from None
