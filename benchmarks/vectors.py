"""Vectors of texts, none embedded twice: not in one run, nor in the next where a folder keeps them."""

import sys
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from chunkstore.models.protocol import Model

_AT_ONCE = 512
"""Texts that are embedded and kept together: what a run that is stopped loses."""
_KEY_BYTES = 16
_SAID_EVERY = 10.0
"""Seconds between two words on how far it is."""


class Vectors:
    """The vectors of one model, of unit length, in half precision as the store's own index has them."""

    def __init__(self, model: Model, folder: Path | None = None) -> None:
        self._model = model
        self._row = np.dtype([("key", f"V{_KEY_BYTES}"), ("vector", np.float16, (model.dimensions,))])
        self._kept = None if folder is None else folder / f"{model.name}.f16"
        self._found: dict[bytes, NDArray[np.float16]] = {}
        if self._kept is not None and self._kept.exists():
            self._read(self._kept)

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, in the order of the texts."""
        self.add(texts)
        return np.stack([self._found[_key(text)] for text in texts]).astype(np.float32)

    def add(self, texts: Iterable[str]) -> None:
        """Embeds those that are new, and says on stderr how far it is."""
        new = {key: text for text in texts if (key := _key(text)) not in self._found}
        keys = list(new)
        begun = said = monotonic()
        for i in range(0, len(keys), _AT_ONCE):
            some = keys[i : i + _AT_ONCE]
            vectors = self._model.embed([new[key] for key in some])
            unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
            self._found.update(zip(some, unit, strict=True))
            self._keep(some, unit)
            now, done = monotonic(), i + len(some)
            if now - said >= _SAID_EVERY or (done == len(keys) and said > begun):
                said = now
                rate = done / (now - begun)
                left = (len(keys) - done) / rate / 60
                sys.stderr.write(
                    f"{done:,} of {len(keys):,} texts, {rate:.0f} a second, {left:.1f} min left\n"
                )

    def _read(self, kept: Path) -> None:
        data = kept.read_bytes()
        count = len(data) // self._row.itemsize  # a run that was killed may have left half a row
        rows = np.frombuffer(data, self._row, count)
        self._found = dict(zip((key.tobytes() for key in rows["key"]), rows["vector"], strict=True))
        if count * self._row.itemsize < len(data):
            kept.write_bytes(data[: count * self._row.itemsize])

    def _keep(self, keys: Sequence[bytes], vectors: NDArray[np.float16]) -> None:
        if self._kept is None:
            return
        rows = np.empty(len(keys), self._row)
        rows["key"] = [np.void(key) for key in keys]
        rows["vector"] = vectors
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        with self._kept.open("ab") as file:
            file.write(rows.tobytes())


def _key(text: str) -> bytes:
    return blake2b(text.encode(errors="replace"), digest_size=_KEY_BYTES).digest()
