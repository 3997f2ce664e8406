"""Fixtures that dump a store while it lives, and restore it: into a new cluster, or into a new database."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from chunkstore.embedded import EmbeddedServer
from chunkstore.embedded_binaries import find_binaries
from tests.fix_server import Server

MakeDatabase = Callable[[], str]
_BEYOND_ITS_SCHEMA = ("--extension", "vector")


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a new cluster, in which nothing ever happened."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-copy-") as folder:
        server = EmbeddedServer(Path(folder))
        server.acquire()
        try:
            yield server.dsn.conninfo()
        finally:
            server.release()


@pytest.fixture
def make_database(dsn: str) -> Iterator[MakeDatabase]:
    """Makes empty databases on the session's server; returns the address of one."""
    made: list[str] = []

    def make() -> str:
        made.append(f"test_{uuid4().hex[:16]}")
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(made[-1])))
        return make_conninfo(dsn, dbname=made[-1])

    with psycopg.connect(dsn, autocommit=True) as connection:
        yield make
        for name in made:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(sql.Identifier(name)))


class Copier:
    """Dumps one schema to a file and restores it, with the programs of the embedded server's wheel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binaries = find_binaries(folder)
        self._binaries.give(folder)

    def dump(self, dsn: str, schema: str) -> None:
        chosen = ("--schema", f'"{schema}"', *_BEYOND_ITS_SCHEMA)
        self._run("pg_dump", "--format", "custom", "--file", "dump", *chosen, "--dbname", dsn)

    def restore(self, dsn: str) -> None:
        self._run("pg_restore", "--exit-on-error", "--dbname", dsn, "dump")

    def _run(self, command: str, *arguments: str) -> None:
        done = self._binaries.run(command, *arguments, cluster=self._folder)
        assert done.ok, done.output


@pytest.fixture
def copier(server: Server) -> Iterator[Copier]:
    """Takes copies of stores."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-dump-") as folder:
        yield Copier(Path(folder))
