"""A consumer and a projector for each model of a store, also for models that come later."""

from typing import TYPE_CHECKING

import anyio

from chunkstore import catalog
from chunkstore.cli import slow
from chunkstore.cli.models import load, spec_for
from chunkstore.cli.output import say
from chunkstore.errors import (
    ChunkstoreError,
    InvalidInput,
    MissingExtra,
    ModelRefused,
    ModelUnavailable,
    UnknownModel,
)
from chunkstore.retries import persistently

if TYPE_CHECKING:
    from rich.progress import Progress

    from chunkstore.store import ChunkStore

_LOOK_SECONDS = 2.0
_AGAIN_SECONDS = 60.0


class Workers:
    """What `up` runs beside the collector. `specs` open the models that their names alone cannot."""

    def __init__(
        self,
        store: "ChunkStore",
        bar: "Progress",
        specs: dict[str, str],
        *,
        drain: bool,
        batch: int | None,
        device: str | None,
        stop: anyio.Event,
    ) -> None:
        self._store = store
        self._bar = bar
        self._specs = specs
        self._drain = drain
        self._batch = batch
        self._device = device
        self._stop = stop
        self.embedded = 0
        self.given_up = 0
        self.activated = 0
        self.idle: set[str] = set()
        """The models that nothing was embedded with, since they could not be opened."""

    async def run(self) -> None:
        """Runs until the stop, or until nothing is left."""
        if self._drain:
            found = await self._names()
            await slow.for_each(found, self._consume)
            await slow.for_each(found, self._project)
        else:
            await self._run_for_ever()

    async def _run_for_ever(self) -> None:
        running: set[str] = set()
        async with anyio.create_task_group() as tasks:
            while not self._stop.is_set():
                found = await persistently(self._names, self._stop)
                for name in sorted(found - running):
                    tasks.start_soon(self._consume, name)
                    tasks.start_soon(self._project, name)
                running |= found
                with anyio.move_on_after(_LOOK_SECONDS):
                    await self._stop.wait()

    async def _names(self) -> set[str]:
        async with self._store.database.transaction() as conn:
            return {row.name for row in await catalog.every_model(conn)}

    async def _consume(self, name: str) -> None:
        while not self._stop.is_set():
            try:
                model = await load(self._specs.get(name) or spec_for(name), self._device, shown=False)
                report = await slow.embed(
                    self._store, model, self._bar, drain=self._drain, batch=self._batch, stop=self._stop
                )
            except (MissingExtra, UnknownModel, InvalidInput) as error:
                self._leave_out(name, error)
                return
            except (ModelRefused, ModelUnavailable) as error:
                if self._drain:
                    self._leave_out(name, error)
                    return
                say(f"nothing is embedded with {name!r} for {_AGAIN_SECONDS:g} s: {error}")
                with anyio.move_on_after(_AGAIN_SECONDS):
                    await self._stop.wait()
            else:
                self.embedded += report.embedded
                self.given_up += report.dead_letters
                return

    def _leave_out(self, name: str, error: ChunkstoreError) -> None:
        say(f"nothing is embedded with {name!r} here: {error}")
        self.idle.add(name)

    async def _project(self, name: str) -> None:
        report = await slow.project(self._store, name, self._bar, drain=self._drain, stop=self._stop)
        self.activated += report.activated
