"""The projector: an ordered group that follows the log and switches files to their complete targets.

Every event is only a reason to look: what is active is decided from state under the file's lock, so
repeats after a crash change nothing (rule 16). Keeps invariant 13 together with the consumers.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

import anyio
import msgspec

from chunkstore import catalog, leases, log
from chunkstore.database import BY_INDEX
from chunkstore.errors import ChunkstoreError, LeaseLost, UnknownModel
from chunkstore.events import (
    ChunksEmbedded,
    DeadLetterDiscarded,
    DeadLetterRetried,
    Event,
    FileBackfilled,
    TargetChanged,
    VersionAbandoned,
    VersionActivated,
    VersionCommitted,
)
from chunkstore.groups import unwrapped
from chunkstore.hints import listening
from chunkstore.leases import Checkpoint
from chunkstore.model import FileId, ModelId
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from projections import active, indexes

_EVENTS = 500
_RELEASE_SECONDS = 5
# From one look for indexes that are due to the next, while it waits for events.
_LOOK_SECONDS = 1.0


class ProjectReport(msgspec.Struct):
    """What a run came to."""

    events: int = 0
    activated: int = 0
    removed: int = 0
    """Superseded search rows that were removed."""
    indexes_built: int = 0


class Projector:
    """Projects for one model, for every collection of the store that has it."""

    def __init__(
        self,
        store: ChunkStore,
        model_name: str,
        *,
        on_progress: Callable[[ProjectReport], None] | None = None,
    ) -> None:
        self._store = store
        self._database = store.database
        self._model_name = model_name
        self._on_progress = on_progress
        self._owner = leases.new_owner()
        self._looks_at_indexes = False
        self.report = ProjectReport()

    async def run(self, *, drain: bool = False, stop: anyio.Event | None = None) -> ProjectReport:
        """Projects until `stop` is set, or with `drain` until every partition is read to its head.

        Indexes that are due are built beside it, so that no switch waits for one; a stop breaks a build
        off, which the next projector begins anew. Raises UnknownModel, and DatabaseError's family where
        trying again is no use.
        """
        stop = stop or anyio.Event()
        model = await persistently(self._known_model, stop)
        group = leases.projector_group(model)
        with unwrapped():
            async with listening(self._database, stop) as waiting, anyio.create_task_group() as building:
                looked, next_look = False, 0.0
                while not stop.is_set():
                    if await self._project_all(group, model, stop):
                        waiting.worked()
                        looked = False
                        continue
                    if not self._looks_at_indexes:
                        if drain and looked and await persistently(lambda: self._is_idle(group), stop):
                            break
                        if monotonic() >= next_look or (drain and not looked):
                            looked = self._looks_at_indexes = True
                            next_look = monotonic() + _LOOK_SECONDS
                            building.start_soon(self._build_due, model, stop, waiting.hint if drain else None)
                    await waiting.wait()
                building.cancel_scope.cancel()
        return self.report

    async def _build_due(self, model: ModelId, stop: anyio.Event, ended: Callable[[], None] | None) -> None:
        try:
            self.report.indexes_built += await persistently(
                lambda: indexes.build_due(self._database, model), stop
            )
        finally:
            self._looks_at_indexes = False
        if ended is not None:
            ended()

    async def _known_model(self) -> ModelId:
        async with self._database.transaction(BY_INDEX) as conn:
            models = await catalog.every_model(conn)
        for model in models:
            if model.name == self._model_name:
                return model.model
        raise UnknownModel(f"model: no collection of this store has the model {self._model_name!r}")

    async def _project_all(self, group: str, model: ModelId, stop: anyio.Event) -> bool:
        """One batch of every partition that is behind; says whether there was one."""
        worked = False

        async def behind() -> list[int]:
            async with self._database.transaction(BY_INDEX) as conn:
                return await leases.partitions_behind(conn, group)

        for partition in await persistently(behind, stop):
            if stop.is_set():
                break

            async def project(partition: int = partition) -> bool:
                return await self._project(group, model, partition)

            worked = await persistently(project, stop) or worked
        return worked

    async def _is_idle(self, group: str) -> bool:
        async with self._database.transaction(BY_INDEX) as conn:
            return await leases.is_ordered_idle(conn, group)

    async def _project(self, group: str, model: ModelId, partition: int) -> bool:
        """Claims a partition's checkpoint, handles a batch of its events, moves the checkpoint."""
        async with self._database.transaction(BY_INDEX) as conn:
            checkpoint = await leases.claim_checkpoint(
                conn, group, partition, seconds=active.CHECKPOINT_SECONDS, owner=self._owner
            )
            if checkpoint is None:
                return False
            recorded = await log.read(conn, partition, checkpoint.position, _EVENTS)
        try:
            await self._handle(checkpoint, model, [entry.event for entry in recorded])
            position = recorded[-1].last + 1 if recorded else checkpoint.position
            async with self._database.transaction(BY_INDEX) as conn:
                await leases.release_checkpoint(conn, checkpoint, position=position)
        except LeaseLost:
            return True  # another projector goes on from the same checkpoint
        except BaseException:
            await self._give_back(checkpoint)
            raise
        self.report.events += len(recorded)
        if self._on_progress is not None:
            self._on_progress(self.report)
        return bool(recorded)

    async def _give_back(self, checkpoint: Checkpoint) -> None:
        """Leaves the batch to whoever comes next, at once and not when the lease expires."""
        with anyio.move_on_after(_RELEASE_SECONDS, shield=True), suppress(ChunkstoreError):
            async with self._database.transaction(BY_INDEX) as conn:
                await leases.release_checkpoint(conn, checkpoint, position=checkpoint.position)

    async def _handle(self, checkpoint: Checkpoint, model: ModelId, events: Sequence[Event]) -> None:
        files = sorted({file for event in events for file in _files_of(event, model)})
        self.report.activated += await active.activate(self._database, checkpoint, model, files)
        embedded = [event for event in events if isinstance(event, ChunksEmbedded) and event.model == model]
        self.report.removed += await active.clear_idle(self._database, model, embedded)
        for event in events:
            self.report.removed += await self._clear(event, model)

    async def _clear(self, event: Event, model: ModelId) -> int:
        """Removes the search rows that a switch, a rollback or a late commit superseded (rule 18)."""
        match event:
            case VersionActivated(file=int() as file, version=int() as version) if event.model == model:
                return await active.clear_left_behind(
                    self._database, model, FileId(file), event.previous, version
                )
            case TargetChanged(file=int() as file, version=int() as version):
                return await active.clear_left_behind(
                    self._database, model, FileId(file), event.previous, version
                )
            case VersionCommitted(file=int() as file, version=int() as version, replaced=int() as rolled_to):
                return await active.clear_left_behind(self._database, model, FileId(file), rolled_to, version)
            case (
                VersionCommitted(file=int() as file, version=int() as version, target=False)
                | VersionAbandoned(file=int() as file, version=int() as version)
            ):
                return await active.clear_born_superseded(self._database, model, FileId(file), version)
            case _:
                return 0


def _files_of(event: Event, model: ModelId) -> Sequence[FileId]:
    """The files that an event gives a reason to look at (rule 16)."""
    match event:
        case ChunksEmbedded():
            return event.files if event.model == model else ()
        case FileBackfilled() | DeadLetterDiscarded() | DeadLetterRetried():
            return (event.file,) if event.model == model and event.file is not None else ()
        case VersionCommitted() | TargetChanged():
            return (event.file,) if event.file is not None else ()
        case _:
            return ()
