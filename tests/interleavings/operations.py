"""The operations that can meet, each as its caller runs it, with the steps of the architecture that it takes.

What it locks is read off those steps in docs/architecture.md, so two operations meet here as they do there.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from chunkstore import leases
from chunkstore.errors import (
    ChunkstoreError,
    Conflict,
    LeaseLost,
    ModelIncomplete,
    StaleVersion,
    UnknownDeadLetter,
    UnknownFile,
    UnknownVersion,
    VersionFenced,
)
from chunkstore.model import Version
from projections.rebuild import rebuild
from projections.verify import verify
from tests.interleavings.scenes import MODELS, Scene, Side

Act = Callable[[Side, Scene], Awaitable[Any]]


class Operation(msgspec.Struct, frozen=True):
    """One thing that a process does, from its first statement to its last."""

    name: str
    act: Act
    steps: tuple[str, ...]
    """Rows of the tables of steps in docs/architecture.md."""
    facts: frozenset[str] = frozenset()
    """What must hold of the scene for it to have something to do."""
    promised: tuple[type[ChunkstoreError], ...] = ()
    """The errors that it may end with, and then it has done nothing."""
    refusals: frozenset[str] = frozenset()
    """Errors of the server that it knows what to do about."""
    files: frozenset[str] = frozenset({"it"})
    """The files that it is about: the scene's, the source of its copies, a new one."""
    reads: frozenset[str] = frozenset()
    """Rows that it goes by without a lock."""
    reads_all: bool = False


_WRITE = ("get or create a file", "write a version whole", "append to the log")


def _told(version: Version) -> tuple[int, bool]:
    return version.number, version.unchanged


# --- writers ------------------------------------------------------------------------------------


async def _append(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.key, scene.chunks("abefg" + scene.letters[side])))


async def _append_the_same(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.key, scene.chunks("def")))


async def _append_expecting(side: Side, scene: Scene) -> Any:
    return _told(
        await scene.of(side).append(scene.key, scene.chunks("f" + scene.letters[side]), expected_version=4)
    )


async def _append_with_key(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.key, scene.chunks("eh"), idempotency_key="once"))


async def _append_first(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).append(scene.new_key, scene.chunks("ef")))


async def _stream(side: Side, scene: Scene) -> Any:
    await scene.of(side).append(scene.key, scene.chunks("abegxyzuvw" + scene.letters[side]))


async def _delete(side: Side, scene: Scene) -> Any:
    return _told(await scene.of(side).delete(scene.key))


async def _roll_back(side: Side, scene: Scene) -> Any:
    await scene.of(side).rollback(scene.key, 2)


async def _pin(side: Side, scene: Scene) -> Any:
    await scene.of(side).pin(scene.key, 2)


async def _unpin(side: Side, scene: Scene) -> Any:
    await scene.of(side).unpin(scene.key, 2)


async def _erase(side: Side, scene: Scene) -> Any:
    await scene.of(side).erase(scene.key)


async def _erase_source(side: Side, scene: Scene) -> Any:
    await scene.of(side).erase(scene.source_key)


# --- consumers ----------------------------------------------------------------------------------


async def _claim(side: Side, scene: Scene) -> Any:
    await side.loop()._claim_and_read()


async def _renew(side: Side, scene: Scene) -> Any:
    async with side.database.transaction() as conn:
        await leases.renew(conn, scene.range.lease, seconds=60)


async def _release(side: Side, scene: Scene) -> Any:
    async with side.database.transaction() as conn:
        await leases.release(conn, scene.range.lease)


async def _complete(side: Side, scene: Scene) -> Any:
    await side.settle(scene.range)


async def _complete_again(side: Side, scene: Scene) -> Any:
    await side.settle(scene.range_again)


async def _fail(side: Side, scene: Scene) -> Any:
    await side.settle(scene.range, "no")


async def _retry(side: Side, scene: Scene) -> Any:
    await scene.of(side).retry(scene.range.work.owed[0].chunk_id)


async def _discard(side: Side, scene: Scene) -> Any:
    await scene.of(side).discard(scene.range.work.owed[0].chunk_id)


# --- projector and collector --------------------------------------------------------------------


async def _project(side: Side, scene: Scene) -> Any:
    await side.project(scene.partition)


async def _decide(side: Side, scene: Scene) -> Any:
    await side.decide(scene.file)


async def _sweep(side: Side, scene: Scene) -> Any:
    await side.sweep(scene.file)


async def _abandon(side: Side, scene: Scene) -> Any:
    await side.abandon_overdue(scene.file)


# --- models, rebuild, readers -------------------------------------------------------------------


async def _add_model(side: Side, scene: Scene) -> Any:
    await scene.of(side).add_model(MODELS[1])


async def _serve(side: Side, scene: Scene) -> Any:
    await scene.of(side).serve(MODELS[1].name)


async def _rebuild(side: Side, scene: Scene) -> Any:
    await rebuild(side.store, scene.collection, MODELS[0].name)


async def _verify(side: Side, scene: Scene) -> Any:
    report = await verify(side.store)
    assert report.ok, [(check.name, check.violations[:3]) for check in report.broken]


async def _search(side: Side, scene: Scene) -> Any:
    (vector,) = MODELS[0].embed([scene.key])
    hits = await scene.of(side).search(vector, k=1000, model=MODELS[0].name)
    seen = sorted((hit.version, hit.ordinal, hit.content) for hit in hits if hit.key == scene.key)
    assert len({version for version, _, _ in seen}) <= 1, f"versions are mixed: {seen}"
    assert [ordinal for _, ordinal, _ in seen] == list(range(len(seen))) or scene.held, f"a part: {seen}"


