"""Opens models off the event loop: some take seconds, or ask a service."""

import anyio.to_thread

from chunkstore.models.protocol import Model, ModelDescription
from chunkstore.models.specs import describe, open_model


async def opened(model: Model | str) -> Model:
    """The model, or the one that the spec names. Raises what `open_model` raises."""
    if isinstance(model, Model):
        return model
    return await anyio.to_thread.run_sync(open_model, model, abandon_on_cancel=True)


async def described(model: Model | str) -> ModelDescription:
    """What `describe` says. Raises what it raises."""
    if isinstance(model, Model):
        return describe(model)
    return await anyio.to_thread.run_sync(describe, model, abandon_on_cancel=True)
