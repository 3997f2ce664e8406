"""yoyo on one connection and inside one transaction, so that a migration and its record commit together.

Apart from `migrate` because yoyo takes long to import and most processes have nothing to apply.
"""

# yoyo is untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from yoyo import internalmigrations, read_migrations
from yoyo.backends.base import TransactionManager
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, MigrationList

_NO_ADDRESS = DatabaseURI("postgresql+psycopg", None, None, None, None, None, {})


def run(connection: Connection, folder: Path) -> None:
    """Applies what the connection's schema lacks of the folder, within the connection's transaction."""
    backend = _Backend(connection)
    for migration in backend.to_apply(_read(folder)):
        backend.apply_one(migration)


@cache
def _read(folder: Path) -> MigrationList:
    return read_migrations(glob.escape(str(folder)))


@contextmanager
def _named(migration: Migration) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        error.add_note(f"in migration {migration.id}")
        raise


class _Within(TransactionManager):
    """No savepoint a statement: an error ends the transaction around them all."""

    def _do_begin(self) -> None:
        pass

    _do_commit = _do_rollback = _do_begin


class _Backend(PostgresqlPsycopgBackend):
    def __init__(self, connection: Connection) -> None:
        self._given = connection
        super().__init__(_NO_ADDRESS, "_yoyo_migration")

    def connect(self, dburi: DatabaseURI) -> Connection:  # noqa: ARG002
        return self._given

    def transaction(self, rollback_on_exit: bool = False) -> _Within:
        return _Within(self, rollback_on_exit=rollback_on_exit)

    def ensure_internal_schema_updated(self) -> None:
        if internalmigrations.needs_upgrading(self):
            internalmigrations.upgrade(self)

    def apply_one(self, migration: Migration, force: bool = False, mark: bool = True) -> None:  # noqa: ARG002
        with _named(migration), self.transaction():
            migration.process_steps(self, "apply", force=force)
            self.mark_one(migration, log=False)

    def list_tables(self, **_: Any) -> list[str]:
        cursor = self.execute(
            "SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = current_schema()"
        )
        return [name for (name,) in cursor.fetchall()]
