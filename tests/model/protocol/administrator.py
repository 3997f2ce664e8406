"""Adding a model to a filled collection: under all partitions' locks, then file by file (rules 8 and 9)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import files, log
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event, Model

Steps = Generator[Statement, Any, Any]


def add_model(rules: Rules, model: str) -> Steps:
    """Adds the model and back-fills every file."""
    yield from begin_to_add(rules, model)
    yield from _back_fill(rules, model)


def begin_to_add(rules: Rules, model: str, first: int = 0) -> Steps:
    """Adds the model and dies; `first` is the partition that is locked first without the lock order."""
    partitions = yield Statement(
        "read the partitions", lambda s: tuple(sorted(s.rows("partitions"))), quiet=True
    )
    if not rules.keep("order of partitions"):
        partitions = (*partitions[first:], *partitions[:first])
    if not rules.keep("9 all partitions"):
        partitions = (0,)
    for partition in partitions:
        yield log.lock_partition(partition)
    added = yield Statement(
        f"add {model}", lambda session: session.insert_if_absent("models", model, Model())
    )
    if not added:
        yield ABORT
        return
    yield from log.append(rules, 0, [Event("model_added", model=model)], locked=True)
    yield COMMIT_AT_ONCE


def _back_fill(rules: Rules, model: str) -> Steps:
    """Logs what each file lacks of the model, under the file's lock."""
    known = yield Statement("list the files", lambda session: tuple(sorted(session.rows("files"))))
    for file in known:
        yield files.lock_known(file)
        lacking, partition = yield Statement(
            f"find what {file} lacks", lambda session, file=file: _lacking(rules, session, file, model)
        )
        events: list[Event] = []
        for version, missing in lacking:
            events.extend(log.run(file, version, missing))
            events.append(Event("file_backfilled", 1, file, version, model=model))
        if events:
            yield from log.append(rules, partition, events)
        yield COMMIT_AT_ONCE


def _lacking(
    rules: Rules, session: Session, file: str, model: str
) -> tuple[tuple[tuple[int, tuple[str, ...]], ...], int]:
    """What the open versions and the target lack."""
    target = session.get("files", file).target
    needed = {
        number: version
        for number, version in sorted(files.versions_of(session, file, "open", "committed").items())
        if version.state == "open" or number == target
    }
    lacking = tuple(
        (number, files.unembedded(rules, session, file, version.segments, [model]))
        for number, version in needed.items()
    )
    return lacking, log.partition_of(session, file)
