"""The loop of a shared group: claim, read, work, settle, each a stage that overlaps with the others.

While the model works on one range the next waits at its door, read, and the last is stored: so the model
never waits, and what it is given was read at most one call ago.
Leases in hand are renewed after a third of their time; a suspect is taken in hand alone, so that what it
does to this process counts against no other range. A model that hangs is treated as one that killed its
process: its range is left to expire. Keeps invariant 8 with `chunkstore.leases`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Lock
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from psycopg import AsyncConnection

from chunkstore import leases
from chunkstore.database import BY_INDEX, Database
from chunkstore.errors import (
    ChunkstoreError,
    LeaseLost,
    ModelHangs,
    ModelRefused,
    ModelUnavailable,
    ServerUnreachable,
)
from chunkstore.groups import unwrapped
from chunkstore.hints import Waiting, listening
from chunkstore.leases import Lease
from chunkstore.retries import persistently
from consumers.batching import Batching
from consumers.breaker import Breaker

W = TypeVar("W")
R = TypeVar("R")

_RELEASE_SECONDS = 5
_RANGES_AHEAD = 2
"""Ranges that are read and not yet through the model: the one in it, and the next."""
_HANDOVER_SECONDS = 0.0003
_LOOKS = 10
"""At a call that takes too long, within its time. Looks are counted and no clock is read: a process that was
suspended looks once."""
_SETTLING = 2
"""Ranges that are stored at once: one is written while another's commit waits for the disk."""


class NotNow(Exception):
    """The model's turn came after a stop, or while its provider is down."""


class Handler(Protocol[W, R]):
    """What a consumer does with a range."""

    async def read(self, conn: AsyncConnection[Any], lease: Lease) -> W | None:
        """What the range owes; None where that is nothing, and then the range is done."""
        ...

    def work(self, work: W, turn: AbstractContextManager[None]) -> R:
        """The slow part, outside any transaction; blocking, in a worker thread.

        What only one range at a time may do is done inside `with turn`, which raises NotNow where it is
        not to be done any more. Raises ModelUnavailable where the provider is down, ModelRefused where it
        never will do it: the loop then ends with that error, and what it holds is given back.
        """
        ...

    async def settle(self, conn: AsyncConnection[Any], lease: Lease, work: W, result: R) -> None:
        """Stores the result and ends the lease, in one transaction. Raises LeaseLost."""
        ...


