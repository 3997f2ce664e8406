"""The graph of a BERT-like encoder in OpenVINO, made from the model's own weights.

Pooling and normalisation are inside, so that one call turns tokens into vectors of unit length.
Sources: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018; Reimers and
Gurevych, "Sentence-BERT", 2019.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from chunkstore.errors import UnknownModel
from chunkstore.models.folder import Encoder
from chunkstore.models.quiet_openvino import Model, opset13

Node = Any
"""A node or one of its outputs: OpenVINO's operations take either."""

op: Any = opset13  # its stubs name no types of what they return

_PREFIXES: Final = ("", "bert.", "roberta.")
_WORDS: Final = "embeddings.word_embeddings.weight"
_MASKED: Final = -1e9


def bert_graph(encoder: Encoder, weights: Path) -> Model:
    """The graph that turns `(n, length) int32` tokens and `(n,) int32` lengths into `(n, hidden) float32`.

    What stands in a row of tokens after its length does not count. Raises UnknownModel where the file's
    weights are not those of such an encoder.
    """
    graph = _Graph(encoder, _Weights(weights))
    tokens = op.parameter([-1, -1], np.int32, name="tokens")
    lengths = op.parameter([-1], np.int32, name="lengths")
    positions = graph.positions(tokens)
    real = op.convert(op.less(op.unsqueeze(positions, _int(0)), op.unsqueeze(lengths, _int(1))), "f32")
    vectors = graph.embedded(tokens, positions)
    bias = op.unsqueeze(op.multiply(op.subtract(_float(1), real), _float(_MASKED)), _ints(1, 2))
    for layer in range(encoder.layers):
        vectors = graph.layer(f"encoder.layer.{layer}", vectors, bias)
    pooled = _mean(vectors, real) if encoder.pooling == "mean" else op.gather(vectors, _int(0), _int(1))
    unit = op.normalize_l2(pooled, _ints(1), 1e-24, "max")
    make: Any = Model  # its stub names another class of the same name
    return make([op.result(unit)], [tokens, lengths], "encoder")


class _Weights:
    """The tensors of a file, as float32."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tensors = load_file(file)
        self._prefix = next((prefix for prefix in _PREFIXES if prefix + _WORDS in self._tensors), "")

    def __call__(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor of that name. Raises UnknownModel where it is missing or of another shape."""
        tensor = self._tensors.get(self._prefix + name)
        if tensor is None:
            raise UnknownModel(f"{self._file}: the weights lack {self._prefix}{name}")
        if tensor.shape != shape:
            raise UnknownModel(f"{self._file}: {self._prefix}{name} is {tensor.shape}, not {shape}")
        return np.ascontiguousarray(tensor, np.float32)

    def first_token_type(self, hidden: int) -> NDArray[np.float32]:
        """`(hidden,) float32`: a text alone is all of the first type, so its vector is always added."""
        types = self._tensors.get(f"{self._prefix}embeddings.token_type_embeddings.weight")
        return np.zeros(hidden, np.float32) if types is None else np.asarray(types[0], np.float32)


class _Graph:
    """The parts of the graph, each in the words of the weights' names."""

    def __init__(self, encoder: Encoder, weights: _Weights) -> None:
        self._encoder = encoder
        self._weights = weights
        self._head = encoder.hidden // encoder.heads

    def positions(self, tokens: Node) -> Node:
        """`(length,) int32`: 0, 1, 2, and so on."""
        length = op.gather(op.shape_of(tokens, "i32"), _int(1), _int(0))
        return op.range(_int(0), length, _int(1), "i32")

    def embedded(self, tokens: Node, positions: Node) -> Node:
        encoder = self._encoder
        words = self._weights(_WORDS, encoder.words, encoder.hidden)
        places = self._weights("embeddings.position_embeddings.weight", encoder.positions, encoder.hidden)
        places = places[encoder.first_position :] + self._weights.first_token_type(encoder.hidden)
        by_word = op.gather(_constant(words), tokens, _int(0))
        by_place = op.gather(_constant(places), positions, _int(0))
        return self._norm("embeddings.LayerNorm", op.add(by_word, by_place))

    def layer(self, name: str, vectors: Node, bias: Node) -> Node:
        hidden, inner = self._encoder.hidden, self._encoder.inner
        attended = self._attention(f"{name}.attention.self", vectors, bias)
        out = self._linear(f"{name}.attention.output.dense", attended, hidden, hidden)
        vectors = self._norm(f"{name}.attention.output.LayerNorm", op.add(vectors, out))
        between = self._activated(self._linear(f"{name}.intermediate.dense", vectors, hidden, inner))
        out = self._linear(f"{name}.output.dense", between, inner, hidden)
        return self._norm(f"{name}.output.LayerNorm", op.add(vectors, out))

    def _attention(self, name: str, vectors: Node, bias: Node) -> Node:
        # The scale is in the query's weights already, which saves a pass over the scores.
        query = self._heads(self._linear_of_hidden(f"{name}.query", vectors, self._head**-0.5))
        key = self._heads(self._linear_of_hidden(f"{name}.key", vectors))
        value = self._heads(self._linear_of_hidden(f"{name}.value", vectors))
        scores = op.add(op.matmul(query, key, transpose_a=False, transpose_b=True), bias)
        mixed = op.matmul(op.softmax(scores, -1), value, transpose_a=False, transpose_b=False)
        together = op.transpose(mixed, _ints(0, 2, 1, 3))
        return op.reshape(together, _ints(0, 0, self._encoder.hidden), special_zero=True)

    def _heads(self, vectors: Node) -> Node:
        shape = _ints(0, 0, self._encoder.heads, self._head)
        return op.transpose(op.reshape(vectors, shape, special_zero=True), _ints(0, 2, 1, 3))

    def _linear_of_hidden(self, name: str, vectors: Node, scale: float = 1.0) -> Node:
        return self._linear(name, vectors, self._encoder.hidden, self._encoder.hidden, scale)

    def _linear(self, name: str, vectors: Node, width: int, out: int, scale: float = 1.0) -> Node:
        weight = self._weights(f"{name}.weight", out, width) * np.float32(scale)
        bias = self._weights(f"{name}.bias", out) * np.float32(scale)
        return op.add(
            op.matmul(vectors, _constant(weight), transpose_a=False, transpose_b=True), _constant(bias)
        )

    def _norm(self, name: str, vectors: Node) -> Node:
        weight = self._weights(f"{name}.weight", self._encoder.hidden)
        bias = self._weights(f"{name}.bias", self._encoder.hidden)
        normal = op.mvn(
            vectors, _ints(-1), normalize_variance=True, eps=self._encoder.epsilon, eps_mode="inside_sqrt"
        )
        return op.add(op.multiply(normal, _constant(weight)), _constant(bias))

    def _activated(self, vectors: Node) -> Node:
        if self._encoder.activation == "relu":
            return op.relu(vectors)
        return op.gelu(vectors, "erf" if self._encoder.activation == "gelu" else "tanh")


def _mean(vectors: Node, real: Node) -> Node:
    """The sum over real tokens, which points where their mean does; the length is made 1 afterwards."""
    return op.reduce_sum(op.multiply(vectors, op.unsqueeze(real, _int(2))), _int(1))


def _constant(array: NDArray[np.float32]) -> Node:
    return op.constant(array, shared_memory=True)


def _int(value: int) -> Node:
    return op.constant(np.array(value, np.int32))


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int32))


def _float(value: float) -> Node:
    return op.constant(np.array(value, np.float32))
