"""Migrations: once, whole, from many processes at once, into any schema, from a wheel too."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from chunkstore import migrate
from chunkstore.database import Database
from chunkstore.dsn import Dsn
from chunkstore.errors import (
    DatabaseError,
    InsufficientPrivilege,
    InvalidInput,
    SchemaNotMigrated,
    SchemaTooNew,
)
from tests.fix_server import drop_schema

ROOT = Path(__file__).parents[2]

MIGRATE = """
import sys
from pathlib import Path
from chunkstore import migrate
from chunkstore.dsn import Dsn
print("ready", flush=True)
sys.stdin.readline()
folder = Path(sys.argv[3]) if len(sys.argv) > 3 else None
print(len(migrate.apply(Dsn(sys.argv[1]), sys.argv[2], folder)), flush=True)
"""

BODY = """
DECLARE
    y integer := 1; -- a comment; with a semicolon
BEGIN
    IF x > 1 THEN
        RAISE EXCEPTION 'no; %', x USING ERRCODE = 'CS001';
    END IF;
    FOR i IN 1 .. 2 LOOP
        y := y + CASE WHEN x = 1 THEN 2 ELSE 3 END;
    END LOOP;
    BEGIN
        PERFORM 1;
    EXCEPTION
        WHEN division_by_zero THEN NULL;
    END;
    RETURN y;
END
"""


@pytest.fixture
def empty_database(dsn: str) -> Iterator[str]:
    """The address of a fresh database without the extension."""
    name = f"test_{uuid4().hex[:16]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        yield make_conninfo(dsn, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def role(dsn: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"test_{uuid4().hex[:16]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def _as(dsn: str, role: str) -> Dsn:
    return Dsn(make_conninfo(dsn, user=role, password="x"))


def _execute(dsn: str, statement: str, *names: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
        return cursor.fetchall() if cursor.description else []


def _folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / f"{name}.sql").write_text(text)
    migrate.names.cache_clear()
    return path


def test_migrating_applies_all_once(dsn: str, empty_schema: str) -> None:
    known = list(migrate.names(migrate.own_folder()))
    assert migrate.apply(Dsn(dsn), empty_schema) == known
    assert migrate.apply(Dsn(dsn), empty_schema) == []


SHAPE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
       a.attstattarget::text
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = to_regnamespace(%(schema)s)
UNION ALL
SELECT 'function', p.oid::regprocedure::text, p.prosrc, p.provolatile::text, p.prosecdef::text,
       p.proconfig::text
FROM pg_proc p
WHERE p.pronamespace = to_regnamespace(%(schema)s)
UNION ALL
SELECT 'constraint', conname, pg_get_constraintdef(oid), NULL, NULL, NULL
FROM pg_constraint
WHERE connamespace = to_regnamespace(%(schema)s)
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid), NULL, NULL, NULL
FROM pg_trigger
WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(%(schema)s))
UNION ALL
SELECT 'relation', relname, relkind::text, reloptions::text, relacl::text, relrowsecurity::text
FROM pg_class
WHERE relnamespace = to_regnamespace(%(schema)s)
ORDER BY 1, 2, 3
"""


