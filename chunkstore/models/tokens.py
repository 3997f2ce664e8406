"""A model's own tokenizer: the tokens of a text, cut to what the model reads or uncut, and batches by tokens.

The file of a tokenizer may cut and pad by itself (MiniLM's cuts at 128, the model reads 256): neither is
kept, the model's own limit alone counts.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chunkstore.errors import UnknownModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_IN_BATCH: Final = 1024
"""Padded tokens that one batch of one thread holds at most: more do not fit a processor's caches."""


class Tokens:
    """Reads texts by `tokenizer`, of which it keeps copies; a model reads `most` tokens of each."""

    def __init__(self, tokenizer: "Tokenizer", most: int) -> None:
        self.most: Final = most
        self._counted: dict[str, int] = {}
        self.described: Final = tokenizer.to_str()
        self._cutting = tokenizer
        self._cutting.no_padding()
        self._cutting.enable_truncation(most)  # pyright: ignore[reportUnknownMemberType]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text's tokens, special ones included, at most `most`."""
        read = [encoding.ids for encoding in self._cutting.encode_batch_fast(list(texts))]
        pairs = zip(texts, map(len, read), strict=True)
        self._counted = {text: count for text, count in pairs if count < self.most}
        return read

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special ones included, uncut; of texts just read it is known."""
        counted = self._counted
        unknown = [text for text in texts if text not in counted]
        encoded = self._counting.encode_batch_fast(unknown) if unknown else []
        fresh = dict(zip(unknown, map(len, encoded), strict=True))
        counts = [fresh[text] if text in fresh else counted[text] for text in texts]
        if fresh:
            self._counted = dict(zip(texts, counts, strict=True))
        return counts

    @cached_property
    def _counting(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        counting = Tokenizer.from_str(self.described)
        counting.no_padding()
        counting.no_truncation()
        return counting


def read_tokenizer(file: Path, *, lowercase: bool) -> "Tokenizer":
    """The tokenizer in that file; `lowercase`: made to lower its texts first. Raises UnknownModel."""
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Lowercase
    from tokenizers.normalizers import Sequence as Normalizers

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise UnknownModel(f"{file}: not a tokenizer ({error})") from error
    if lowercase:
        old = tokenizer.normalizer
        tokenizer.normalizer = Normalizers([Lowercase(), *([] if old is None else [old])])
    return tokenizer


def batches(lengths: Sequence[int], most: int = MOST_IN_BATCH) -> Iterator[list[int]]:
    """The positions of the lengths in batches, longest first, each of at most `most` tokens when padded."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
