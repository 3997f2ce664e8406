"""Reads a folder in the format of sentence-transformers: what the model is, without loading it.

A folder that is none is said to be none here, before any library that runs models is asked.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from chunkstore.errors import UnknownModel

QUERY_PROMPTS: Final = ("query",)
DOCUMENT_PROMPTS: Final = ("document", "passage", "corpus")

Pooling = Literal["mean", "cls"]
T = TypeVar("T")

_POSITIONS_BEGIN: Final = {"bert": 0, "roberta": 2, "xlm-roberta": 2}
"""The encoders of one shape, by `model_type`, and the row of the position table that is the first token's."""
_ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
_NORMALIZE, _POOLING, _DENSE, _TRANSFORMER = "Normalize", "Pooling", "Dense", "Transformer"
_LEGACY_POOLING: Final = "pooling_mode_"


class Encoder(msgspec.Struct, frozen=True):
    """The shape of a BERT-like encoder whose token vectors are pooled, as its configuration says it."""

    hidden: int
    layers: int
    heads: int
    epsilon: float
    activation: str
    inner: int
    words: int
    positions: int
    first_position: int
    pooling: Pooling
    lowercase: bool


class Folder(msgspec.Struct, frozen=True):
    """A model on disk. `dimensions` and `max_tokens` are None where only its library can tell."""

    path: Path
    dimensions: int | None
    max_tokens: int | None
    query_prompt: str
    document_prompt: str
    encoder: Encoder | None
    """None where the folder is no encoder of the shape that the light back end runs; `reason` says why."""
    reason: str


def first_prompt(prompts: Mapping[str, str | None], *names: str) -> str:
    """The first of the prompts of these names that is there, else the default one, which is named ``.

    As `encode_query` and `encode_document` of sentence-transformers choose.
    """
    return next((found for name in (*names, "") if (found := prompts.get(name)) is not None), "")


def read_folder(path: Path) -> Folder:
    """What the model in the folder is. Raises UnknownModel where there is none, or a file of it is broken."""
    if not path.is_dir():
        raise UnknownModel(f"{path}: no such folder")
    if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
        raise UnknownModel(f"{path}: no model: the folder has neither modules.json nor config.json")
    modules = _modules(path)
    prompts = _prompts(path)
    encoder, reason, max_tokens = None, "", None
    try:
        encoder, max_tokens = _encoder(path, modules)
        _check_weights(path / "model.safetensors")
    except _Unsupported as error:
        encoder, reason = None, str(error)
    return Folder(
        path=path,
        dimensions=_dimensions(modules),
        max_tokens=max_tokens,
        query_prompt=first_prompt(prompts, *QUERY_PROMPTS),
        document_prompt=first_prompt(prompts, *DOCUMENT_PROMPTS),
        encoder=encoder,
        reason=reason,
    )


class _Unsupported(Exception):
    """Why the light back end does not run a model that others do."""


