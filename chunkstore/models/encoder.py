"""BERT-like encoders on the CPU without torch: OpenVINO, one thread a core, batches bounded by tokens.

bfloat16 where the processor has instructions for it, float32 elsewhere: without them it is slower.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from chunkstore.errors import InvalidInput
from chunkstore.models.folder import Folder
from chunkstore.models.processor import cpus
from chunkstore.models.protocol import Distance
from chunkstore.models.tokens import Tokens, batches, read_tokenizer

if TYPE_CHECKING:
    from chunkstore.models.quiet_openvino import CompiledModel, InferRequest

Precision = Literal["bf16", "f32"]

LIBRARIES: Final = ("openvino", "tokenizers", "safetensors")


def is_installed() -> bool:
    """Whether the libraries that run it are there; none is imported."""
    return all(find_spec(library) is not None for library in LIBRARIES)


class EncoderModel:
    """A model whose `folder.encoder` is not None, with vectors of unit length, for cosine.

    `threads` is one for each processor that this process may use, unless given. `precision` is what the
    processor is fast at, unless given: `bf16` with such instructions, else `f32`.
    """

    distance: Distance = "cosine"

    def __init__(
        self, folder: Folder, name: str, *, threads: int | None = None, precision: Precision | None = None
    ) -> None:
        if folder.encoder is None or folder.max_tokens is None:
            raise InvalidInput("folder", str(folder.path), f"a BERT-like encoder; {folder.reason}")
        self.name: Final = name
        self.dimensions: Final = folder.encoder.hidden
        self.max_tokens: Final = folder.max_tokens
        self.document_prompt: Final = folder.document_prompt
        self._query_prompt = folder.query_prompt
        tokenizer = read_tokenizer(folder.path / "tokenizer.json", lowercase=folder.encoder.lowercase)
        self.tokens = Tokens(tokenizer, folder.max_tokens)
        threads = threads or cpus()
        compiled, self.precision = _compiled(folder, threads, precision)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
        self._requests: SimpleQueue[InferRequest] = SimpleQueue()
        for _ in range(threads + 1):  # one more: a query need not wait for a whole range of chunks
            self._requests.put(compiled.create_infer_request())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(n, dimensions) float32`, each row of length 1; texts of like length share a batch."""
        return self._embed([self.document_prompt + text for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """`(dimensions,) float32` of length 1, by the model's prompt or prefix for queries."""
        return self._embed([self._query_prompt + text])[0]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special ones and prompt included, uncut."""
        return self.tokens.counts([self.document_prompt + text for text in texts])

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = self.tokens.ids(texts)
        vectors = np.empty((len(texts), self.dimensions), np.float32)

        def infer(batch: list[int]) -> None:
            vectors[batch] = self._infer([tokens[position] for position in batch])

        parts = list(batches([len(one) for one in tokens]))
        if len(parts) == 1:
            infer(parts[0])
        else:
            list(self._pool.map(infer, parts))
        return vectors

    def _infer(self, batch: list[list[int]]) -> NDArray[np.float32]:
        lengths = np.fromiter(map(len, batch), np.int32, len(batch))
        padded = np.zeros((len(batch), lengths.max()), np.int32)
        for row, tokens in zip(padded, batch, strict=True):
            row[: len(tokens)] = tokens
        request = self._requests.get()
        try:
            request.infer([padded, lengths], share_inputs=True)
            return request.get_output_tensor(0).data.copy()
        finally:
            self._requests.put(request)


def _compiled(folder: Folder, threads: int, precision: Precision | None) -> "tuple[CompiledModel, Precision]":
    """The model compiled, each thread a stream of its own; and the precision it was compiled for."""
    from chunkstore.models.bert_graph import bert_graph
    from chunkstore.models.quiet_openvino import Core, Type

    assert folder.encoder is not None
    graph = bert_graph(folder.encoder, folder.path / "model.safetensors")
    core = Core()
    if precision is None:
        # The library's own choice on this processor: bfloat16 only where it has the instructions.
        chosen: Any = core.get_property("CPU", "INFERENCE_PRECISION_HINT")
        precision = "bf16" if chosen == Type.bf16 else "f32"
    settings = {
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,  # pinned streams of two processes would share one core
    }
    return core.compile_model(graph, "CPU", settings), precision
