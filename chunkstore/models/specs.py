"""Opens a model by its spec, and says what a model is without loading it where that is possible.

Specs: `hashing:D`, `minilm`, `sentence-transformers:PATH`, `openai:MODEL[,option=value…]`, and names by which
the store shows such a model, where `spec_of` knows them.
"""

from typing import get_args

from chunkstore.errors import InvalidInput, UnknownModel
from chunkstore.models import local
from chunkstore.models.endpoint import options as endpoint
from chunkstore.models.kinds import KINDS
from chunkstore.models.local import MINILM
from chunkstore.models.protocol import Distance, Model, ModelDescription

MAX_HASHING_DIMENSIONS = 4096
DEFAULT_HASHING_DIMENSIONS = 256
MAX_DIMENSIONS = 16_000
"""What the column type of the embeddings can hold."""

_SPECS = "one of: " + ", ".join(kind.spec for kind in KINDS) + "; `chunkstore models` says what each needs"
_DISTANCES: tuple[str, ...] = get_args(Distance)


def open_model(spec: str, *, device: str | None = None) -> Model:
    """The model that `spec` names, ready to embed.

    `device` (`cpu`, `cuda`, `mps`) is for models that run on one; the best there is unless given.
    Raises InvalidInput for a malformed spec, UnknownModel for a name that nothing answers to,
    MissingExtra where the library that runs it is not installed; where a service has to say its dimensions
    also ModelUnavailable, ModelRefused.
    """
    kind, argument = _parsed(spec)
    if kind == "hashing":
        from chunkstore.models.hashing import HashingModel

        return HashingModel(_hashing_dimensions(spec, argument))
    if kind == "openai":
        from chunkstore.models.endpoint.model import EndpointModel

        return EndpointModel(endpoint.read(argument))
    return local.open_local(local.minilm() if kind == "minilm" else local.read(argument), device)


def describe(model: Model | str) -> ModelDescription:
    """Name, dimensions and distance of a model or of a spec.

    A spec is loaded only if its dimensions are not known without (`sentence-transformers:PATH`, and
    `openai:MODEL` without dimensions, which asks the service).
    Raises InvalidInput if what the model says of itself cannot be stored, and what `open_model` raises.
    """
    if isinstance(model, Model):
        return _checked(ModelDescription(model.name, model.dimensions, model.distance))
    kind, argument = _parsed(model)
    if kind == "hashing":
        dimensions = _hashing_dimensions(model, argument)
        return ModelDescription(f"hashing-{dimensions}", dimensions, "cosine")
    if kind == "openai" and (known := endpoint.dimensions_of(options := endpoint.read(argument))):
        return ModelDescription(endpoint.name_of(options), known, "cosine")
    if kind == "minilm":
        return MINILM
    if kind == "sentence-transformers" and (read := local.describe_local(local.read(argument))):
        return _checked(read)
    return describe(open_model(model))


def name_of(model: Model | str) -> str:
    """The name of a model, or of what a spec opens; asks no service, loads nothing where that is possible."""
    if isinstance(model, Model):
        return model.name
    kind, argument = _parsed(model)
    return endpoint.name_of(endpoint.read(argument)) if kind == "openai" else describe(model).name


def _parsed(spec: object) -> tuple[str, str]:
    if not isinstance(spec, str) or not spec.strip():
        raise InvalidInput("model", spec, _SPECS)
    # What the store shows of a model is its name, which opens it too where it tells enough.
    kind, colon, argument = (spec_of(spec) or spec).partition(":")
    if kind not in {known.name for known in KINDS}:
        raise UnknownModel(f"no model answers to {ascii(spec)[:80]}; known is {_SPECS}")
    if (kind == "minilm" and colon) or (kind in ("sentence-transformers", "openai") and not argument.strip()):
        raise InvalidInput("model", spec, _SPECS)
    if kind == "hashing" and not colon:
        argument = str(DEFAULT_HASHING_DIMENSIONS)
    return kind, argument


def _hashing_dimensions(spec: str, argument: str) -> int:
    digits = argument if argument.isascii() and argument.isdigit() and len(argument) <= 4 else "0"
    if not 1 <= int(digits) <= MAX_HASHING_DIMENSIONS:
        raise InvalidInput("model", spec, f"hashing:D with D an integer from 1 to {MAX_HASHING_DIMENSIONS}")
    return int(digits)


def _checked(described: ModelDescription) -> ModelDescription:
    if not _is_name(described.name):
        raise InvalidInput("model.name", described.name, "printable text of 1 to 200 UTF-8 bytes")
    if type(described.dimensions) is not int or not 1 <= described.dimensions <= MAX_DIMENSIONS:
        raise InvalidInput("model.dimensions", described.dimensions, f"an integer from 1 to {MAX_DIMENSIONS}")
    if described.distance not in _DISTANCES:
        raise InvalidInput("model.distance", described.distance, f"one of {', '.join(_DISTANCES)}")
    return described


def spec_of(name: str) -> str | None:
    """The spec that opens the model of this stored name, where the name alone tells."""
    if name == MINILM.name:
        return "minilm"
    if name.startswith("openai:") and ",prefixes=" not in name:
        return name
    kind, dash, dimensions = name.partition("-")
    return f"hashing:{dimensions}" if kind == "hashing" and dash and dimensions.isdecimal() else None


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isprintable() and 1 <= len(name.encode()) <= 200
