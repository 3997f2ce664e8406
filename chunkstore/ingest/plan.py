"""Sorts files before any is appended: unchanged, unchanged but cut or read by an earlier version, to be read.

One query a batch of files, and the hash of those alone whose time has changed.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import anyio
import msgspec
from anyio import to_thread

from chunkstore.collection import Collection
from chunkstore.errors import UnreadableFile
from chunkstore.ingest.changes import Checks
from chunkstore.ingest.frames import Opened, Task
from chunkstore.ingest.parsers import is_current
from chunkstore.ingest.reports import Outdated
from chunkstore.ingest.sources import Source
from chunkstore.ingest.stamps import Known, known
from chunkstore.ingest.workers import Workers

_BATCH = 1_000

T = TypeVar("T")


class Step(msgspec.Struct, frozen=True):
    """One file to deal with. Where its content still hashes as in `compared`, it has not changed."""

    source: Source
    known: Known | None = None
    compared: bytes | None = None
    opened: Opened | None = None
    """The file as it was when its hash was found to be the same."""


class Plan(msgspec.Struct, frozen=True):
    """Every file found, in one of three lists."""

    unchanged: list[Step]
    outdated: list[Step]
    to_read: list[Step]

    def counted(self) -> Outdated:
        """How many files are outdated, and why."""
        by_parser = sum(not is_current(_stamp(step).parser) for step in self.outdated)
        return Outdated(len(self.outdated) - by_parser, by_parser)


async def planned(
    collection: Collection | None,
    sources: Sequence[Source],
    checks: Checks,
    workers: Workers,
    chunker: str,
) -> Plan:
    """The plan for these files; with no collection, all are to be read."""
    plan = Plan([], [], [])
    doubtful: list[Step] = []
    for batch in _batches(sources):
        states = await to_thread.run_sync(lambda batch=batch: [_state(source) for source in batch])
        stamps = {} if collection is None else await known(collection, [source.key for source in batch])
        for source, state in zip(batch, states, strict=True):
            stamp = stamps.get(source.key)
            verdict = "changed" if stamp is None or state is None else checks.verdict(stamp, *state)
            if stamp is None or verdict == "changed":
                plan.to_read.append(Step(source))
            elif stamp.chunker != chunker or not is_current(stamp.parser):
                step = Step(source, stamp)
                (plan.outdated if verdict == "unchanged" else doubtful).append(step)
            elif verdict == "unchanged":
                plan.unchanged.append(Step(source, stamp))
            else:
                plan.to_read.append(Step(source, stamp, compared=stamp.hash))
    await _compare(doubtful, plan, workers)
    return plan


async def _compare(doubtful: Sequence[Step], plan: Plan, workers: Workers) -> None:
    """Settles by their hashes which of the outdated files have changed themselves."""

    async def compare(step: Step) -> None:
        opened = await _hashed(step.source, workers)
        if opened is not None and opened.hash == _stamp(step).hash:
            plan.outdated.append(msgspec.structs.replace(step, opened=opened))
        else:
            plan.to_read.append(Step(step.source))

    await for_each(doubtful, compare, at_once=workers.most + 1)


async def _hashed(source: Source, workers: Workers) -> Opened | None:
    """The file with its hash; None where it cannot be read, which reading it will say."""
    try:
        async with workers.reading(Task(source.encoded_path, parse=False)) as reading:
            await reading.done()
            return reading.opened
    except UnreadableFile:
        return None


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Does the work for every item, some at once. An error ends all of it, and is raised by itself."""
    remaining = iter(items)
    errors: list[Exception] = []

    async def worker(cancel: Callable[[], None]) -> None:
        try:
            for item in remaining:
                await work(item)
        except Exception as error:  # noqa: BLE001 - raised again outside the group, by itself
            errors.append(error)
            cancel()

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(worker, tasks.cancel_scope.cancel)
    if errors:
        raise errors[0]


def _state(source: Source) -> tuple[int, int] | None:
    try:
        found = source.path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _stamp(step: Step) -> Known:
    assert step.known is not None, "only a file with a stamp can be outdated"
    return step.known


def _batches(sources: Sequence[Source]) -> Iterator[list[Source]]:
    remaining = iter(sources)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
