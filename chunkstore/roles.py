"""The database roles of a store, one a kind of process, and the tenants that collections belong to.

What each kind may do stands in the table `rights` of the schema; here the roles are made and get it. Keeps
invariant 2 against every role but the owner: none can change the log's rows, and the collector's alone can
remove payload.
"""

from typing import Any, Final

import msgspec
import psycopg
from psycopg import AsyncConnection

from chunkstore import catalog, rows
from chunkstore.database import Database
from chunkstore.errors import Conflict, InsufficientPrivilege, InvalidInput
from chunkstore.retries import persistently
from chunkstore.statements import load

ROLES = load("roles")

KINDS: Final = ("reader", "writer", "consumer", "projector", "collector")
"""What a role of the store may be for; a login may have several."""

_MOST_BYTES = 63 - len("_projector")


class Role(msgspec.Struct, frozen=True):
    """A role of the store."""

    role: str
    kind: str
    created: bool
    """Whether it was made now."""


async def make_roles(database: Database, *, prefix: str | None = None) -> list[Role]:
    """The roles `PREFIX_reader` and so on, made where they are missing, each with its kind's rights alone.

    The prefix is the schema's name unless given. Safe to run again, also at once from several machines.
    Raises InvalidInput, and InsufficientPrivilege unless the caller owns the store and may create roles that
    are missing; the message has the statements for an administrator.
    """
    prefix = _checked(database.schema if prefix is None else prefix)
    named = {f"{prefix}_{kind}": kind for kind in KINDS}

    async def make() -> list[Role]:
        async with database.transaction() as conn:
            await conn.execute(ROLES.begin)
            missing = await rows.fetch_values(conn, ROLES.missing, {"roles": list(named)})
            await _create(conn, missing)
            for role, kind in named.items():
                await conn.execute(ROLES.record, {"role": role, "kind": kind})
            await conn.execute(ROLES.forget_others, {"roles": list(named)})
            await conn.execute(ROLES.apply)
        return [Role(role, kind, role in missing) for role, kind in named.items()]

    return await persistently(make)


async def set_tenant(database: Database, collection: str, role: str | None) -> None:
    """Lets nobody but members of the role see the collection; with None, nobody but the store's owner.

    The first call keeps the collections of a store apart from then on: those without a tenant are the owner's
    alone. Raises UnknownCollection, InvalidInput, and Conflict before `make_roles`.
    """

    async def give() -> None:
        async with database.transaction() as conn:
            await conn.execute(ROLES.begin)
            row = await catalog.find(conn, collection)
            if role is not None and await rows.fetch_values(conn, ROLES.missing, {"roles": [role]}):
                raise InvalidInput("role", role, "a role of this server: CREATE ROLE makes one")
            if not await rows.fetch_value(conn, ROLES.has_roles):
                raise Conflict("tenant: the store has no roles yet: run `chunkstore roles` first")
            await conn.execute(ROLES.set_tenant, {"collection": row.collection, "tenant": role})

    await persistently(give)


def _checked(prefix: str) -> str:
    if not 1 <= len(prefix.encode()) <= _MOST_BYTES or "\0" in prefix or prefix.startswith("pg_"):
        raise InvalidInput("prefix", prefix, f"1 to {_MOST_BYTES} bytes without NUL, not beginning with pg_")
    return prefix


async def _create(conn: AsyncConnection[Any], missing: list[str]) -> None:
    statements = [ROLES.with_tables("create_role", role=role).as_string(conn) for role in missing]
    for statement in statements:
        try:
            async with conn.transaction():
                await conn.execute(statement.encode())
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            continue  # made this instant for a store of another database
        except psycopg.errors.InsufficientPrivilege as error:
            raise InsufficientPrivilege(
                "nothing was changed: this role may not create roles; have an administrator run:"
                f" {'; '.join(statements)}; and then `chunkstore roles` again"
            ) from error
