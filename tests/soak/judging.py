"""The verdict: holds what the writers' journals say of what searches find, of the histories and of the log.

Nothing that was answered is lost, nothing that was refused is there, and what was not answered is there whole
or not at all.
"""

import sys
from collections.abc import AsyncIterator, Sequence

from chunkstore.collection import Collection
from chunkstore.errors import UnknownFile
from chunkstore.model import Version
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from projections.rebuild import rebuild
from projections.verify import VerifyReport, verify
from tests.faults.models import MODEL
from tests.soak.contents import ABSENT, COUNTED, EVERYTHING, FIRST, STEADY, found, held, is_own
from tests.soak.journal import Operation
from tests.soak.moods import OTHER
from tests.soak.writing import Own


class Verdict:
    """What is wrong after a soak, a line each."""

    def __init__(self, collection: Collection, done: Sequence[Operation]) -> None:
        self._collection = collection
        self._by_key: dict[str, list[Operation]] = {}
        for operation in done:
            self._by_key.setdefault(operation.begun.key, []).append(operation)
        self._store: ChunkStore = collection.store

    async def violations(self) -> list[str]:
        """Everything: files, searches, invariants."""
        before = await self._searched(MODEL.name)
        wrong = await self._files(before)
        wrong += _differences("model", before, await self._searched(OTHER.name))
        await self._drain()
        self.report = await verify(self._store)
        wrong += _broken(self.report)
        for model in (MODEL.name, OTHER.name):
            await rebuild(self._store, self._collection.name, model)
            wrong += _differences(f"rebuild of {model}", before, await self._searched(model))
        return wrong

    async def _drain(self) -> None:
        """Clears away what can be, and follows the log to its end."""
        await collect(self._store)
        for model in (MODEL, OTHER):
            await EmbeddingConsumer(self._store, model).run(drain=True)
            await Projector(self._store, model.name).run(drain=True)
        await collect(self._store)
        for model in (MODEL, OTHER):
            await Projector(self._store, model.name).run(drain=True)

    async def _searched(self, model: str) -> dict[str, list[str]]:
        return found(await self._collection.search("file chunk upload", k=EVERYTHING, model=model))

    async def _files(self, searched: dict[str, list[str]]) -> list[str]:
        wrong: list[str] = []
        own = {key for key in self._by_key if is_own(key)}
        for key in {*STEADY, *COUNTED, *own}:
            try:
                history = {version.number: version for version in await self._collection.history(key)}
            except UnknownFile:
                history = {}
            done = self._by_key.get(key, [])
            judged = self._own(key, done, history) if key in own else shared(key, done, history)
            contents, faults = judged
            wrong += faults
            if searched.get(key, []) not in contents:
                wrong.append(f"{key}: a search finds {searched.get(key, [])[:2]}, not {contents[0][:2]}")
            wrong += [fault async for fault in self._pinned(key, done, history)]
        return wrong + [
            f"{key}: nobody uploaded it" for key in searched if key not in {*STEADY, *COUNTED, *own}
        ]

    def _own(
        self, key: str, done: Sequence[Operation], history: dict[int, Version]
    ) -> tuple[list[list[str]], list[str]]:
        own = Own({ABSENT})
        for operation in done:
            own.takes(operation)
        wrong = lost(key, _since_erased(done), history)
        if own.certain and not history:
            wrong.append(f"{key}: the file is gone, and {own.certain!r} was its last")
        if own.certain == ABSENT and history:
            wrong.append(f"{key}: it was erased, and has versions {list(history)[-3:]}")
        return [held(key, stamp) for stamp in sorted(own.possible)], wrong

    async def _pinned(
        self, key: str, done: Sequence[Operation], history: dict[int, Version]
    ) -> AsyncIterator[str]:
        pins: dict[int, bool | None] = {}
        for operation in _since_erased(done):
            if operation.begun.kind in {"pin", "unpin"} and operation.outcome != "refused":
                assert operation.begun.version is not None
                answered = operation.outcome == "done"
                pins[operation.begun.version] = operation.begun.kind == "pin" if answered else None
        for number in [number for number, pinned in pins.items() if pinned]:
            version = history.get(number)
            if version is None or not version.pinned or version.state != "committed":
                yield f"{key}: version {number} was pinned, and is {version}"
                continue
            kept = [chunk.content async for chunk in self._collection.chunks(key, number)]
            if kept != held(key, version.metadata["stamp"]):
                yield f"{key}: the pinned version {number} holds {kept[:2]}"