class _Config(msgspec.Struct, frozen=True):
    """What of an encoder's `config.json` counts."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    hidden_act: str
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "absolute"
    is_decoder: bool = False


class _Settings(msgspec.Struct, frozen=True):
    """What of `sentence_bert_config.json` counts."""

    max_seq_length: int | None = None
    do_lower_case: bool = False


class _Listed(msgspec.Struct, frozen=True):
    """One entry of `modules.json`."""

    type: str
    path: str = ""


class _Prompts(msgspec.Struct, frozen=True):
    """What of `config_sentence_transformers.json` counts."""

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None


class _Module(msgspec.Struct, frozen=True):
    kind: str
    path: Path
    config: dict[str, Any]


def _modules(path: Path) -> list[_Module]:
    """The modules in order; empty for a plain encoder, which sentence-transformers completes itself."""
    if not (path / "modules.json").is_file():
        return []
    found: list[_Module] = []
    for listed in _read(path / "modules.json", list[_Listed]):
        place = path / listed.path
        found.append(_Module(listed.type.rpartition(".")[2], place, _optional(place / "config.json")))
    return found


def _prompts(path: Path) -> dict[str, str | None]:
    file = path / "config_sentence_transformers.json"
    config = _read(file, _Prompts) if file.is_file() else _Prompts()
    prompts = config.prompts or {}
    default = config.default_prompt_name
    return prompts if default is None else {**prompts, "": prompts.get(default)}


def _dimensions(modules: list[_Module]) -> int | None:
    for module in reversed(modules):
        if module.kind == _DENSE:
            return module.config.get("out_features")
        if module.kind == _POOLING:
            width = module.config.get("word_embedding_dimension", module.config.get("embedding_dimension"))
            return None if width is None else width * len(_pooling_modes(module))
    return None


def _encoder(path: Path, modules: list[_Module]) -> tuple[Encoder, int]:
    """The shape of the encoder and how many tokens of a text it reads."""
    kinds = [module.kind for module in modules if module.kind != _NORMALIZE]
    if kinds != [_TRANSFORMER, _POOLING]:
        raise _Unsupported(f"its modules are {', '.join(kinds) or 'not listed'}")
    transformer, pooling = modules[0], modules[1]
    if transformer.path != path:
        raise _Unsupported("its encoder is in a folder of its own")
    try:
        config = msgspec.convert(transformer.config, _Config, strict=False)
        settings = msgspec.convert(_optional(path / "sentence_bert_config.json"), _Settings)
    except msgspec.ValidationError as error:
        raise _Unsupported(f"its configuration is unusual ({error})") from error
    first = _POSITIONS_BEGIN.get(config.model_type)
    if first is None:
        raise _Unsupported(f"its encoder is of the type {config.model_type!r}")
    if config.position_embedding_type != "absolute" or config.is_decoder:
        raise _Unsupported("its encoder has relative positions or is a decoder")
    if config.hidden_act not in _ACTIVATIONS:
        raise _Unsupported(f"its activation is {config.hidden_act!r}")
    if not (path / "tokenizer.json").is_file():
        raise _Unsupported("it has no tokenizer.json")
    encoder = Encoder(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        epsilon=config.layer_norm_eps,
        activation=config.hidden_act,
        inner=config.intermediate_size,
        words=config.vocab_size,
        positions=config.max_position_embeddings,
        first_position=first,
        pooling=_pooling(pooling),
        lowercase=settings.do_lower_case,
    )
    return encoder, _max_tokens(path, settings, config.max_position_embeddings - first)


def _pooling(module: _Module) -> Pooling:
    modes = _pooling_modes(module)
    if module.config.get("include_prompt") is False:
        raise _Unsupported("its pooling leaves out the prompt")
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise _Unsupported(f"its pooling is {' and '.join(modes)}")


def _pooling_modes(module: _Module) -> list[str]:
    named = module.config.get("pooling_mode")
    if named is not None:
        return [named] if isinstance(named, str) else list(named)
    flags = {
        name.removeprefix(_LEGACY_POOLING).removesuffix("_token").removesuffix("_tokens")
        for name, on in module.config.items()
        if name.startswith(_LEGACY_POOLING) and on is True
    }
    return sorted(flags) or ["mean"]


def _max_tokens(path: Path, settings: _Settings, positions: int) -> int:
    """What the model's makers set, else what its tokenizer says; never more than it has positions for."""
    limit = settings.max_seq_length
    if limit is None:
        limit = _optional(path / "tokenizer_config.json").get("model_max_length")
    return min(positions, positions if limit is None else int(limit))


def _check_weights(file: Path) -> None:
    """Raises _Unsupported without one file of safetensors, UnknownModel where it is cut short or no such."""
    if not file.is_file():
        raise _Unsupported("it has no model.safetensors")
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length < size else b""
    try:
        tensors: dict[str, Any] = json.loads(header)
        tensors.pop("__metadata__", None)
        end = max(tensor["data_offsets"][1] for tensor in tensors.values())
        kinds = {tensor["dtype"] for tensor in tensors.values()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnknownModel(f"{file}: not a file of safetensors") from error
    if size != 8 + length + end:
        raise UnknownModel(f"{file}: {size:,} bytes long, but its header says {8 + length + end:,}")
    if not kinds <= {"F32", "F16", "I64"}:
        raise _Unsupported(f"its weights are of the types {', '.join(sorted(kinds))}")


def _read(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise UnknownModel(f"{file}: cannot be read ({error})") from error


def _optional(file: Path) -> dict[str, Any]:
    return _read(file, dict[str, Any]) if file.is_file() else {}