def _shape(dsn: str, schema: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(SHAPE, {"schema": schema}).fetchall()
    return [repr(row).replace(f"{schema}.", "") for row in found if not str(row[1]).startswith("pg_toast")]


def test_the_schemas_of_the_tests_are_what_migrating_makes(
    dsn: str, schema: str, empty_schema_too: str
) -> None:
    migrate.apply(Dsn(dsn), empty_schema_too)
    assert migrate.apply(Dsn(dsn), schema) == []
    made = _shape(dsn, schema)
    assert len(made) > 300
    assert made == _shape(dsn, empty_schema_too)


def test_ten_processes_at_once_migrate_two_schemas_of_an_empty_database(
    empty_database: str,
) -> None:
    known = len(migrate.names(migrate.own_folder()))
    started = [_start(empty_database, f"store_{number % 2}") for number in range(10)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 10, [error for _, error in answers]
    assert sorted(output for output, _ in answers) == ["0\n"] * 8 + [f"{known}\n"] * 2


def test_a_process_that_is_killed_while_it_migrates_leaves_nothing_behind(
    dsn: str, empty_schema: str, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "m", **{"0001": "CREATE TABLE one ();\nSELECT pg_advisory_xact_lock(4711);"})
    with psycopg.connect(dsn, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(4711)")
        process = _start(dsn, empty_schema, str(folder))
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
        while holder.execute(waiting).fetchone() == (0,):
            assert process.poll() is None
        process.kill()
        process.communicate()
        holder.execute("SELECT pg_advisory_unlock(4711)")
    assert migrate.apply(Dsn(dsn), empty_schema, folder) == ["0001"]


def test_a_migration_that_fails_leaves_nothing_and_is_named(
    dsn: str, empty_schema: str, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "m", **{"0001": "CREATE TABLE one ();", "0002": "CREATE TABLE one ();"})
    with pytest.raises(DatabaseError, match=r"already exists .* in migration 0002"):
        migrate.apply(Dsn(dsn), empty_schema, folder)
    assert _execute(dsn, f"SELECT FROM pg_namespace WHERE nspname = '{empty_schema}'") == []


def test_later_migrations_are_applied_to_an_older_schema(dsn: str, empty_schema: str, tmp_path: Path) -> None:
    older = _folder(tmp_path / "older", **{"0001.a": "CREATE TABLE one ();"})
    newer = _folder(
        tmp_path / "newer", **{"0001.a": "CREATE TABLE one ();", "0002.b": "ALTER TABLE one ADD b integer;"}
    )
    assert migrate.apply(Dsn(dsn), empty_schema, older) == ["0001.a"]
    assert migrate.apply(Dsn(dsn), empty_schema, newer) == ["0002.b"]
    with pytest.raises(SchemaTooNew, match=r"0002\.b"):
        migrate.apply(Dsn(dsn), empty_schema, older)


def test_function_bodies_reach_the_server_as_they_stand(dsn: str, empty_schema: str, tmp_path: Path) -> None:
    folder = _folder(
        tmp_path / "m",
        **{
            "0001": f"-- What it is for.\nCREATE FUNCTION f(x integer) RETURNS integer LANGUAGE plpgsql AS $$"
            f"{BODY}$$;\nDO $do$ BEGIN PERFORM 1; END $do$;\nCREATE TABLE after ();"
        },
    )
    migrate.apply(Dsn(dsn), empty_schema, folder)
    assert _execute(
        dsn, f"SELECT prosrc FROM pg_proc WHERE pronamespace = '{empty_schema}'::regnamespace"
    ) == [(BODY,)]
    assert _execute(dsn, "SELECT {}.f(1)", empty_schema) == [(5,)]
    assert _execute(dsn, "SELECT FROM {}.after", empty_schema) == []


@pytest.mark.parametrize("name", ['of "two"; words', "Übung", "UPPER", "user", "'", "%s", "{x}", "x" * 63])
async def test_a_schema_may_have_any_name_that_postgres_holds(dsn: str, name: str) -> None:
    try:
        async with await Database.open(dsn, schema=name, migrate=True) as database:
            async with database.transaction() as connection:
                cursor = await connection.execute("SELECT current_schema()")
                assert await cursor.fetchone() == (name,)
            async with database.connection() as connection:
                cursor = await connection.execute("SELECT current_schema()")
                assert await cursor.fetchone() == (name,)
    finally:
        drop_schema(dsn, name)


@pytest.mark.parametrize("name", ["", "pg_mine", "information_schema", "x" * 64, "a\0b", "\ud800"])
async def test_a_schema_name_that_postgres_cannot_hold_is_refused(dsn: str, name: str) -> None:
    with pytest.raises(InvalidInput, match="schema"):
        await migrate.migrate(dsn, schema=name)


async def test_a_schema_that_is_not_migrated_is_refused_with_what_to_do(dsn: str, empty_schema: str) -> None:
    with pytest.raises(SchemaNotMigrated, match="run `chunkstore migrate`"):
        await Database.open(dsn, schema=empty_schema)


async def test_a_schema_that_lacks_one_migration_is_refused_and_named(dsn: str, schema: str) -> None:
    last = migrate.names(migrate.own_folder())[-1]
    _execute(dsn, f"DELETE FROM {{}}._yoyo_migration WHERE migration_id = '{last}'", schema)
    with pytest.raises(SchemaNotMigrated, match=last):
        await Database.open(dsn, schema=schema)


async def test_a_schema_of_a_newer_chunkstore_is_refused(dsn: str, schema: str) -> None:
    _execute(dsn, "INSERT INTO {}._yoyo_migration VALUES ('x', '9999_later', now())", schema)
    with pytest.raises(SchemaTooNew, match="9999_later"):
        await Database.open(dsn, schema=schema)
    with pytest.raises(SchemaTooNew, match="9999_later"):
        await migrate.migrate(dsn, schema=schema)


async def test_a_database_without_the_extension_is_refused_with_what_to_do(empty_database: str) -> None:
    with pytest.raises(SchemaNotMigrated, match="run `chunkstore migrate`"):
        await Database.open(empty_database)


def test_a_role_that_may_not_make_schemas_is_told_what_to_ask_for(
    dsn: str, empty_schema: str, role: str
) -> None:
    with pytest.raises(InsufficientPrivilege, match=f'CREATE SCHEMA "{empty_schema}"'):
        migrate.apply(_as(dsn, role), empty_schema)


def test_a_role_that_may_not_make_extensions_is_told_what_to_ask_for(empty_database: str, role: str) -> None:
    with pytest.raises(InsufficientPrivilege, match="CREATE EXTENSION vector"):
        migrate.apply(_as(empty_database, role), "store")


def test_a_role_without_rights_may_migrate_where_nothing_is_to_be_done(
    dsn: str, schema: str, role: str
) -> None:
    _execute(dsn, "GRANT USAGE ON SCHEMA {} TO {}", schema, role)
    _execute(dsn, "GRANT SELECT ON {}._yoyo_migration TO {}", schema, role)
    assert migrate.apply(_as(dsn, role), schema) == []


async def test_a_role_that_may_not_read_the_schema_is_refused_clearly(
    dsn: str, schema: str, role: str
) -> None:
    with pytest.raises(InsufficientPrivilege, match=role):
        await Database.open(_as(dsn, role).conninfo(), schema=schema)


def test_a_stricter_default_isolation_does_not_let_two_processes_migrate_twice(
    dsn: str, empty_schema: str
) -> None:
    strict = Dsn(make_conninfo(dsn, options="-c default_transaction_isolation=serializable"))
    assert migrate.apply(strict, empty_schema)


def test_a_wheel_carries_the_migrations_and_no_stray_packages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        archive.extractall(tmp_path / "installed")
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {
        "chunkstore",
        "consumers",
        "projections",
    }

    code = "from chunkstore import migrate as m; print(m.own_folder(), *m.names(m.own_folder()), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    )
    folder, *names = done.stdout.splitlines()
    assert Path(folder) == tmp_path / "installed" / "chunkstore" / "_migrations"
    assert tuple(names) == migrate.names(ROOT / "migrations")


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
