"""What a service answered, checked before it is used: a vector belongs to the text of its index, or to none.

Nothing is guessed: an answer with a missing, doubled or strange index is no answer.
"""

import json
from binascii import Error as NotBase64
from binascii import a2b_base64
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_SHOWN: Final = 300


class UnusableAnswer(Exception):
    """The body is not the answer to the request; says what is wrong with it, and shows none of it."""


class Answer(msgspec.Struct, frozen=True):
    """Vectors by position, what is wrong with those that are missing, and the tokens that it cost."""

    vectors: dict[int, NDArray[np.float32]]
    errors: dict[int, str]
    tokens: int | None
    """As the service counts them; None where it does not say."""


class _Item(msgspec.Struct):
    index: int
    embedding: list[float | None] | str


class _Body(msgspec.Struct):
    data: list[_Item]
    usage: Any = None


def read(body: bytes, texts: int, dimensions: int | None) -> Answer:
    """The vectors for so many texts; `dimensions` None where their length is still to be learnt.

    Raises UnusableAnswer. A vector of the wrong length among good ones is an error of its text alone. Whether
    the numbers can be stored (NaN, infinity, zero) is checked by the caller, as for every model.
    """
    decoded = _decoded(body)
    indexes = [item.index for item in decoded.data]
    if sorted(indexes) != list(range(texts)):
        raise UnusableAnswer(_about_indexes(indexes, texts))
    vectors: dict[int, NDArray[np.float32]] = {}
    errors: dict[int, str] = {}
    for item in decoded.data:
        vector = _vector(item)
        if dimensions is not None and len(vector) != dimensions:
            errors[item.index] = f"the vector has {len(vector):,} numbers, not {dimensions:,}"
        else:
            vectors[item.index] = vector
    if not vectors:
        raise UnusableAnswer(next(iter(errors.values())))
    if dimensions is None and len({len(vector) for vector in vectors.values()} - {0}) != 1:
        raise UnusableAnswer("the vectors are empty, or not of one length")
    return Answer(vectors, errors, _tokens(decoded.usage))


def message(body: bytes) -> str:
    """What an error's body says, in a line, where it says something that is meant for reading."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "an HTML page" if body.lstrip()[:1] == b"<" else ""
    for _ in range(3):
        if isinstance(found, dict):
            fields: dict[str, Any] = found
            found = next(
                (fields[key] for key in ("error", "message", "detail", "msg") if fields.get(key)), ""
            )
        elif isinstance(found, list) and found:
            found = found[0]
    text = " ".join(found.split()) if isinstance(found, str) else ""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _decoded(body: bytes) -> _Body:
    try:
        try:
            return msgspec.json.decode(body, type=_Body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # Some services write NaN and Infinity, which JSON does not have: it is then one vector's fault.
            return msgspec.convert(json.loads(body), _Body)
    except msgspec.ValidationError as error:
        raise UnusableAnswer(f"it is not an answer of /v1/embeddings: {error}") from None
    except (ValueError, RecursionError) as error:
        what = "an HTML page" if body.lstrip()[:1] == b"<" else "broken off, or no JSON"
        raise UnusableAnswer(f"it is {what} ({type(error).__name__}, {len(body):,} bytes)") from None


def _about_indexes(indexes: list[int], texts: int) -> str:
    if len(indexes) != texts:
        return f"it has {len(indexes):,} vectors for {texts:,} texts"
    missing = min(set(range(texts)) - set(indexes))
    return f"no vector has the index {missing}: indexes are doubled, or out of range"


def _vector(item: _Item) -> NDArray[np.float32]:
    if isinstance(item.embedding, list):
        with np.errstate(over="ignore"):  # infinity is found, and named, with the others
            return np.array(item.embedding, np.float64).astype(np.float32)
    try:
        raw = a2b_base64(item.embedding, strict_mode=True)
    except (NotBase64, ValueError) as error:
        raise UnusableAnswer(f"the vector of index {item.index} is no base64 ({error})") from None
    if len(raw) % 4:
        raise UnusableAnswer(
            f"the vector of index {item.index} has {len(raw):,} bytes, not 4 for each number"
        )
    return np.frombuffer(raw, "<f4").astype(np.float32)


def _tokens(usage: object) -> int | None:
    if not isinstance(usage, dict):
        return None
    fields: dict[str, object] = usage
    for key in ("total_tokens", "prompt_tokens"):
        counted = fields.get(key)
        if type(counted) is int and 0 < counted < 2**53:
            return counted
    return None
