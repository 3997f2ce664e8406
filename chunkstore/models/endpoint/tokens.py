"""How many tokens a text has: by a tokenizer that the user names, else by an estimate that says so."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from chunkstore.errors import InvalidInput, MissingExtra, UnknownModel

BYTES_PER_TOKEN: Final = 3
"""The estimate: English prose has more bytes to a token, Chinese about as many, numbers and emoji fewer."""

Counter = Callable[[Sequence[str]], list[int]]


def estimated(texts: Sequence[str]) -> list[int]:
    """About how many tokens each text has: one for every three bytes of UTF-8, rounded up."""
    return [-(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN) for text in texts]


def counter(tokenizer: str | None) -> Counter:
    """What counts by `tiktoken:ENCODING` or the `tokenizer.json` of that path; without a name `estimated`.

    Raises InvalidInput, UnknownModel where there is no such encoding, MissingExtra.
    """
    if tokenizer is None:
        return estimated
    kind, colon, encoding = tokenizer.partition(":")
    if kind == "tiktoken" and colon:
        return _by_tiktoken(encoding)
    return _by_file(Path(tokenizer).expanduser())


def _by_tiktoken(name: str) -> Counter:
    if find_spec("tiktoken") is None:
        raise MissingExtra("tiktoken is not installed: pip install 'chunkstore[tiktoken]'")
    import tiktoken

    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:
        raise UnknownModel(
            f"tokenizer: tiktoken has no encoding {name!r}, or cannot fetch it ({type(error).__name__});"
            " it keeps what it fetched in the folder TIKTOKEN_CACHE_DIR"
        ) from error

    def count(texts: Sequence[str]) -> list[int]:
        return [len(tokens) for tokens in encoding.encode_batch(list(texts), disallowed_special=())]

    return count


def _by_file(path: Path) -> Counter:
    if find_spec("tokenizers") is None:
        raise MissingExtra("tokenizers is not installed: pip install tokenizers")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        allowed = "tiktoken:ENCODING, or the path of a tokenizer.json"
        raise InvalidInput("tokenizer", str(path), allowed) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))]

    return count
