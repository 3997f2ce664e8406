"""The part of Postgres that the protocol stands on: rows, row locks, transactions under READ COMMITTED.

A statement sees what is committed when it runs and what its own transaction wrote. Writes become visible at
the commit, all at once. A statement that needs a row which another transaction holds waits: it cannot run.
A statement that would lock *and* read under its old snapshot is written as two.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Key = Any
Row = Any
Rows = Mapping[Key, Row]
Place = tuple[str, Key]
"""A row's table and key, whether the row exists or not: two inserts of one key meet here too."""

KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE = range(4)

_CONFLICTS = (
    frozenset({UPDATE}),
    frozenset({NO_KEY_UPDATE, UPDATE}),
    frozenset({SHARE, NO_KEY_UPDATE, UPDATE}),
    frozenset({KEY_SHARE, SHARE, NO_KEY_UPDATE, UPDATE}),
)


class Violation(Exception):
    """Something that must never happen did; `broken` names it."""

    def __init__(self, broken: str, what: str) -> None:
        super().__init__(f"{broken}: {what}")
        self.broken = broken


class Blocked(Exception):
    """The statement waits for the transactions of these processes."""

    def __init__(self, holders: Iterable[int]) -> None:
        self.holders = tuple(holders)


class Idle(Exception):
    """The statement finds nothing to do, and its process looks again later."""


class Statement(NamedTuple):
    """One SQL statement: what a trace calls it and what it does.

    A `quiet` one touches only what its transaction has locked or written already, so that nothing that
    another process does meanwhile changes it or is changed by it: it runs at once after the one before it.
    """

    label: str
    run: Callable[["Session"], Any]
    quiet: bool = False


class Options(NamedTuple):
    """What a statement returns where the outcome is open: the explorer follows each."""

    outcomes: tuple[Any, ...]


class Session:
    """One process's connection, for the length of one statement."""

    def __init__(
        self,
        process: int,
        tables: dict[str, Rows],
        writes: Iterable[tuple[str, Key, Row]],
        locks: Iterable[tuple[Place, int]],
        locks_of_others: Mapping[int, Iterable[tuple[Place, int]]],
        immutable: frozenset[str],
        rank: Mapping[str, int],
    ) -> None:
        self.process = process
        self.tables = tables
        self.changed: set[str] = set()
        self.locks = dict(locks)
        self._others = locks_of_others
        self._immutable = immutable
        self._rank = rank
        self._writes: dict[str, dict[Key, Row]] = {}
        for table, key, row in writes:
            self._writes.setdefault(table, {})[key] = row
        self._views: dict[str, Rows] = {}

    # --- reading ---------------------------------------------------------------------------------

    def rows(self, table: str) -> Rows:
        """The rows that a statement of this transaction sees now."""
        mine = self._writes.get(table)
        if mine is None:
            return self.tables[table]
        view = self._views.get(table)
        if view is None:
            merged = {**self.tables[table], **mine}
            view = self._views[table] = {key: row for key, row in merged.items() if row is not None}
        return view

    def get(self, table: str, key: Key) -> Row:
        """One row, or None."""
        mine = self._writes.get(table)
        if mine is not None and key in mine:
            return mine[key]
        return self.tables[table].get(key)

    # --- locking ---------------------------------------------------------------------------------

    def lock(self, table: str, key: Key, mode: int, *, in_order: bool = True) -> None:
        """Locks a row until the end of the transaction, or waits. Out of the lock order is a violation."""
        place = (table, key)
        held = self.locks.get(place, -1)
        if held >= mode:
            return
        if holders := self._holders(place, mode):
            raise Blocked(holders)
        if held < 0 and in_order:
            self._check_order(place)
        self.locks[place] = mode

    def lock_or_skip(self, table: str, key: Key, mode: int) -> bool:
        """Locks a row if nobody holds it (SKIP LOCKED): whoever does not wait needs no order."""
        place = (table, key)
        if self._holders(place, mode):
            return False
        self.locks[place] = max(mode, self.locks.get(place, -1))
        return True

    def _holders(self, place: Place, mode: int) -> list[int]:
        conflicts = _CONFLICTS[mode]
        return [
            process
            for process, locks in self._others.items()
            if any(other == place and held in conflicts for other, held in locks)
        ]

    def _check_order(self, place: Place) -> None:
        rank = self._rank.get(place[0])
        if rank is None:
            return
        for table, key in self.locks:
            before = self._rank.get(table)
            if before is not None and (
                before > rank or (table == place[0] and before == rank and key > place[1])
            ):
                raise Violation("lock order", f"{place} after {(table, key)}")

    # --- writing ---------------------------------------------------------------------------------

    def insert(self, table: str, key: Key, row: Row) -> None:
        """Inserts a row; a key that is there already is a constraint violation (invariant 12)."""
        if not self.insert_if_absent(table, key, row):
            raise Violation("invariant 12", f"{table} has {key} already")

    def insert_if_absent(self, table: str, key: Key, row: Row) -> bool:
        """ON CONFLICT DO NOTHING: waits for a transaction that has inserted or deleted the same key."""
        place = (table, key)
        if place not in self.locks and (holders := self._holders(place, NO_KEY_UPDATE)):
            raise Blocked(holders)
        if self.get(table, key) is not None:
            return False
        self.locks[place] = UPDATE
        self._write(table, key, row)
        return True

    def update(self, table: str, key: Key, row: Row) -> None:
        """Writes a row that is there, or waits for whoever holds it."""
        if table in self._immutable:
            raise Violation("invariant 2", f"{table} {key} is changed")
        self._hold(table, key, NO_KEY_UPDATE)
        self._write(table, key, row)

    def blank(self, table: str, key: Key, row: Row) -> None:
        """Overwrites a row in place, which is refused in truth: for what would happen if it were not."""
        self._hold(table, key, NO_KEY_UPDATE)
        self._write(table, key, row)

    def delete(self, table: str, key: Key) -> None:
        """Deletes a row, or waits for whoever holds it; one that is gone then is passed over."""
        self._hold(table, key, UPDATE)
        if self.get(table, key) is not None:
            self._write(table, key, None)

    def _hold(self, table: str, key: Key, mode: int) -> None:
        place = (table, key)
        if self.locks.get(place, -1) >= mode:
            return
        if holders := self._holders(place, mode):
            raise Blocked(holders)
        self.locks[place] = mode

    def _write(self, table: str, key: Key, row: Row) -> None:
        self._writes.setdefault(table, {})[key] = row
        self._views.pop(table, None)

    # --- ending ----------------------------------------------------------------------------------

    def commit(self) -> None:
        """Makes the writes visible and lets the locks go."""
        for table, mine in self._writes.items():
            rows = dict(self.tables[table])
            for key, row in mine.items():
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
            self.tables[table] = rows
            self.changed.add(table)
        self.abort()

    def abort(self) -> None:
        """Forgets the writes and lets the locks go."""
        self._writes = {}
        self._views = {}
        self.locks = {}

    @property
    def writes(self) -> frozenset[tuple[str, Key, Row]]:
        """What the open transaction has written so far."""
        return frozenset(
            (table, key, row) for table, rows in self._writes.items() for key, row in rows.items()
        )


COMMIT = Statement("commit", Session.commit)
COMMIT_AT_ONCE = Statement("commit", Session.commit, quiet=True)
"""A commit right after the transaction's last lock: nothing can come between that the lock lets in."""
ABORT = Statement("abort", Session.abort, quiet=True)
