"""Fixtures that give a server, a migrated schema on it, and an open Database.

The server is `CHUNKSTORE_TEST_DSN` if that is set, a container where a Docker engine answers, and otherwise
the embedded one in a folder of its own, once a session (with xdist: a worker).
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from chunkstore import migrate
from chunkstore.database import Database
from chunkstore.dsn import Dsn
from chunkstore.embedded import EmbeddedServer

IMAGE = "pgvector/pgvector:pg17"


class Server(NamedTuple):
    """The server that the tests run on; `log` is None where its log file cannot be read."""

    dsn: str
    log: Path | None


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The session's server."""
    given = os.environ.get("CHUNKSTORE_TEST_DSN")
    if given:
        yield Server(given, None)
        return
    with ExitStack() as stack:
        yield _container(stack) or stack.enter_context(_embedded())


@pytest.fixture(scope="session")
def dsn(server: Server) -> str:
    """The address of the session's server, as a superuser."""
    return server.dsn


@pytest.fixture
def server_log(server: Server) -> Path:
    """The server's log file. Skips the test where the server is not the embedded one."""
    if server.log is None:
        pytest.skip("only the embedded server's log can be read")
    return server.log


@pytest.fixture
def empty_schema(dsn: str) -> Iterator[str]:
    """A schema's name that is free, and dropped after the test."""
    with free_name(dsn) as name:
        yield name


@pytest.fixture
def empty_schema_too(dsn: str) -> Iterator[str]:
    """One more of them."""
    with free_name(dsn) as name:
        yield name


@pytest.fixture(scope="session")
def migrated(dsn: str) -> Iterator[str]:
    """A schema that was migrated as users' are, and is only read."""
    with free_name(dsn) as name:
        migrate.apply(Dsn(dsn), name)
        yield name


@pytest.fixture
def schema(dsn: str, migrated: str, empty_schema: str) -> str:
    """A fresh migrated schema, dropped after the test.

    Made by the same statements all at once: a thousand tests need one, and one by one takes twice as long.
    """
    with psycopg.connect(dsn) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(empty_schema)))
        connection.execute(_SEARCH_PATH, [empty_schema])
        connection.execute(_migrations())
        connection.execute(_COPY_RECORDS.format(sql.Literal(migrated)))
        connection.execute(SAME_SALT)
    return empty_schema


SAME_SALT = "ALTER TABLE collections ALTER COLUMN salt SET DEFAULT '\\x00112233445566778899aabbccddeeff'"
"""So that a test's chunks have the same hashes in every run, and its files the same segments."""

_SEARCH_PATH = """
SELECT set_config('search_path', format('%%I, %%I', %s::text, n.nspname), true)
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""

_COPY_RECORDS = sql.SQL(
    """
    DO $$
    DECLARE
        _table text;
    BEGIN
        FOR _table IN SELECT tablename FROM pg_tables WHERE schemaname = {0} AND tablename LIKE '%yoyo%' LOOP
            EXECUTE format('CREATE TABLE %I (LIKE %I.%I INCLUDING ALL)', _table, {0}, _table);
            EXECUTE format('INSERT INTO %I SELECT * FROM %I.%I', _table, {0}, _table);
        END LOOP;
    END
    $$
    """
)


@cache
def _migrations() -> bytes:
    return b"\n;\n".join(path.read_bytes() for path in sorted(migrate.own_folder().glob("*.sql")))


@pytest.fixture
async def database(dsn: str, schema: str) -> AsyncIterator[Database]:
    """An open Database on a fresh migrated schema."""
    async with await Database.open(dsn, schema=schema) as opened:
        yield opened


@contextmanager
def free_name(dsn: str) -> Iterator[str]:
    """A schema's name that is free; a schema of that name is dropped at the end."""
    name = f"test_{uuid4().hex[:16]}"
    yield name
    drop_schema(dsn, name)


def drop_schema(dsn: str, name: str) -> None:
    """Drops a schema, cutting off whoever still holds locks in it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '10s'")
        connection.execute("SET client_min_messages = error")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _container(stack: ExitStack) -> Server | None:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return None
    import docker
    from testcontainers.postgres import PostgresContainer

    try:
        docker.from_env().ping()
    except docker.errors.DockerException:
        return None
    container = stack.enter_context(PostgresContainer(IMAGE, driver=None))
    return Server(container.get_connection_url(), None)


@contextmanager
def _embedded() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="chunkstore-tests-") as folder:
        running = EmbeddedServer(Path(folder))
        running.acquire()
        try:
            yield Server(running.dsn.conninfo(), running.log)
        finally:
            running.release()
