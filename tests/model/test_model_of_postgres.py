"""The model's rows, locks and transactions do what Postgres does; each case runs on both."""

from collections.abc import Generator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.model.protocol.building import empty
from tests.model.protocol.clock import time_passes
from tests.model.protocol.explorer import Explorer
from tests.model.protocol.postgres import COMMIT, UPDATE, Blocked, Rows, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.states import Check, Process, Scenario, call

MODES = ("KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE")


class Pair:
    """Two connections to one table with the row 1, and their twins in the model."""

    def __init__(self, first: psycopg.Connection, second: psycopg.Connection) -> None:
        self.first, self.second = first, second
        self.tables: dict[str, Rows] = {"t": {1: "a"}}
        self.model = Session(0, self.tables, (), (), {}, frozenset(), {})

    def other(self) -> Session:
        """The model's second session, as the first one stands now."""
        return Session(1, self.tables, (), (), {0: self.model.locks.items()}, frozenset(), {})

    def waits(self, statement: str) -> bool:
        """Whether the second connection waits for the first."""
        try:
            with self.second.transaction():
                self.second.execute(sql.SQL(statement))  # type: ignore[arg-type]
        except psycopg.errors.LockNotAvailable:
            return True
        return False


@pytest.fixture
def pair(dsn: str, schema: str) -> Iterator[Pair]:
    """Two connections, the second of which gives up at once where it would wait."""
    path = sql.Identifier(schema)
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        for connection in (first, second):
            connection.execute(sql.SQL("SET search_path = {}").format(path))
            connection.execute("SET lock_timeout = '30ms'")
        first.execute("CREATE TABLE t (key integer PRIMARY KEY, value text)")
        first.execute("INSERT INTO t VALUES (1, 'a')")
        first.commit()
        second.commit()
        yield Pair(first, second)
        first.rollback()


def waits(step: Statement, session: Session) -> bool:
    """Whether the statement waits in the model."""
    try:
        step.run(session)
    except Blocked:
        return True
    return False


@pytest.mark.parametrize("held", MODES)
@pytest.mark.parametrize("wanted", MODES)
def test_row_locks_conflict_as_in_postgres(pair: Pair, held: str, wanted: str) -> None:
    pair.first.execute(sql.SQL(f"SELECT FROM t WHERE key = 1 FOR {held}"))  # type: ignore[arg-type]
    pair.model.lock("t", 1, MODES.index(held))
    lock = Statement("lock", lambda session: session.lock("t", 1, MODES.index(wanted)))
    assert pair.waits(f"SELECT FROM t WHERE key = 1 FOR {wanted}") == waits(lock, pair.other())


@pytest.mark.parametrize(
    "first",
    [
        ("INSERT INTO t VALUES (2, 'b')", lambda session: session.insert("t", 2, "b")),
        ("UPDATE t SET value = 'c' WHERE key = 1", lambda session: session.update("t", 1, "c")),
        ("DELETE FROM t WHERE key = 1", lambda session: session.delete("t", 1)),
    ],
    ids=["insert", "update", "delete"],
)
@pytest.mark.parametrize(
    "second",
    [
        ("INSERT INTO t VALUES (1, 'd') ON CONFLICT DO NOTHING", lambda s: s.insert_if_absent("t", 1, "d")),
        ("INSERT INTO t VALUES (2, 'd') ON CONFLICT DO NOTHING", lambda s: s.insert_if_absent("t", 2, "d")),
        ("UPDATE t SET value = 'd' WHERE key = 1", lambda session: session.update("t", 1, "d")),
        ("DELETE FROM t WHERE key = 1", lambda session: session.delete("t", 1)),
        ("SELECT FROM t WHERE key = 1 FOR KEY SHARE", lambda session: session.lock("t", 1, 0)),
    ],
    ids=["insert 1", "insert 2", "update", "delete", "key share"],
)
def test_writes_wait_for_writes_as_in_postgres(pair: Pair, first: tuple, second: tuple) -> None:
    pair.first.execute(first[0])
    first[1](pair.model)
    expected = pair.waits(second[0])
    assert waits(Statement("write", second[1]), pair.other()) == expected


def test_writes_are_seen_by_others_at_the_commit_and_not_before() -> None:
    tables: dict[str, Rows] = {"t": {1: "a"}}
    writer = Session(0, tables, (), (), {}, frozenset(), {})
    writer.update("t", 1, "b")
    writer.insert("t", 2, "c")
    reader = Session(1, tables, (), (), {0: writer.locks.items()}, frozenset(), {})
    assert writer.get("t", 1) == "b"
    assert dict(reader.rows("t")) == {1: "a"}
    writer.commit()
    assert dict(reader.rows("t")) == {1: "b", 2: "c"}


def crossing(rules: Rules, first: int, second: int) -> Generator[Statement, Any, None]:
    """A program that locks two rows."""
    yield Statement(f"lock {first}", lambda session: session.lock("t", first, UPDATE))
    yield Statement(f"lock {second}", lambda session: session.lock("t", second, UPDATE))
    yield COMMIT


def test_a_deadlock_is_found() -> None:
    nothing = Check(lambda _: None, lambda _: None)
    one, two = Process("one", (call(crossing, 1, 2),)), Process("two", (call(crossing, 2, 1),))
    result = Explorer(Scenario("cross", empty(), (one, two)), Rules(), nothing, time_passes).run()
    assert result.counterexample is not None
    assert result.counterexample.broken == "deadlock"
    assert len(result.counterexample.trace) == 3
    same = Process("two", (call(crossing, 1, 2),))
    assert (
        Explorer(Scenario("same", empty(), (one, same)), Rules(), nothing, time_passes).run().counterexample
        is None
    )
