"""Counts a model's tokens without the model, in any process: what a chunker sizes its chunks by."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from chunkstore.models import local
from chunkstore.models.protocol import Model
from chunkstore.models.tokens import Tokens, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter(msgspec.Struct, frozen=True, dict=True):
    """What a local model says of its tokens; `tokenizer` is its tokenizer as JSON. Can be pickled."""

    name: str
    max_tokens: int
    prompt: str
    tokenizer: str

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special ones and prompt included, uncut."""
        encoded = self._opened.encode_batch_fast([self.prompt + text for text in texts])
        return [len(encoding) for encoding in encoded]

    @cached_property
    def _opened(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        opened = Tokenizer.from_str(self.tokenizer)
        opened.no_padding()
        opened.no_truncation()
        return opened


def token_counter(model: Model | str) -> TokenCounter | None:
    """The counter of a local model, or of the spec of one; None for every other.

    Nothing is opened: of a spec, only the files of an encoder's folder are read. Raises MissingExtra, and
    UnknownModel where the folder is none.
    """
    if not isinstance(model, str):
        tokens, prompt = getattr(model, "tokens", None), getattr(model, "document_prompt", "")
        return _counter(model.name, tokens, prompt) if isinstance(tokens, Tokens) else None
    kind, _, argument = model.partition(":")
    if kind not in ("minilm", "sentence-transformers"):
        return None
    spec = local.minilm() if kind == "minilm" else local.read(argument)
    folder = local.folder_of(spec)
    if folder is None or folder.encoder is None or folder.max_tokens is None:
        return None
    local.check_tokenizers()
    tokenizer = read_tokenizer(folder.path / "tokenizer.json", lowercase=folder.encoder.lowercase)
    return _counter(spec.name, Tokens(tokenizer, folder.max_tokens), folder.document_prompt)


def _counter(name: str, tokens: Tokens, prompt: str) -> TokenCounter:
    return TokenCounter(name, tokens.most, prompt, tokens.described)
