"""The key of a service: read from the environment or a file, shown by no repr, error, log or pickle."""

import os
from pathlib import Path
from typing import Final

from chunkstore.errors import InvalidInput
from chunkstore.models.endpoint.options import DEFAULT_URL, Options, base_url

_MAX_CHARACTERS: Final = 10_000
_HIDDEN: Final = "…"


class ApiKey:
    """A secret, or the knowledge that there is none."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None) -> None:
        self._value = value

    def headers(self) -> dict[str, str]:
        """The header that proves who asks; none without a key."""
        return {} if self._value is None else {"Authorization": f"Bearer {self._value}"}

    def scrubbed(self, text: str) -> str:
        """The text without the key, wherever it was repeated."""
        return text if self._value is None else text.replace(self._value, _HIDDEN)

    def __repr__(self) -> str:
        return "ApiKey(none)" if self._value is None else f"ApiKey({_HIDDEN})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a key is not written anywhere")


def find_key(options: Options) -> ApiKey:
    """The key that the options name, else OPENAI_API_KEY, else what OPENAI_API_KEY_FILE holds, else none.

    The two variables belong to the address in OPENAI_BASE_URL or to OpenAI's own: a service whose address
    stands in the spec never sees them. Raises InvalidInput.
    """
    if options.key_env is not None:
        return _checked(os.environ.get(options.key_env, ""), f"key_env={options.key_env}")
    if options.key_file is not None:
        return _from_file(options.key_file, "key_file")
    if options.url is not None:
        return ApiKey(None)
    if value := os.environ.get("OPENAI_API_KEY"):
        return _checked(value, "OPENAI_API_KEY")
    if path := os.environ.get("OPENAI_API_KEY_FILE"):
        return _from_file(path, "OPENAI_API_KEY_FILE")
    if base_url(options) == DEFAULT_URL:
        raise InvalidInput(
            "OPENAI_API_KEY",
            None,
            f"{DEFAULT_URL} wants a key: set OPENAI_API_KEY, or OPENAI_API_KEY_FILE to the file with it;"
            " for another service set OPENAI_BASE_URL, or give url=… in the spec",
        )
    return ApiKey(None)


def _from_file(path: str, field: str) -> ApiKey:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            return _checked(file.read(_MAX_CHARACTERS + 1), f"{field}={path}")
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(field, path, f"a readable file of text ({type(error).__name__})") from None


def _checked(value: str, field: str) -> ApiKey:
    stripped = value.strip()
    if not 1 <= len(stripped) <= _MAX_CHARACTERS or not stripped.isascii() or not stripped.isprintable():
        shown = "what it holds" if stripped else "nothing"
        raise InvalidInput(field, shown, "one line of visible ASCII characters: the key alone")
    if " " in stripped:
        raise InvalidInput(field, "what it holds", "one word: the key alone, without `Bearer`")
    return ApiKey(stripped)
