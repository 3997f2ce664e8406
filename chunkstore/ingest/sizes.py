"""Measures of text by which a chunker bounds its chunks; all add up over parts cut at white space."""

import re
from collections.abc import Callable, Sequence

Measure = Callable[[str], int]

_TOKEN_PARTS = re.compile(r"[A-Z]?[a-z]{1,4}|[A-Z]|[0-9]{1,2}|[^\sA-Za-z0-9]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")


def estimated_tokens(text: str) -> int:
    """A cautious estimate of the word pieces that a BERT-like model makes of `text`; no tokenizer is loaded.

    Against MiniLM's tokenizer it is a fifth too high for prose, and for one chunk of source code in
    a hundred more than a sixth too low.
    """
    parts = len(_TOKEN_PARTS.findall(text))
    return parts if text.isascii() else parts + len(_HANGUL.findall(text))


class TokenMeasure:
    """The tokens that a model makes of a text, the special ones and a prompt of its own left out.

    `count` is the model's `count_tokens`, `name` tells one tokenizer from another. Where `count` can be
    pickled, so can the measure.
    """

    def __init__(self, count: Callable[[Sequence[str]], Sequence[int]], name: str) -> None:
        self.name = name
        self.special = count([""])[0]
        """Tokens of the empty text: they are in every text once."""
        self._count = count

    def __call__(self, text: str) -> int:
        """The tokens of one text."""
        return self.many([text])[0]

    def many(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        return [tokens - self.special for tokens in self._count(texts)] if texts else []


def measured(measure: Measure, texts: Sequence[str]) -> Sequence[int]:
    """The size of each text, together where the measure can do that."""
    together: Callable[[Sequence[str]], Sequence[int]] | None = getattr(measure, "many", None)
    return [measure(text) for text in texts] if together is None else together(texts)
