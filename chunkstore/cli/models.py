"""Opens models for the commands: off the event loop, and so that Ctrl-C need not wait for them."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from chunkstore.cli.output import say, working
from chunkstore.errors import (
    ChunkstoreError,
    InvalidInput,
    MissingExtra,
    ModelRefused,
    ModelUnavailable,
    UnknownModel,
)

if TYPE_CHECKING:
    from chunkstore.models import Model
    from chunkstore.store import ChunkStore


async def load(spec: str, device: str | None = None, *, shown: bool = True) -> "Model":
    """The model of a spec; `shown`: with a sign that it takes time. Raises what `open_model` raises."""
    from chunkstore.models import open_model

    with working(f"loading the model {spec}") if shown else nullcontext():
        return await anyio.to_thread.run_sync(
            partial(open_model, spec, device=device), abandon_on_cancel=True
        )


def spec_for(name: str) -> str:
    """The spec of a stored model's name. Raises UnknownModel where only the user can know it."""
    from chunkstore.models import spec_of

    spec = spec_of(name)
    if spec is None:
        raise UnknownModel(f"model: {name!r} cannot be opened by its name alone: give it with --model")
    return spec


async def names(store: "ChunkStore") -> list[str]:
    """The names of every model that the store embeds with. Raises UnknownModel where it has none yet."""
    from chunkstore import catalog

    async with store.database.transaction() as conn:
        known = [model.name for model in await catalog.every_model(conn)]
    if not known:
        raise UnknownModel("model: the store has no collection yet, so nothing to do: create one first")
    return known


async def load_all(
    store: "ChunkStore", specs: Sequence[str] | None, device: str | None
) -> "tuple[list[Model], bool]":
    """The models of the specs, or without any those that the store embeds with; and whether these are all.

    One of the store's own that cannot be opened is said and left out, unless it is the only one. Raises
    what `open_model` raises otherwise.
    """
    if specs:
        return [await load(spec, device) for spec in specs], True
    opened: list[Model] = []
    refused: list[ChunkstoreError] = []
    for name in await names(store):
        try:
            opened.append(await load(spec_for(name), device))
        except (MissingExtra, UnknownModel, InvalidInput, ModelRefused, ModelUnavailable) as error:
            refused.append(error)
    if not opened:
        raise refused[0]
    for error in refused:
        say(f"left out: {error}")
    return opened, not refused


def name_of(given: str) -> str:
    """The stored name of a model that is given by its name or its spec."""
    from chunkstore import models

    try:
        return models.name_of(given)
    except (InvalidInput, UnknownModel):
        return given
