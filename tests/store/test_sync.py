"""The blocking twin: the same surface, usable from several threads, never in its own way."""

import inspect
import signal
import sqlite3
import threading
import typing
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from chunkstore import store, sync
from chunkstore.errors import DatabaseError, InvalidInput, UnknownCollection, UnknownFile
from chunkstore.model import Chunk
from tests.forked import FORKED

MODEL = "hashing:8"
TWINS = [(store.ChunkStore, sync.ChunkStore), (store.Collection, sync.Collection)]


@pytest.fixture
def opened(dsn: str, schema: str) -> Iterator[sync.ChunkStore]:
    with sync.ChunkStore.open(dsn, schema=schema) as opened:
        yield opened


@pytest.fixture
def notes(opened: sync.ChunkStore) -> sync.Collection:
    return opened.collection("notes", model=MODEL)


# --- one surface --------------------------------------------------------------------------------


def public(kind: type) -> dict[str, Any]:
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


def without_colour(annotation: Any) -> Any:
    if typing.get_origin(annotation) is AsyncIterator:
        return Iterator[typing.get_args(annotation)]
    return sync.Collection if annotation is store.Collection else annotation


@pytest.mark.parametrize(("asynchronous", "blocking"), TWINS, ids=lambda kind: kind.__module__)
def test_both_classes_have_the_same_public_members(asynchronous: type, blocking: type) -> None:
    assert public(asynchronous).keys() == public(blocking).keys()


@pytest.mark.parametrize(
    ("asynchronous", "blocking", "name"),
    [(a, b, name) for a, b in TWINS for name in public(a) if callable(getattr(a, name))],
)
def test_a_method_has_the_signature_of_its_twin(asynchronous: type, blocking: type, name: str) -> None:
    theirs = inspect.signature(getattr(asynchronous, name), eval_str=True)
    ours = inspect.signature(getattr(blocking, name), eval_str=True)
    assert ours.parameters == theirs.parameters
    assert ours.return_annotation == without_colour(theirs.return_annotation)


@pytest.mark.parametrize("kind", [kind for _, kind in TWINS])
def test_no_blocking_method_returns_a_coroutine(kind: type) -> None:
    for name in public(kind):
        member = getattr(kind, name)
        assert not inspect.iscoroutinefunction(member), name
        assert not inspect.isasyncgenfunction(member), name


def test_both_instances_have_the_same_public_attributes(
    opened: sync.ChunkStore, notes: sync.Collection
) -> None:
    def attributes(instance: object) -> set[str]:
        return {name for name in vars(instance) if not name.startswith("_")}

    inside = {"database", "hints", "queries"}  # async objects, of use on the store's own loop alone
    assert attributes(opened) == attributes(opened._twin) - inside
    assert attributes(notes) == attributes(notes._twin)


# --- it works -----------------------------------------------------------------------------------


def test_what_is_appended_is_read_back_in_order(notes: sync.Collection) -> None:
    version = notes.append("a", [Chunk(f"line {i}") for i in range(700)])
    assert (version.number, version.chunks, version.added) == (1, 700, 700)
    assert [chunk.content for chunk in notes.chunks("a")] == [f"line {i}" for i in range(700)]
    assert list(notes.keys()) == ["a"]
    assert [v.number for v in notes.history("a")] == [1]


def test_errors_are_the_same_ones(opened: sync.ChunkStore, notes: sync.Collection) -> None:
    with pytest.raises(UnknownCollection):
        opened.collection("nowhere")
    with pytest.raises(UnknownFile):
        notes.history("nothing")
    with pytest.raises(UnknownFile):
        list(notes.chunks("nothing"))
    for wrong in (5, None, ["text"]):
        with pytest.raises(InvalidInput, match="chunks"):
            notes.append("a", wrong)  # type: ignore[arg-type]


def test_the_versions_of_a_file_can_be_managed(notes: sync.Collection) -> None:
    for text in ("one", "two"):
        notes.append("a", [Chunk(text)])
    assert notes.pin("a", 1).pinned
    assert not notes.unpin("a", 1).pinned
    assert notes.rollback("a", 1).target
    assert notes.delete("a").tombstone
    notes.erase("a")
    assert list(notes.keys()) == []


