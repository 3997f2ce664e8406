"""Any model of sentence-transformers, on any device, offline; batches are bounded by their tokens.

Nothing is fetched: a model that is not on this machine is an error.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import InvalidInput, UnknownModel
from chunkstore.models.folder import DOCUMENT_PROMPTS, QUERY_PROMPTS, first_prompt
from chunkstore.models.processor import cpus
from chunkstore.models.protocol import Distance
from chunkstore.models.tokens import Tokens, batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_MOST_ON_CPU: Final = 4096
"""Padded tokens of a batch: smaller ones leave torch's threads waiting for each other."""
_MOST_ON_ACCELERATOR: Final = 32_768
_BATCH: Final = 32
_PLAIN: Final = {"show_progress_bar": False, "convert_to_numpy": True, "normalize_embeddings": True}
_NO_LIMIT: Final = 1_000_000
"""Tokenizers that know no limit say a number beyond any text."""


def open_with_torch(
    path: str | Path,
    name: str,
    *,
    device: str | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
) -> "SentenceTransformersModel":
    """The model in a folder, or of a name in this machine's cache of the hub.

    A prompt of None is the model's own. Raises UnknownModel, and InvalidInput for a device that is not there.
    """
    loaded = _loaded(path, device)
    own: dict[str, str | None] = {**loaded.prompts, "": loaded.prompts.get(loaded.default_prompt_name or "")}
    prompts = (
        first_prompt(own, *QUERY_PROMPTS) if query_prompt is None else query_prompt,
        first_prompt(own, *DOCUMENT_PROMPTS) if document_prompt is None else document_prompt,
    )
    tokens = _tokens(loaded)
    if tokens is None:
        return SentenceTransformersModel(loaded, name, prompts)
    return CountingModel(loaded, name, prompts, tokens)


class SentenceTransformersModel:
    """A model with vectors of unit length, for cosine. `prompts` are for queries and for chunks."""

    distance: Distance = "cosine"

    def __init__(self, loaded: "SentenceTransformer", name: str, prompts: tuple[str, str]) -> None:
        dimensions = loaded.get_embedding_dimension()
        if dimensions is None:
            raise UnknownModel(f"{name}: the model does not say how long its vectors are")
        self.name: Final = name
        self.dimensions: Final = dimensions
        self._model: Any = loaded
        self._query_prompt, self.document_prompt = prompts

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, `cuda:0`, `mps:0`."""
        return str(self._model.device)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, each row of length 1; texts of like length share a batch."""
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for batch in self._batches(texts):
            chosen = [texts[position] for position in batch]
            vectors[batch] = self._model.encode_document(
                chosen, prompt=self.document_prompt, batch_size=len(chosen), **_PLAIN
            )
        return vectors

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """`(dimensions,) float32` of length 1, by the model's prompt or prefix for queries."""
        encoded: Any = self._model.encode_query([text], prompt=self._query_prompt, **_PLAIN)
        return np.asarray(encoded[0], np.float32)

    def _batches(self, texts: Sequence[str]) -> list[list[int]]:
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        return [order[first : first + _BATCH] for first in range(0, len(order), _BATCH)]


class CountingModel(SentenceTransformersModel):
    """One whose tokenizer is known: batches are bounded by tokens, and so is what it reads of a text."""

    def __init__(
        self, loaded: "SentenceTransformer", name: str, prompts: tuple[str, str], tokens: Tokens
    ) -> None:
        super().__init__(loaded, name, prompts)
        self.tokens = tokens
        self._most = _MOST_ON_CPU if self.device == "cpu" else _MOST_ON_ACCELERATOR

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the model reads, special ones and prompt included."""
        return self.tokens.most

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special ones and prompt included, uncut."""
        return self.tokens.counts([self.document_prompt + text for text in texts])

    def _batches(self, texts: Sequence[str]) -> list[list[int]]:
        read = (min(count, self.max_tokens) for count in self.count_tokens(texts))
        return list(batches(list(read), self._most))


def _loaded(path: str | Path, device: str | None) -> "SentenceTransformer":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(min(torch.get_num_threads(), cpus()))
    chosen = _device(device)
    try:
        loaded = SentenceTransformer(str(path), device=chosen, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UnknownModel(
            f"{path}: no folder with a sentence-transformers model, no name in this machine's cache"
        ) from error
    # Weights kept in half precision are slower on a processor, and less exact.
    return loaded.float() if chosen == "cpu" else loaded


def _tokens(loaded: "SentenceTransformer") -> Tokens | None:
    """The model's tokenizer and limit, where it is of the kind that all encoders of text have."""
    from tokenizers import Tokenizer

    backend: Any = getattr(loaded.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    most = loaded.max_seq_length
    return Tokens(Tokenizer.from_str(backend.to_str()), min(most or _NO_LIMIT, _NO_LIMIT))


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
