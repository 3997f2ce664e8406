"""A writer of the soak: appends in every way there is, deletes, rolls back, pins, erases, and waits.

It knows at every moment what each file of its own may hold, from its journal, through its deaths too.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import msgspec

from chunkstore.collection import Collection
from chunkstore.errors import ChunkstoreError, UnknownFile
from chunkstore.model import Version
from tests.faults.models import MODEL
from tests.soak.acting import Actor, Done
from tests.soak.contents import (
    ABSENT,
    BATCH_CHUNKS,
    COUNTED,
    EVERYTHING,
    GONE,
    STEADY,
    found,
    held,
    is_own,
    own_keys,
    uploaded,
)
from tests.soak.journal import Operation

WAIT_SECONDS = 30
RETRIED = 0.7
"""The share of appends that are tried again until they are answered, under an idempotency key."""


class Own(msgspec.Struct):
    """What a file may hold that only one writer touches."""

    possible: set[str]
    """Stamps; one, unless an operation was not answered."""
    settled: bool = False
    """Whether its latest version is its target, as the last answer said."""

    @property
    def certain(self) -> str | None:
        """The one stamp that it holds."""
        return next(iter(self.possible)) if len(self.possible) == 1 else None

    def takes(self, operation: Operation) -> None:
        """Draws the conclusion from an operation and its answer."""
        makes = operation.begun.makes
        if makes is None or operation.outcome == "refused":
            return
        done = operation.outcome == "done"
        self.possible = {makes} if done else {*self.possible, makes}
        self.settled = done and operation.begun.kind.startswith("append")


class Writer(Actor):
    """One writer; `run` works until the stop."""

    def __init__(self, collection: Collection, name: str, stop: anyio.Event) -> None:
        super().__init__(name, stop)
        self._collection = collection
        self._own = {key: Own({ABSENT}) for key in own_keys(self.name)}
        for operation in self.journal.before:
            if is_own(operation.begun.key):
                self._own[operation.begun.key].takes(operation)
        self._steps: dict[Callable[[], Awaitable[object]], float] = {
            self.append_steady: 8,
            self.append_expecting: 4,
            self.append_latest_again: 2,
            self.count_up: 4,
            self.append_own: 6,
            self.append_own_again: 2,
            self.delete: 1.5,
            self.roll_back: 3,
            self.pin: 1,
            self.erase: 0.7,
            self.wait: 0.7,
        }

    async def run(self) -> None:
        while not self.stop.is_set():
            (step,) = self.dice.choices(list(self._steps), list(self._steps.values()))
            try:
                await step()
            except ChunkstoreError:
                continue  # of reading what to do next, at the stop

    # --- the files of all -----------------------------------------------------------------------

    async def append_steady(self) -> None:
        await self._append("append", self.dice.choice(STEADY))

    async def append_expecting(self) -> None:
        key = self.dice.choice(STEADY)
        latest = (await self._history(key))[-1]
        await self._append("append expecting a version", key, expected=latest.number)

    async def append_latest_again(self) -> None:
        key = self.dice.choice(STEADY)
        latest = (await self._history(key))[-1]
        await self._append("append again", key, stamp=latest.metadata["stamp"])

    async def count_up(self) -> None:
        """Writes the next number where nobody else did meanwhile."""
        key = self.dice.choice(COUNTED)
        latest = (await self._history(key))[-1]
        await self._append(
            "append the next number", key, expected=latest.number, count=latest.metadata["count"] + 1
        )

    # --- files of its own -----------------------------------------------------------------------

    async def append_own(self) -> None:
        await self._append("append", self._own_key())

    async def append_own_again(self) -> None:
        key = self._own_key()
        own = self._own[key]
        stamp, settled = own.certain, own.settled
        if not stamp or stamp.startswith(GONE):
            return
        done = await self._append("append again", key, stamp=stamp)
        if settled and done.version is not None and not done.version.unchanged:
            self.object(done, f"made version {done.version.number} of what it held already")

    async def delete(self) -> None:
        key, gone = self._own_key(), f"{GONE} {self._stamp}"
        call = partial(self._collection.delete, key, metadata={"stamp": gone})
        await self._change("delete", key, call, makes=gone, is_there=self._is_there(key))

    async def roll_back(self) -> None:
        key = self._own_key()
        if version := await self._some_version(key):
            call = partial(self._collection.rollback, key, version.number)
            makes = version.metadata["stamp"]
            await self._change("roll back", key, call, makes=makes, version=version.number)

    async def pin(self) -> None:
        key = self._own_key()
        if version := await self._some_version(key):
            kind, act = self.dice.choice([("pin", self._collection.pin), ("unpin", self._collection.unpin)])
            await self._change(kind, key, partial(act, key, version.number), version=version.number)

    async def erase(self) -> None:
        key = self._own_key()
        call = partial(self._collection.erase, key)
        await self._change("erase", key, call, makes=ABSENT, is_there=self._is_there(key))

    async def wait(self) -> None:
        """Appends, waits until that is active, and finds just that."""
        key = self._own_key()
        appended = await self._append("append", key)
        version, makes = appended.version, appended.operation.begun.makes
        if version is None or makes is None:
            return
        call = partial(self._collection.wait_until_active, version, WAIT_SECONDS, model=MODEL.name)
        waited = await self._change("wait until active", key, call, version=version.number)
        if waited.operation.outcome != "done":
            return
        (query,) = MODEL.embed(["file chunk upload"])
        hits = await self.persistently(lambda: self._collection.search(query, k=EVERYTHING, model=MODEL.name))
        seen = found(hits).get(key, [])
        if seen != held(key, makes):
            self.object(waited, f"{makes!r} is active, and a search finds {seen[:3]}")

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _stamp(self) -> str:
        return f"{self.name}.{self.journal.next}"

    def _own_key(self) -> str:
        return self.dice.choice(list(self._own))

    def _is_there(self, key: str) -> bool:
        return bool(self._own[key].certain)

    async def _append(
        self,
        kind: str,
        key: str,
        *,
        stamp: str | None = None,
        expected: int | None = None,
        count: int | None = None,
    ) -> Done:
        retried = self.dice.random() < RETRIED
        idempotency_key, stamp = self._stamp if retried else None, stamp or self._stamp
        metadata = {"stamp": stamp} if count is None else {"stamp": stamp, "count": count}
        chunks = uploaded(key, stamp)
        if len(chunks) > BATCH_CHUNKS:
            kind = f"{kind}, streamed"
        append = partial(
            self._collection.append,
            key,
            chunks,
            expected_version=expected,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        call = partial(self.persistently, append) if retried else append
        return await self._change(kind, key, call, makes=stamp, version=expected)

    async def _change(
        self,
        kind: str,
        key: str,
        call: Callable[[], Awaitable[Version | None]],
        *,
        makes: str | None = None,
        version: int | None = None,
        is_there: bool = False,
    ) -> Done:
        done = await self.call(
            self.journal.begin(kind, key, makes=makes, version=version), call, is_there=is_there
        )
        if key in self._own:
            self._own[key].takes(done.operation)
        return done

    async def _history(self, key: str) -> list[Version]:
        versions = await self.persistently(lambda: self._collection.history(key))
        return [version for version in versions if version.state == "committed"]

    async def _some_version(self, key: str) -> Version | None:
        try:
            kept = await self._history(key)
        except UnknownFile:
            return None
        return self.dice.choice(kept) if kept else None
