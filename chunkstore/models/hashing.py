"""A model that costs nothing: signed feature hashing of words and word pairs, for tests and trials.

Texts that share words are near each other, and the same text has the same vector on every machine.
Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from chunkstore.models.protocol import Distance

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_TOKENS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
"""Runs of word characters; scripts that write no spaces count by character."""

_PAIR_WEIGHT: Final = 0.5
_BINS_AT_ONCE: Final = 1 << 20
_MIX_LEFT = np.uint64(0x9E3779B97F4A7C15)
_MIX_RIGHT = np.uint64(0xC2B2AE3D27D4EB4F)


class HashingModel:
    """`hashing-D`: D dimensions, unit length, cosine; never a zero vector."""

    distance: Distance = "cosine"

    def __init__(self, dimensions: int = 256) -> None:
        self.dimensions: Final = dimensions
        self.name: Final = f"hashing-{dimensions}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, each row of length 1."""
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        rows_at_once = max(1, _BINS_AT_ONCE // self.dimensions)
        for first in range(0, len(texts), rows_at_once):
            block = texts[first : first + rows_at_once]
            vectors[first : first + len(block)] = self._embed_block(block)
        return vectors

    def _embed_block(self, texts: Sequence[str]) -> NDArray[np.float64]:
        tokens = [_TOKENS.findall(text.lower()) or [text] for text in texts]
        hashes, rows = _hashed(tokens)
        pair_hashes, pair_rows = _pairs(hashes, rows)
        sums: NDArray[np.float64] = self._summed(len(texts), hashes, rows, 1.0)
        sums += self._summed(len(texts), pair_hashes, pair_rows, _PAIR_WEIGHT)
        self._fill_zeros(sums, texts)
        # Sums are multiples of a half, so every machine gets the same squares and the same norm.
        norms: NDArray[np.float64] = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
        return sums / norms

    def _summed(
        self, n: int, hashes: NDArray[np.uint64], rows: NDArray[np.int64], weight: float
    ) -> NDArray[np.float64]:
        dimensions = (hashes >> np.uint64(33)) % np.uint64(self.dimensions)
        bins = rows * self.dimensions + dimensions.astype(np.int64)
        signed = np.where(hashes >> np.uint64(32) & np.uint64(1), weight, -weight)
        summed = np.bincount(bins, weights=signed, minlength=n * self.dimensions)
        return summed.astype(np.float64, copy=False).reshape(n, self.dimensions)

    def _fill_zeros(self, sums: NDArray[np.float64], texts: Sequence[str]) -> None:
        """Gives a text whose features cancelled each other one feature: the text itself."""
        for row in np.flatnonzero(~sums.any(axis=1)).tolist():
            sums[row, crc32(_encoded(texts[row])) % self.dimensions] = 1.0


def _hashed(tokens: list[list[str]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A well-mixed hash of every token, and the text that it is in."""
    counts = np.fromiter(map(len, tokens), np.int64, len(tokens))
    checksums = map(crc32, map(_encoded, chain.from_iterable(tokens)))
    hashes = np.fromiter(checksums, np.uint64, int(counts.sum()))
    return _mixed(hashes * _MIX_LEFT), np.repeat(np.arange(len(tokens)), counts)


def _pairs(
    hashes: NDArray[np.uint64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    inside = rows[1:] == rows[:-1]
    mixed = _mixed(hashes[:-1] * _MIX_LEFT + hashes[1:] * _MIX_RIGHT)
    return mixed[inside], rows[1:][inside]


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _MIX_RIGHT
    return hashes ^ (hashes >> np.uint64(32))


def _encoded(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