class Loop:
    """Runs a handler over a group's ranges of at most `batching.size` chunks, leased for `lease_seconds`.

    A turn of the handler's work may take `model_seconds`, and a tenth more. `on_settled` is called after the
    commit of each range's result.
    """

    def __init__(
        self,
        database: Database,
        group: str,
        handler: Handler[Any, Any],
        *,
        batching: Batching,
        lease_seconds: float,
        model_seconds: float,
        on_settled: Callable[[], None] | None = None,
        on_outage: Callable[[ModelUnavailable], None] | None = None,
    ) -> None:
        self._database = database
        self._group = group
        self._handler = handler
        self._batching = batching
        self._lease_seconds = lease_seconds
        self._model_seconds = model_seconds
        self._on_settled = on_settled
        self._on_outage = on_outage
        self._error: ModelRefused | ModelHangs | None = None
        self._owner = leases.new_owner()
        self._breaker = Breaker()
        self._held: dict[tuple[int, int], Lease] = {}
        self._forgotten = anyio.Event()
        self._ahead = anyio.Semaphore(_RANGES_AHEAD)
        self._model_in_use = Lock()
        self._in_model: Lease | None = None
        self._ended = False
        self._start = 0

    async def run(self, *, drain: bool = False, stop: anyio.Event | None = None) -> None:
        """Runs until `stop` is set, or with `drain` until nothing is in flight and nothing to claim.

        At a stop the range that the model works on is finished and what is only read is given back. Raises
        ModelRefused, ModelHangs, and DatabaseError's family where trying again is no use.
        """
        ending, stop = stop, anyio.Event()
        if ending is not None and ending.is_set():
            stop.set()
        to_work, read = anyio.create_memory_object_stream[tuple[Lease, Any]](0)
        to_settle, worked = anyio.create_memory_object_stream[tuple[Lease, Any, Any]](0)
        try:
            with unwrapped():
                async with listening(self._database, stop) as waiting, anyio.create_task_group() as renewing:
                    renewing.start_soon(self._renew)
                    renewing.start_soon(self._watch, renewing.cancel_scope)
                    if ending is not None:
                        renewing.start_soon(_pass_on, ending, stop)
                    async with anyio.create_task_group() as stages:
                        stages.start_soon(self._read, to_work, waiting, drain, stop)
                        for _ in range(_RANGES_AHEAD):
                            stages.start_soon(self._work, read.clone(), to_settle.clone(), stop)
                        read.close()
                        to_settle.close()
                        for _ in range(_SETTLING):
                            stages.start_soon(self._settle, worked.clone(), waiting, stop)
                        worked.close()
                    renewing.cancel_scope.cancel()
        finally:
            self._ended = True
            with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
                await self._release_held()
        if self._error is not None:
            raise self._error

    # --- stages ---------------------------------------------------------------------------------

    async def _read(
        self,
        out: MemoryObjectSendStream[tuple[Lease, Any]],
        waiting: Waiting,
        drain: bool,
        stop: anyio.Event,
    ) -> None:
        async with out:
            while not stop.is_set():
                await self._breaker.closed(stop)
                await self._ahead.acquire()
                try:
                    claimed = None if stop.is_set() else await persistently(self._claim_and_read, stop)
                except ServerUnreachable:
                    if not stop.is_set():
                        raise
                    return  # nothing is in hand for it, so this is no failure
                if claimed is None:
                    self._ahead.release()
                    if drain and not self._held and await persistently(self._is_idle, stop):
                        return
                    await waiting.wait()
                    continue
                waiting.worked()
                lease, work = claimed
                if work is None:
                    self._ahead.release()
                    continue
                if not lease.is_suspect:
                    await out.send((lease, work))
                elif len(self._held) > 1:
                    self._ahead.release()
                    await self._release(lease)
                    await self._nothing_held()
                else:
                    await out.send((lease, work))
                    await self._nothing_held()

    async def _work(
        self,
        read: MemoryObjectReceiveStream[tuple[Lease, Any]],
        out: MemoryObjectSendStream[tuple[Lease, Any, Any]],
        stop: anyio.Event,
    ) -> None:
        async with read, out:
            async for lease, work in read:
                try:
                    result = await anyio.to_thread.run_sync(
                        self._handler.work, work, self._turn(lease, stop), abandon_on_cancel=True
                    )
                except (ModelRefused, ModelUnavailable, NotNow) as error:
                    if isinstance(error, ModelRefused):
                        self._error = error
                        stop.set()
                    elif isinstance(error, ModelUnavailable) and self._on_outage is not None:
                        self._on_outage(error)
                    await self._release(lease)
                    continue
                finally:
                    self._ahead.release()
                await out.send((lease, work, result))

    @contextmanager
    def _turn(self, lease: Lease, stop: anyio.Event) -> Iterator[None]:
        # A thread waits here for the model, and not for the event loop, which may be busy when it is free.
        with self._model_in_use:
            if self._ended or stop.is_set() or self._breaker.is_open:
                raise NotNow
            self._in_model = lease
            try:
                yield
            except ModelUnavailable as error:
                self._breaker.failed(error)
                raise
            finally:
                self._in_model = None
            self._breaker.succeeded()
        # Lets go of the interpreter too: the next call begins before this one's answer is looked at.
        # A wait and no sleep, which fails under a clock that is made up for it.
        Event().wait(_HANDOVER_SECONDS)

    async def _settle(
        self, worked: MemoryObjectReceiveStream[tuple[Lease, Any, Any]], waiting: Waiting, stop: anyio.Event
    ) -> None:
        async with worked:
            async for lease, work, result in worked:

                async def settle(lease: Lease = lease, work: Any = work, result: Any = result) -> None:
                    async with self._database.transaction(BY_INDEX) as conn:
                        await self._handler.settle(conn, lease, work, result)

                try:
                    await persistently(settle, stop)
                    if self._on_settled is not None:
                        self._on_settled()
                except LeaseLost:
                    pass  # somebody else has the range, and nothing of ours was written (invariant 8)
                finally:
                    self._forget(lease)
                    waiting.hint()  # a drain ends when nothing is left

    # --- steps ----------------------------------------------------------------------------------

    async def _claim_and_read(self) -> tuple[Lease, Any] | None:
        async with self._database.transaction(BY_INDEX) as conn:
            lease = await leases.claim(
                conn,
                self._group,
                batch=self._batching.size,
                seconds=self._lease_seconds,
                owner=self._owner,
                start=self._start,
            )
            if lease is None:
                return None
            work = await self._handler.read(conn, lease)
        # Round the partitions, so that one that is always full does not starve the others.
        self._start = lease.partition + 1
        if work is not None:
            self._held[lease.partition, lease.lo] = lease
        return lease, work

    async def _is_idle(self) -> bool:
        async with self._database.transaction(BY_INDEX) as conn:
            return await leases.is_idle(conn, self._group)

    async def _renew(self) -> None:
        while True:
            await anyio.sleep(self._lease_seconds / 3)
            for lease in list(self._held.values()):
                try:
                    async with self._database.transaction(BY_INDEX) as conn:
                        await leases.renew(conn, lease, seconds=self._lease_seconds)
                except LeaseLost:
                    self._forget(lease)
                except ChunkstoreError:
                    continue  # the next round tries again; settling finds out if it was too late

    async def _watch(self, running: anyio.CancelScope) -> None:
        """Ends the run where the model hangs: its thread cannot be ended, and no other range has a turn."""
        seen, looks = None, 0
        while True:
            await anyio.sleep(self._model_seconds / _LOOKS)
            looks = looks + 1 if self._in_model is seen else 0
            seen = self._in_model
            if seen is not None and looks == _LOOKS:
                self._forget(seen)  # not given back: its expiry is what counts against it (rule 11)
                self._error = ModelHangs(
                    f"the model has not answered for {self._model_seconds:g} s: its process has to end,"
                    " and its range is taken over when the lease expires; give a slow model smaller batches"
                )
                running.cancel()

    async def _release(self, lease: Lease) -> None:
        try:
            async with self._database.transaction(BY_INDEX) as conn:
                await leases.release(conn, lease)
        except ChunkstoreError:
            pass  # it expires by itself
        finally:
            self._forget(lease)

    async def _release_held(self) -> None:
        for lease in list(self._held.values()):
            await self._release(lease)

    def _forget(self, lease: Lease) -> None:
        # Not where the range was lost and taken again: the new lease is to be renewed.
        if self._held.get((lease.partition, lease.lo)) == lease:
            del self._held[lease.partition, lease.lo]
        self._forgotten.set()
        self._forgotten = anyio.Event()

    async def _nothing_held(self) -> None:
        while self._held:
            await self._forgotten.wait()


async def _pass_on(ending: anyio.Event, stop: anyio.Event) -> None:
    await ending.wait()
    stop.set()
