"""The operations that can meet, each as its caller runs it, with the steps of the architecture that it takes.

What it locks is read off those steps in docs/architecture.md, so two operations meet here as they do there.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

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
from tests.interleavings import acts
from tests.interleavings.scenes import Scene
from tests.interleavings.sides import Side

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
    numbered_first: bool = False
    """Its version has its number before it is committed: a later one may be committed first."""


_WRITE = ("get or create a file", "write a version whole", "append to the log")


_FILE = (UnknownFile,)
_VERSION = (UnknownFile, UnknownVersion)
_EVERY = frozenset({"it", "source", "new"})
_OWED = frozenset({"files", "chunks", "embeddings"})

OPERATIONS = (
    Operation("append", acts.append, _WRITE),
    Operation("append what is there already", acts.append_the_same, _WRITE),
    Operation("append with expected_version", acts.append_expecting, _WRITE, promised=(StaleVersion,)),
    Operation("append with an idempotency key", acts.append_with_key, _WRITE),
    Operation("append to a new key", acts.append_first, _WRITE, files=frozenset({"new"})),
    Operation("append many to a new key", acts.append_many_first, _WRITE, files=frozenset({"new"})),
    Operation(
        "append in batches",
        acts.stream,
        (
            "get or create a file",
            "open a version",
            "add a batch",
            "commit an open version",
            "abandon an open version",
            "append to the log",
        ),
        promised=(VersionFenced,),
        numbered_first=True,
    ),
    Operation("delete", acts.delete, ("delete (tombstone)", "append to the log"), promised=_FILE),
    Operation("roll back", acts.roll_back, ("roll back", "append to the log"), promised=_VERSION),
    Operation("pin", acts.pin, ("pin, unpin", "append to the log"), promised=_VERSION),
    Operation("unpin", acts.unpin, ("pin, unpin", "append to the log"), frozenset({"pinned"}), _VERSION),
    Operation("erase", acts.erase, ("erase a file", "append to the log"), promised=_FILE),
    Operation(
        "erase the source of a copy",
        acts.erase_source,
        ("erase a file", "append to the log"),
        frozenset({"source"}),
        _FILE,
        files=frozenset({"source"}),
    ),
    Operation(
        "claim a range",
        acts.claim,
        ("claim a range", "move the frontier", "read what a range owes", "find vectors to copy"),
        frozenset({"queued"}),
        reads=_OWED,
    ),
    Operation(
        "claim a range with a source of copies",
        acts.claim,
        ("claim a range", "find vectors to copy", "leave a text that another lease has in hand"),
        frozenset({"queued", "source"}),
        files=frozenset({"it", "source"}),
        reads=_OWED,
    ),
    Operation(
        "take an expired range over",
        acts.claim,
        ("claim a range", "take an expired range over"),
        frozenset({"lease", "expired"}),
        reads=_OWED,
    ),
    Operation("renew a lease", acts.renew, ("renew a lease",), frozenset({"lease"}), (LeaseLost,)),
    Operation("give a range back", acts.release, ("give a range back",), frozenset({"lease"}), (LeaseLost,)),
    Operation("complete a range", acts.complete, ("complete a range",), frozenset({"lease"}), (LeaseLost,)),
    Operation(
        "complete a range with copies",
        acts.complete,
        ("complete a range",),
        frozenset({"lease", "source"}),
        (LeaseLost,),
        files=frozenset({"it", "source"}),
    ),
    Operation(
        "complete another range of the same chunks",
        acts.complete_again,
        ("complete a range",),
        frozenset({"again"}),
        (LeaseLost,),
    ),
    Operation("halve a range", acts.fail, ("split a failing range",), frozenset({"lease"}), (LeaseLost,)),
    Operation(
        "count a failure",
        acts.fail,
        ("count a failure of one chunk",),
        frozenset({"alone"}),
        (LeaseLost,),
    ),
    Operation(
        "give a chunk up",
        acts.fail,
        ("give a chunk up", "append to the log"),
        frozenset({"tried"}),
        (LeaseLost,),
    ),
    Operation(
        "retry a dead letter",
        acts.retry,
        ("retry a dead letter", "append to the log"),
        frozenset({"dead"}),
        (UnknownDeadLetter,),
    ),
    Operation(
        "discard a dead letter",
        acts.discard,
        ("discard a dead letter", "append to the log"),
        frozenset({"dead"}),
        (UnknownDeadLetter,),
    ),
    Operation(
        "project a commit",
        acts.project,
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
        acts.project,
        ("claim a checkpoint", "switch what is complete", "stage more than 1,000 missing search rows"),
        frozenset({"projected", "rolled back"}),
    ),
    Operation(
        "decide what goes", acts.decide, ("collect: decide", "append to the log"), frozenset({"embedded"})
    ),
    Operation("sweep", acts.sweep, ("collect: sweep some segments",), frozenset({"decided"})),
    Operation(
        "abandon overdue versions",
        acts.abandon,
        ("abandon overdue open versions", "append to the log"),
        frozenset({"overdue"}),
    ),
    Operation(
        "add a model",
        acts.add_model,
        ("add a model", "back-fill one file for it", "append to the log"),
        frozenset({"own collection"}),
        files=_EVERY,
    ),
    Operation(
        "switch the serving model",
        acts.serve,
        ("switch the serving model",),
        frozenset({"second model", "projected"}),
        (ModelIncomplete,),
        files=_EVERY,
        reads=frozenset({"files", "active rows"}),
    ),
    Operation(
        "rebuild",
        acts.rebuild,
        ("rebuild: copy vectors", "rebuild: swap"),
        frozenset({"own collection"}),
        (Conflict,),
        files=_EVERY,
    ),
    Operation(
        "repack",
        acts.repack,
        ("repack: copy vectors", "repack: swap"),
        frozenset({"own collection"}),
        files=_EVERY,
    ),
    Operation(
        "drop a killed rebuild",
        acts.drop_killed_rebuild,
        ("collect: drop what a killed rebuild left",),
        frozenset({"own collection", "killed rebuild"}),
    ),
    Operation("verify", acts.verify, (), refusals=frozenset({"42P01"}), reads_all=True),
    Operation("search", acts.search, ("search",), reads_all=True),
)
