"""A store of every earlier schema version becomes one of the newest, whole and while it is in use.

An earlier version is a beginning of `migrations/`: what a store had before the files after it were written.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg import Connection, sql

from chunkstore import migrate
from chunkstore.collection import Collection
from chunkstore.dsn import Dsn
from chunkstore.errors import DatabaseError
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from projections.verify import verify
from tests.faults.asking import until, value
from tests.store.fix_lived import Lived, lived

__all__ = ["lived"]

NAMES = migrate.names(migrate.own_folder())
EARLIER = range(1, len(NAMES))

TABLES = """
SELECT relname
FROM pg_class
WHERE relnamespace = to_regnamespace(%s)
  AND relkind = %s
  AND relname NOT LIKE '\\_yoyo%%'
ORDER BY 1
"""
COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of migrations: empty, for the test to fill."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-migrations-") as path:
        yield Path(path)
    migrate.names.cache_clear()


def first(count: int, folder: Path, **more: str) -> Path:
    """Fills a folder with the first so many migrations, and what comes after them."""
    for name in NAMES[:count]:
        shutil.copy(migrate.own_folder() / f"{name}.sql", folder)
    for name, text in more.items():
        (folder / f"{name}.sql").write_text(text)
    migrate.names.cache_clear()
    return folder


class Older:
    """A schema of an earlier version, filled with what another store holds."""

    def __init__(self, connection: Connection, schema: str, source: str) -> None:
        self._connection = connection
        self._schema = schema
        self._source = source
        self._columns = {table: self._columns_of(schema, table) for table in self._names(schema, "r")}

    def fill(self) -> None:
        """Copies every row and every sequence that the earlier version has a place for."""
        made = {table for table in self._names(self._source, "r") if table.startswith(("search_", "active_"))}
        for table in sorted(made - {"active_versions"}):
            self._run("CREATE TABLE {older} (LIKE {source} INCLUDING ALL)", table)
            if table.startswith("search_"):  # LIKE leaves this out
                self._run("ALTER TABLE {older} ALTER COLUMN embedding SET STATISTICS 0", table)
            self._columns[table] = self._columns_of(self._schema, table)
        for table in self._columns:
            self._run(
                "INSERT INTO {older} ({columns}) OVERRIDING SYSTEM VALUE"
                " SELECT {columns} FROM {source} ON CONFLICT DO NOTHING",
                table,
            )
        for sequence in self._names(self._schema, "S"):
            self._run("SELECT setval({name}, last_value, is_called) FROM {source}", sequence)

    def differing(self) -> list[str]:
        """The tables whose rows, in the columns that the earlier version had, are not those of the source."""
        unequal = (
            "SELECT EXISTS (SELECT {texts} FROM {older} EXCEPT ALL SELECT {texts} FROM {source})"
            " OR EXISTS (SELECT {texts} FROM {source} EXCEPT ALL SELECT {texts} FROM {older})"
        )
        return [table for table in self._columns if self._run(unequal, table) == [(True,)]]

    def _names(self, schema: str, kind: str) -> list[str]:
        return [name for (name,) in self._connection.execute(TABLES, [f'"{schema}"', kind])]

    def _columns_of(self, schema: str, table: str) -> list[sql.Identifier]:
        name = sql.Identifier(schema, table).as_string()
        return [sql.Identifier(column) for (column,) in self._connection.execute(COLUMNS, [name])]

    def _run(self, statement: LiteralString, table: str) -> list[tuple[object, ...]]:
        columns = self._columns.get(table, [])
        cursor = self._connection.execute(
            sql.SQL(statement).format(
                older=sql.Identifier(self._schema, table),
                name=sql.Literal(sql.Identifier(self._schema, table).as_string()),
                source=sql.Identifier(self._source, table),
                columns=sql.SQL(", ").join(columns),
                texts=sql.SQL(", ").join(sql.SQL("{}::text").format(column) for column in columns),
            )
        )
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    """A connection of the operator's."""
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