def shared(
    key: str, done: Sequence[Operation], history: dict[int, Version]
) -> tuple[list[list[str]], list[str]]:
    """What a search may find in a file that many write, and what is wrong with its history."""
    committed = [version for version in history.values() if version.state in {"committed", "collected"}]
    latest = max(committed, key=lambda version: version.number)
    wrong = lost(key, done, history)
    written = {operation.begun.makes for operation in done if operation.outcome != "refused"}
    wrong += [
        f"{key}: version {version.number} was refused, and is there"
        for version in committed
        if version.metadata["stamp"] not in {FIRST, *written}
    ]
    for operation in done:
        wrong += _overtaken(key, operation, history)
    if key in COUNTED:
        counts = [
            version.metadata["count"] for version in sorted(committed, key=lambda version: version.number)
        ]
        if counts != list(range(len(counts))):
            wrong.append(f"{key}: an update was lost: {counts}")
    return [held(key, latest.metadata["stamp"])], wrong


def lost(key: str, done: Sequence[Operation], history: dict[int, Version]) -> list[str]:
    """Appends and deletions that were answered, of which the history knows nothing, or something else."""
    wrong: list[str] = []
    for operation in done:
        if operation.outcome != "done" or operation.begun.kind.split()[0] not in {
            "append",
            "append,",
            "delete",
        }:
            continue
        version = history.get(operation.version or 0)
        if version is None or version.state not in {"committed", "collected"}:
            wrong.append(f"{key}: lost: {operation}, {version}")
        elif not _is(version, operation):
            wrong.append(f"{key}: {operation} was answered with another's version {version}")
    return wrong


def _is(version: Version, operation: Operation) -> bool:
    if operation.begun.kind == "delete":
        return version.tombstone
    return version.metadata["stamp"] == operation.begun.makes


def _overtaken(key: str, operation: Operation, history: dict[int, Version]) -> list[str]:
    """Versions that were committed between the one that an append expected and its own."""
    expected, number = operation.begun.version, operation.version
    if expected is None or number is None or number <= expected or operation.outcome != "done":
        return []
    own = history.get(number)
    if own is None or own.committed_at is None:
        return []
    return [
        f"{key}: {operation} overwrote version {other.number}"
        for other in history.values()
        if other.number > expected
        and other.committed_at is not None
        and other.committed_at < own.committed_at
    ]


def _since_erased(done: Sequence[Operation]) -> Sequence[Operation]:
    erased = [
        at
        for at, operation in enumerate(done)
        if operation.begun.kind == "erase" and operation.outcome != "refused"
    ]
    return done[erased[-1] + 1 :] if erased else done


def _differences(of: str, one: dict[str, list[str]], other: dict[str, list[str]]) -> list[str]:
    return [
        f"{key}: the {of} makes a difference: {one.get(key, [])[:2]}, {other.get(key, [])[:2]}"
        for key in {*one, *other}
        if one.get(key) != other.get(key)
    ]


def _broken(report: VerifyReport) -> list[str]:
    return [
        f"verify: {check.name}: {check.count} rows, {check.skipped or ''} {check.violations[:3]}"
        for check in report.checks
        if not check.ok or check.skipped
    ]


def left_over(report: VerifyReport) -> dict[str, int]:
    """What the collector and the projector should have cleared away; which rows that are is printed."""
    for check in report.checks:
        if check.pending and check.count:
            print(f"left over: {check.name}: {check.violations[:5]}", file=sys.stderr)
    return {check.name.replace("_", " "): check.count for check in report.checks if check.pending}