def test_an_abandoned_iterator_leaves_the_store_usable(notes: sync.Collection) -> None:
    notes.append("a", [Chunk(f"line {i}") for i in range(700)])
    chunks = notes.chunks("a")
    assert next(chunks).ordinal == 0
    del chunks
    assert len(list(notes.chunks("a"))) == 700


def test_a_store_that_cannot_be_opened_leaves_no_thread(dsn: str, empty_schema: str) -> None:
    before = threading.active_count()
    with pytest.raises(Exception, match="chunkstore migrate"):
        sync.ChunkStore.open(dsn, schema=empty_schema)
    assert threading.active_count() == before


def test_a_closed_store_leaves_no_thread(dsn: str, schema: str) -> None:
    before = threading.active_count()
    with sync.ChunkStore.open(dsn, schema=schema) as opened:
        assert opened.collections() == []
    assert threading.active_count() == before


# --- what is appended is iterated in the caller's thread ----------------------------------------


def test_an_iterable_may_use_the_store_while_it_is_appended(notes: sync.Collection) -> None:
    notes.append("a", [Chunk(f"line {i}") for i in range(600)])
    copied = notes.append("b", (Chunk(chunk.content.upper()) for chunk in notes.chunks("a")))
    assert copied.chunks == 600


def test_an_iterable_may_be_bound_to_the_calling_thread(notes: sync.Collection) -> None:
    with closing(sqlite3.connect(":memory:")) as other:  # refuses other threads
        rows = other.execute("SELECT 'x' UNION SELECT 'y'")
        assert notes.append("a", (Chunk(content) for (content,) in rows)).chunks == 2


def test_an_error_in_the_iterable_appends_nothing(notes: sync.Collection) -> None:
    def chunks() -> Iterator[Chunk]:
        for i in range(10_000):
            yield Chunk(f"line {i}")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        notes.append("a", chunks())
    assert list(notes.keys()) == []


def test_ctrl_c_in_the_iterable_appends_nothing(dsn: str, schema: str) -> None:
    # In a process of its own, so that its Ctrl-C is nobody else's.
    process = FORKED.Process(target=append_and_interrupt, args=(dsn, schema))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def append_and_interrupt(dsn: str, schema: str) -> None:
    def chunks() -> Iterator[Chunk]:
        for i in range(300):
            yield Chunk(f"line {i}")
        signal.raise_signal(signal.SIGINT)
        yield Chunk("never reached")

    # Who starts the tests in the background of a shell has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with sync.ChunkStore.open(dsn, schema=schema) as store:
        notes = store.collection("notes", model=MODEL)
        with pytest.raises(KeyboardInterrupt):
            notes.append("a", chunks())
        assert list(notes.keys()) == []
        assert notes.append("a", [Chunk("after")]).number >= 1


def test_an_append_that_fails_early_does_not_wait_for_the_rest(notes: sync.Collection) -> None:
    taken = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal taken
        while True:
            taken += 1
            yield Chunk("")  # refused

    with pytest.raises(InvalidInput, match=r"chunks\[0\]"):
        notes.append("a", chunks())
    assert taken < 2_000


# --- several threads ----------------------------------------------------------------------------


def test_threads_share_a_store(notes: sync.Collection) -> None:
    def write(number: int) -> int:
        key = f"file {number % 4}"
        notes.append(key, (Chunk(f"{number} {i}") for i in range(50)))
        return len(notes.history(key))

    with ThreadPoolExecutor(8) as threads:
        lengths = list(threads.map(write, range(24)))
    assert max(lengths) == 6
    assert sorted(notes.keys()) == [f"file {i}" for i in range(4)]
    assert all(len(notes.history(key)) == 6 for key in notes.keys())  # noqa: SIM118 - a method, not a mapping's


def test_a_closed_store_says_so_and_is_closed_once(dsn: str, schema: str) -> None:
    opened = sync.ChunkStore.open(dsn, schema=schema)
    notes = opened.collection("notes", MODEL)
    opened.close()
    opened.close()
    with pytest.raises(DatabaseError, match="closed"):
        opened.collections()
    with pytest.raises(DatabaseError, match="closed"):
        notes.append("a", iter([Chunk("text")]))