# --- what a store holds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count",
    [
        # The first goes through every migration; what starts between them repeats parts of its way.
        pytest.param(count, id=NAMES[count - 1], marks=[pytest.mark.soak] if 1 < count < EARLIER[-1] else [])
        for count in EARLIER
    ],
)
async def test_a_store_of_every_earlier_version_is_migrated_whole(
    lived: Lived, connection: Connection, dsn: str, empty_schema: str, folder: Path, count: int
) -> None:
    assert migrate.apply(Dsn(dsn), empty_schema, first(count, folder)) == list(NAMES[:count])
    filled = Older(connection, empty_schema, lived.store.database.schema)
    filled.fill()
    assert migrate.apply(Dsn(dsn), empty_schema) == list(NAMES[count:])
    assert filled.differing() == []
    if count == 1:  # through every migration
        async with await ChunkStore.open(dsn, schema=empty_schema) as store:
            assert (await verify(store)).broken == []
            await _goes_on(store, lived)


async def _goes_on(store: ChunkStore, lived: Lived) -> None:
    migrated = Lived(store, await store.collection("docs"), lived.model)
    before = len(await migrated.collection.history("changed"))
    await migrated.append("changed", "written after the migration")
    await migrated.drain()
    history = await migrated.collection.history("changed")
    assert (len(history), history[-1].active) == (before + 1, True)
    assert (await verify(store)).broken == []


# --- while it is in use ---------------------------------------------------------------------------

NEXT = "ALTER TABLE chunks ADD COLUMN later integer;"
WAITS = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"

HAS_FILES = """
SELECT count(*)
FROM pg_locks
WHERE relation = to_regclass('files') AND mode = 'AccessExclusiveLock' AND granted
"""


async def test_a_migration_that_waits_for_a_long_transaction_keeps_nobody_else_waiting(
    store: ChunkStore, collection: Collection, dsn: str, folder: Path
) -> None:
    schema = store.database.schema
    newer = first(len(NAMES), folder, **{"9999_next": NEXT})
    async with store.database.connection() as holder, anyio.create_task_group() as tasks:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM chunks")
        tasks.start_soon(migrating, dsn, schema, newer)
        for number in range(3):
            await until(store, WAITS)
            with anyio.fail_after(10):
                await collection.append(f"doc {number}", [Chunk("written meanwhile")])
        await holder.execute("COMMIT")
    assert await value(store, "SELECT count(*) FROM chunks WHERE later IS NULL") == 3


async def test_a_migration_that_never_gets_its_locks_changes_nothing_and_says_what_to_do(
    store: ChunkStore, dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE_SECONDS", 0.5)
    newer = first(len(NAMES), folder, **{"9998_first": "CREATE TABLE first ();", "9999_next": NEXT})
    async with store.database.connection() as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM chunks")
        with pytest.raises(DatabaseError, match="end the long ones"):
            await migrating(dsn, store.database.schema, newer)
        await holder.execute("COMMIT")
    assert await value(store, "SELECT to_regclass('first') IS NULL")
    assert migrate.apply(Dsn(dsn), store.database.schema, newer) == ["9998_first", "9999_next"]


async def test_a_migration_gives_way_where_it_and_a_writer_wait_for_each_other(
    store: ChunkStore, dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_MILLISECONDS", (60_000, 60_000))
    slow = f"ALTER TABLE files ADD COLUMN later integer; SELECT pg_sleep(0.5); {NEXT}"
    newer = first(len(NAMES), folder, **{"9999_next": slow})
    async with store.database.connection() as writer, anyio.create_task_group() as tasks:
        await writer.execute("BEGIN")
        await writer.execute("LOCK TABLE chunks IN ROW EXCLUSIVE MODE")
        tasks.start_soon(migrating, dsn, store.database.schema, newer)
        await until(store, HAS_FILES)
        await writer.execute("LOCK TABLE files IN ROW EXCLUSIVE MODE")
        await writer.execute("COMMIT")
    assert await value(store, "SELECT count(later) FROM files") == 0


async def migrating(dsn: str, schema: str, folder: Path) -> None:
    await anyio.to_thread.run_sync(migrate.apply, Dsn(dsn), schema, folder, abandon_on_cancel=True)
