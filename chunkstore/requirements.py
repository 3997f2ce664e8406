"""What a server must have before a store can live in it, asked in one query."""

import re
from typing import Any

import msgspec

from chunkstore.errors import SchemaNotMigrated, UnsupportedServer

OLDEST_SERVER = 15
OLDEST_VECTOR = (0, 7, 0)
ITERATIVE_VECTOR = (0, 8, 0)

INCARNATION = b"""
SELECT concat_ws(
    '/', system_identifier, greatest(timeline_id, min_recovery_end_timeline),
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
)
FROM pg_control_system(), pg_control_checkpoint(), pg_control_recovery()
"""
"""Which store this is: another one after a restore, a recovery to a point in time, or a failover.

Numbers of files, versions, chunks and offsets mean something within one incarnation alone. Between a failover
and the checkpoint after it the new timeline is known to the recovery only.
"""

FACTS = (
    b"""
SELECT
    pg_backend_pid(),
    current_setting('server_version_num')::integer,
    current_setting('server_encoding'),
    (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    (
        SELECT nspname
        FROM pg_namespace AS n
        JOIN pg_extension AS e ON e.extnamespace = n.oid
        WHERE e.extname = 'vector'
    ),
    (
        SELECT t.oid
        FROM pg_type AS t
        JOIN pg_extension AS e ON e.extnamespace = t.typnamespace
        WHERE e.extname = 'vector' AND t.typname = 'vector'
    ),
    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
    EXISTS (
        SELECT
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = '_yoyo_migration'
    ),
    ("""
    + INCARNATION
    + b")"
)


class Server(msgspec.Struct, frozen=True):
    """What `FACTS` returned."""

    process: int
    version: int
    encoding: str
    vector: str | None
    vector_schema: str | None
    vector_type: int | None
    vector_available: str | None
    has_migrations: bool
    incarnation: str

    def check(self) -> None:
        """Raises UnsupportedServer for what no migration can mend."""
        if self.version // 10_000 < OLDEST_SERVER:
            raise UnsupportedServer(
                f"the server is Postgres {self.version // 10_000}; {OLDEST_SERVER} is the oldest supported"
            )
        if self.encoding != "UTF8":
            raise UnsupportedServer(f"the database's encoding is {self.encoding}; make one with UTF8")
        found = self.vector or self.vector_available
        if found is None:
            raise UnsupportedServer("the server has no pgvector: install it (package postgresql-…-pgvector)")
        if _numbers(found) < OLDEST_VECTOR:
            raise UnsupportedServer(
                f"pgvector is {found}; {'.'.join(map(str, OLDEST_VECTOR))} is the oldest supported:"
                " install a newer one, then ALTER EXTENSION vector UPDATE"
            )

    @property
    def has_iterative_scans(self) -> bool:
        """Whether an index scan can go on until enough rows pass the join (pgvector 0.8)."""
        return self.vector is not None and _numbers(self.vector) >= ITERATIVE_VECTOR

    def require_vector(self) -> tuple[str, int]:
        """The schema of the vector extension and the number of its type.

        Raises SchemaNotMigrated where the database lacks it.
        """
        if self.vector_schema is None or self.vector_type is None:
            raise SchemaNotMigrated("the database lacks the extension vector: run `chunkstore migrate`")
        return self.vector_schema, self.vector_type


def read(row: tuple[Any, ...] | None) -> Server:
    """The facts of one row of `FACTS`."""
    assert row is not None
    return Server(*row)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
