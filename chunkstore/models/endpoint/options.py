"""What an endpoint is asked with: a spec read into checked options, and the name that they give the model.

`openai:MODEL[,option=value…]`. Nothing here needs the network or the library that speaks HTTP.
"""

import os
import re
from hashlib import blake2b
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from chunkstore.errors import InvalidInput

DEFAULT_URL: Final = "https://api.openai.com/v1"

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a spec. Limits left out are those that most services keep."""

    model: Annotated[str, Meta(min_length=1, max_length=150, pattern=r"^[^\s,]+$")]
    """The name by which the service knows the model."""
    dimensions: Annotated[int, Meta(ge=1, le=16_000)] | None = None
    """Asked of the service where it lets one choose, and what every vector must have."""
    url: str | None = None
    """Where the service is, up to and with `/v1`: else OPENAI_BASE_URL, else OpenAI's own."""
    key_env: str | None = None
    """The environment variable that holds the key."""
    key_file: str | None = None
    """The file that holds the key and nothing else."""
    document_prefix: str = ""
    """Put before every chunk's text."""
    query_prefix: str = ""
    """Put before every query's text."""
    max_tokens: Count | None = None
    """Tokens that the model reads of a text."""
    tokenizer: str | None = None
    """`tiktoken:ENCODING`, or the path of a `tokenizer.json`; without one, tokens are estimated."""
    inputs: Count = 64
    """Texts of one request, at most."""
    tokens: Count = 100_000
    """Tokens of one request, at most."""
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4
    """Requests under way at once."""
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    timeout: Seconds = 60.0
    """Seconds until the whole answer to a request must be there."""
    patience: Seconds = 30.0
    """Seconds during which a request is tried again before the service counts as down."""
    price: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """What a million tokens cost, in any currency."""


class Known(msgspec.Struct, frozen=True):
    """What a model is known for without asking its service."""

    dimensions: int
    max_tokens: int


KNOWN: Final = {
    "text-embedding-3-small": Known(1536, 8192),
    "text-embedding-3-large": Known(3072, 8192),
    "text-embedding-ada-002": Known(1536, 8192),
}
"""OpenAI's own models. Source: the reference of its embeddings endpoint."""

_ALLOWED: Final = "openai:MODEL[,option=value…], options: " + ", ".join(
    name for name in Options.__struct_fields__ if name != "model"
)


_LIKE_AN_OPTION: Final = re.compile("[a-z_]{1,20}")
"""What may be shown in an error: a key has digits or capitals."""


def read(argument: str) -> Options:
    """The options of what follows `openai:` in a spec; `%2C` stands for a comma in a value.

    Raises InvalidInput, which shows no value of an option: it may be a secret in the wrong place.
    """
    model, *rest = argument.split(",")
    given = {"model": model}
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals or name in given or name not in Options.__struct_fields__:
            shown = name if _LIKE_AN_OPTION.fullmatch(name) else f"what follows comma {len(given)}"
            raise _refused(given, f"{shown} is no option, has no value, or is there twice")
        given[name] = unquote(value)
    try:
        options = msgspec.convert(given, Options, strict=False)
    except msgspec.ValidationError as error:
        raise _refused(given, str(error)) from None
    if options.url is not None:
        checked_url(options.url, "url")
    if options.key_env is not None and options.key_file is not None:
        raise _refused(given, "give key_env or key_file, not both")
    return options


def _refused(given: dict[str, str], reason: str) -> InvalidInput:
    shown = ",".join([given["model"], *(f"{name}=…" for name in given if name != "model")])
    return InvalidInput("model", f"openai:{shown}", f"{reason}; {_ALLOWED}")


def name_of(options: Options) -> str:
    """The name of the model in a store; what changes its vectors is part of it.

    Without prefixes it is a spec that opens the model again.
    """
    name = f"openai:{options.model}"
    if options.dimensions is not None:
        name += f",dimensions={options.dimensions}"
    if options.document_prefix or options.query_prefix:
        prefixes = f"{options.document_prefix}\0{options.query_prefix}"
        name += f",prefixes={blake2b(prefixes.encode(), digest_size=4).hexdigest()}"
    return name


def dimensions_of(options: Options) -> int | None:
    """The length of the vectors, where it is known without asking the service."""
    known = KNOWN.get(options.model)
    return options.dimensions or (known.dimensions if known else None)


def base_url(options: Options) -> str:
    """Where the service is, without a slash at the end. Raises InvalidInput."""
    if options.url is not None:
        return checked_url(options.url, "url")
    return checked_url(os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL, "OPENAI_BASE_URL")


def checked_url(url: str, field: str) -> str:
    """The URL without `/embeddings` and without a slash at the end. Raises InvalidInput."""
    allowed = "http:// or https://, a host, and a path such as /v1; no user, password, query or fragment"
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidInput(field, "this URL", allowed) from None
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(field, f"{parts.scheme}://…@{parts.hostname}", allowed)
    whole = not (parts.query or parts.fragment) and url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one or not whole:
        raise InvalidInput(field, url.partition("?")[0], allowed)
    return url.rstrip("/").removesuffix("/embeddings").rstrip("/")