_FILE = (UnknownFile,)
_VERSION = (UnknownFile, UnknownVersion)
_EVERY = frozenset({"it", "source", "new"})
_OWED = frozenset({"files", "chunks", "embeddings"})

OPERATIONS = (
    Operation("append", _append, _WRITE),
    Operation("append what is there already", _append_the_same, _WRITE),
    Operation("append with expected_version", _append_expecting, _WRITE, promised=(StaleVersion,)),
    Operation("append with an idempotency key", _append_with_key, _WRITE),
    Operation("append to a new key", _append_first, _WRITE, files=frozenset({"new"})),
    Operation(
        "append in batches",
        _stream,
        (
            "get or create a file",
            "open a version",
            "add a batch",
            "commit an open version",
            "abandon an open version",
            "append to the log",
        ),
        promised=(VersionFenced,),
    ),
    Operation("delete", _delete, ("delete (tombstone)", "append to the log"), promised=_FILE),
    Operation("roll back", _roll_back, ("roll back", "append to the log"), promised=_VERSION),
    Operation("pin", _pin, ("pin, unpin", "append to the log"), promised=_VERSION),
    Operation("unpin", _unpin, ("pin, unpin", "append to the log"), frozenset({"pinned"}), _VERSION),
    Operation("erase", _erase, ("erase a file", "append to the log"), promised=_FILE),
    Operation(
        "erase the source of a copy",
        _erase_source,
        ("erase a file", "append to the log"),
        frozenset({"source"}),
        _FILE,
        files=frozenset({"source"}),
    ),
    Operation(
        "claim a range",
        _claim,
        ("claim a range", "move the frontier", "read what a range owes", "find vectors to copy"),
        frozenset({"queued"}),
        reads=_OWED,
    ),
    Operation(
        "claim a range with a source of copies",
        _claim,
        ("claim a range", "find vectors to copy", "leave a text that another lease has in hand"),
        frozenset({"queued", "source"}),
        files=frozenset({"it", "source"}),
        reads=_OWED,
    ),
    Operation(
        "take an expired range over",
        _claim,
        ("claim a range", "take an expired range over"),
        frozenset({"lease", "expired"}),
        reads=_OWED,
    ),
    Operation("renew a lease", _renew, ("renew a lease",), frozenset({"lease"}), (LeaseLost,)),
    Operation("give a range back", _release, ("give a range back",), frozenset({"lease"}), (LeaseLost,)),
    Operation("complete a range", _complete, ("complete a range",), frozenset({"lease"}), (LeaseLost,)),
    Operation(
        "complete a range with copies",
        _complete,
        ("complete a range",),
        frozenset({"lease", "source"}),
        (LeaseLost,),
        files=frozenset({"it", "source"}),
    ),
    Operation(
        "complete another range of the same chunks",
        _complete_again,
        ("complete a range",),
        frozenset({"again"}),
        (LeaseLost,),
    ),
    Operation("halve a range", _fail, ("split a failing range",), frozenset({"lease"}), (LeaseLost,)),
    Operation(
        "count a failure",
        _fail,
        ("count a failure of one chunk",),
        frozenset({"alone"}),
        (LeaseLost,),
    ),
    Operation(
        "give a chunk up", _fail, ("give a chunk up", "append to the log"), frozenset({"tried"}), (LeaseLost,)
    ),
    Operation(
        "retry a dead letter",
        _retry,
        ("retry a dead letter", "append to the log"),
        frozenset({"dead"}),
        (UnknownDeadLetter,),
    ),
    Operation(
        "discard a dead letter",
        _discard,
        ("discard a dead letter", "append to the log"),
        frozenset({"dead"}),
        (UnknownDeadLetter,),
    ),
    Operation(
        "project a commit",
        _project,
        (
            "claim a checkpoint",
            "read events",
            "switch what is complete",
            "remove superseded search rows",
            "move a checkpoint",
        ),
        frozenset({"embedded"}),
    ),
    Operation(
        "project a rollback",
        _project,
        ("claim a checkpoint", "switch what is complete", "stage more than 1,000 missing search rows"),
        frozenset({"projected", "rolled back"}),
    ),
    Operation("decide what goes", _decide, ("collect: decide", "append to the log"), frozenset({"embedded"})),
    Operation("sweep", _sweep, ("collect: sweep some segments",), frozenset({"decided"})),
    Operation(
        "abandon overdue versions",
        _abandon,
        ("abandon overdue open versions", "append to the log"),
        frozenset({"overdue"}),
    ),
    Operation(
        "add a model",
        _add_model,
        ("add a model", "back-fill one file for it", "append to the log"),
        frozenset({"own collection"}),
        files=_EVERY,
    ),
    Operation(
        "switch the serving model",
        _serve,
        ("switch the serving model",),
        frozenset({"second model", "projected"}),
        (ModelIncomplete,),
        files=_EVERY,
        reads=frozenset({"files", "active rows"}),
    ),
    Operation(
        "rebuild",
        _rebuild,
        ("rebuild: copy vectors", "rebuild: swap"),
        frozenset({"own collection"}),
        (Conflict,),
        files=_EVERY,
    ),
    Operation("verify", _verify, (), refusals=frozenset({"42P01"}), reads_all=True),
    Operation("search", _search, ("search",), reads_all=True),
)
