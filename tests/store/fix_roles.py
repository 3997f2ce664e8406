"""A store with its roles, and for each of them a user who has that role alone."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import NamedTuple
from uuid import uuid4

import anyio
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from chunkstore import migrate
from chunkstore.database import Database
from chunkstore.dsn import Dsn
from chunkstore.roles import KINDS, make_roles
from chunkstore.store import ChunkStore
from tests.fix_server import drop_schema

PASSWORD = "x"


class Users(NamedTuple):
    """The addresses of a store's owner and of a user of each of its roles."""

    dsn: str
    schema: str
    prefix: str

    def role(self, kind: str) -> str:
        """The store's role of that kind."""
        return f"{self.prefix}_{kind}"

    def user(self, name: str) -> str:
        """The user's role, which has one of the store's and logs in."""
        return f"{self.prefix}_{name}_user"

    def as_user(self, name: str) -> str:
        """The address to log in by."""
        return make_conninfo(self.dsn, user=self.user(name), password=PASSWORD)

    def connect(self, name: str) -> psycopg.Connection:
        """A connection of that user that looks where the store is, each statement committing by itself."""
        connection = psycopg.connect(self.as_user(name), autocommit=True)
        connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(self.schema)))
        return connection

    def owner(self) -> psycopg.Connection:
        """A connection of the store's owner, each statement committing by itself."""
        return self.connect("owner")

    def add(self, name: str, *kinds: str) -> None:
        """Makes a user with those roles."""
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(self.user(name)), PASSWORD)
            )
            for kind in kinds:
                grant = sql.SQL("GRANT {} TO {}")
                admin.execute(grant.format(*map(sql.Identifier, (self.role(kind), self.user(name)))))

    def make(self) -> None:
        """Makes the store's roles as its owner."""

        async def make() -> None:
            async with await Database.open(self.as_user("owner"), schema=self.schema, max_size=1) as database:
                await make_roles(database, prefix=self.prefix)

        anyio.run(make)


@contextmanager
def users_of_a_new_store(dsn: str) -> Iterator[Users]:
    """A migrated store that an ordinary user owns, its roles, and a user of each; all dropped afterwards."""
    name = f"test_{uuid4().hex[:16]}"
    users = Users(dsn, name, name)
    try:
        users.add("owner")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE EXTENSION IF NOT EXISTS vector")
            admin.execute(
                sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
                    sql.Identifier(name), sql.Identifier(users.user("owner"))
                )
            )
            admin.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(users.user("owner"))))
        migrate.apply(Dsn(users.as_user("owner")), name)
        users.make()
        for kind in KINDS:
            users.add(kind, kind)
        yield users
    finally:
        drop_schema(dsn, name)
        drop_roles(dsn, name)


def drop_roles(dsn: str, prefix: str) -> None:
    """Drops every role whose name begins so."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        found = admin.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [prefix]
        ).fetchall()
        if found:
            roles = sql.SQL(", ").join(sql.Identifier(role) for (role,) in found)
            admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(roles))


class Stores:
    """The store as its users see it, opened once for each."""

    def __init__(self, users: Users, stack: AsyncExitStack) -> None:
        self._users = users
        self._stack = stack
        self._opened: dict[str, ChunkStore] = {}

    async def of(self, name: str) -> ChunkStore:
        """The store of that user."""
        if name not in self._opened:
            opened = await ChunkStore.open(self._users.as_user(name), schema=self._users.schema)
            self._opened[name] = await self._stack.enter_async_context(opened)
        return self._opened[name]


@pytest.fixture
async def stores(users: Users) -> AsyncIterator[Stores]:
    """The store, as each of its users sees it."""
    async with AsyncExitStack() as stack:
        yield Stores(users, stack)
