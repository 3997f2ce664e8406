"""What each role may do is what the page of rights says: every right is tried, and all else is refused."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, LiteralString

import anyio
import psycopg
import pytest
from psycopg import sql
from psycopg.errors import CheckViolation, InsufficientPrivilege
from psycopg.types.json import Jsonb

from chunkstore.model import Chunk
from chunkstore.roles import KINDS
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from tests.faults.models import MODEL
from tests.store.fix_roles import Users, users_of_a_new_store

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "give-rights.md"
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")

Row = tuple[str, ...]


@pytest.fixture(scope="module")
def users(dsn: str) -> Iterator[Users]:
    """A store that holds an active file, with its roles and users."""
    with users_of_a_new_store(dsn) as made:
        anyio.run(_fill, made)
        yield made


async def _fill(users: Users) -> None:
    async with await ChunkStore.open(users.as_user("owner"), schema=users.schema) as store:
        collection = await store.collection("docs", model=MODEL)
        await collection.append("a", [Chunk("one"), Chunk("two")])
        await EmbeddingConsumer(store, MODEL).run(drain=True)
        await Projector(store, MODEL.name).run(drain=True)
        await collection.append("a", [Chunk("one"), Chunk("three")])


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of role."""
    return request.param


@pytest.fixture
def role(users: Users, kind: str) -> Iterator[psycopg.Connection]:
    """A connection of a user who has that role alone."""
    with users.connect(kind) as connection:
        yield connection


@pytest.fixture
def owner(users: Users) -> Iterator[psycopg.Connection]:
    """A connection of the store's owner."""
    with users.owner() as connection:
        yield connection


# --- the page -----------------------------------------------------------------------------------


def test_the_page_lists_every_right_to_a_table(users: Users, owner: psycopg.Connection) -> None:
    assert listed("Tables") == table_rights(users, owner)


def test_the_page_lists_the_columns_where_a_right_is_to_some(users: Users, owner: psycopg.Connection) -> None:
    assert listed("Some columns alone") == column_rights(users, owner)


def test_the_page_lists_every_function_that_runs_with_the_owners_rights(owner: psycopg.Connection) -> None:
    assert listed("Functions") == function_rights(owner)


def table_rights(users: Users, owner: psycopg.Connection) -> list[Row]:
    """For each table and view a cell a kind: `S I U D`, in lower case where it is to some columns alone."""
    whole = owner.execute(
        "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants"
        " WHERE table_schema = current_schema()"
    ).fetchall()
    part = {(table, grantee, right) for table, grantee, right, _ in _columns(owner)}
    rows: list[Row] = []
    for table in sorted({table for table, *_ in owner.execute(_COLUMNS).fetchall()}):
        cells: list[str] = []
        for kind in KINDS:
            letters = [
                right[0] if (table, users.role(kind), right) in whole
                else right[0].lower() if (table, users.role(kind), right) in part
                else ""
                for right in PRIVILEGES
            ]  # fmt: skip
            cells.append(" ".join(filter(None, letters)))
        rows.append((_general(table), *cells))
    return rows


def column_rights(users: Users, owner: psycopg.Connection) -> list[Row]:
    """Kind, table, right and columns, where the right is not to the whole table."""
    whole = set(
        owner.execute(
            "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants"
            " WHERE table_schema = current_schema()"
        ).fetchall()
    )
    kinds = {users.role(kind): kind for kind in KINDS}
    found = [
        (kinds[grantee], _general(table), right, column)
        for table, grantee, right, column in _columns(owner)
        if (table, grantee, right) not in whole and grantee in kinds
    ]
    found.sort(key=lambda row: (KINDS.index(row[0]), row[1], PRIVILEGES.index(row[2])))
    return [
        (key[0], key[1], key[2], ", ".join(row[3] for row in group))
        for key, group in groupby(found, key=lambda row: row[:3])
    ]


def function_rights(owner: psycopg.Connection) -> list[Row]:
    """Each function that runs with the owner's rights, and the kinds that may call it."""
    found = owner.execute(
        "SELECT p.proname, r.kind FROM pg_proc p JOIN roles r"
        " ON has_function_privilege(r.role, p.oid, 'EXECUTE')"
        " WHERE p.pronamespace = current_schema()::regnamespace AND p.prosecdef ORDER BY p.proname"
    ).fetchall()
    return [
        (name, ", ".join(sorted((kind for _, kind in group), key=KINDS.index)))
        for name, group in groupby(found, key=lambda row: row[0])
    ]


_COLUMNS = """
SELECT c.relname::text, c.relkind = 'v', a.attname::text
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v')
  AND c.relname NOT IN ('_yoyo_log', '_yoyo_version', 'yoyo_lock')
"""


def _columns(owner: psycopg.Connection) -> list[tuple[str, str, str, str]]:
    return owner.execute(
        "SELECT p.table_name::text, p.grantee::text, p.privilege_type::text, p.column_name::text"
        " FROM information_schema.column_privileges p"
        " JOIN information_schema.columns c USING (table_schema, table_name, column_name)"
        " WHERE p.table_schema = current_schema() ORDER BY c.table_name, c.ordinal_position"
    ).fetchall()


def _general(table: str) -> str:
    return re.sub(r"^(search|active)_\d+_\d+$", r"\1_C_M", table)


def listed(heading: str) -> list[Row]:
    """The rows of the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip().replace("`", "") for cell in row) for row in rows[2:]]


# --- every right is tried -----------------------------------------------------------------------


def test_a_role_can_do_to_each_column_what_the_page_says_and_nothing_else(
    role: psycopg.Connection, kind: str, owner: psycopg.Connection
) -> None:
    columns = owner.execute(_COLUMNS).fetchall()
    assert len(columns) > 120
    wrong: list[str] = []
    for table, is_view, column in columns:
        for right, statement in _TRIES.items():
            tried = sql.SQL(statement).format(table=sql.Identifier(table), column=sql.Identifier(column))
            if (right == "SELECT" or not is_view) and (
                _is_refused(role, tried, undone=False) == _is_listed(kind, _general(table), right, column)
            ):
                wrong.append(f"{right} {table}.{column}")
    assert wrong == []


def test_a_role_can_remove_only_what_the_page_says(
    role: psycopg.Connection, kind: str, owner: psycopg.Connection
) -> None:
    wrong: list[str] = []
    for table in sorted({table for table, is_view, _ in owner.execute(_COLUMNS).fetchall() if not is_view}):
        name = sql.Identifier(table)
        removed = not _is_refused(role, sql.SQL("DELETE FROM {} WHERE false").format(name))
        if removed != _is_listed(kind, _general(table), "DELETE", None):
            wrong.append(f"DELETE {table}")
        others: tuple[LiteralString, ...] = ("TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD x integer")
        wrong += [f"{one} {table}" for one in others if not _is_refused(role, sql.SQL(one).format(name))]
    assert wrong == []


_TRIES: dict[str, LiteralString] = {
    "SELECT": "SELECT {column} FROM {table} LIMIT 0",
    "INSERT": "INSERT INTO {table} ({column}) OVERRIDING SYSTEM VALUE SELECT NULL WHERE false",
    "UPDATE": "UPDATE {table} SET {column} = DEFAULT WHERE false",
}


def _is_listed(kind: str, table: str, right: str, column: str | None) -> bool:
    cell = next(row for row in listed("Tables") if row[0] == table)[1 + KINDS.index(kind)]
    if right[0] in cell:
        return True
    some = [row[3] for row in listed("Some columns alone") if row[:3] == (kind, table, right)]
    return bool(some) and column in some[0].split(", ")


def _is_refused(
    role: psycopg.Connection, statement: sql.SQL | sql.Composed | str, *, undone: bool = True
) -> bool:
    """Whether the role lacks the right; any other error is of a statement that it may run.

    Without `undone` it must be one that changes nothing.
    """
    try:
        with role.transaction(force_rollback=True) if undone else nullcontext():
            role.execute(statement.encode() if isinstance(statement, str) else statement)
    except InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False
    return False


# --- functions ----------------------------------------------------------------------------------


def test_a_role_can_call_the_owners_functions_that_the_page_says_and_no_others(
    role: psycopg.Connection, kind: str, owner: psycopg.Connection
) -> None:
    functions = owner.execute(
        "SELECT p.oid::regprocedure::text, p.proname FROM pg_proc p"
        " WHERE p.pronamespace = current_schema()::regnamespace AND p.prosecdef"
    ).fetchall()
    assert len(functions) > 15
    may = {name for name, kinds in listed("Functions") if kind in kinds.split(", ")}
    for signature, name in functions:
        types = signature.partition("(")[2].rstrip(")")
        arguments = ", ".join(f"NULL::{one}" for one in types.split(",") if one)
        assert _is_refused(role, f"SELECT {name}({arguments})") == (name not in may), signature


def test_a_function_with_the_owners_rights_looks_in_the_store_first_and_is_nobodys_else(
    users: Users, owner: psycopg.Connection
) -> None:
    found = owner.execute(
        "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc"
        " WHERE pronamespace = current_schema()::regnamespace AND prosecdef"
    ).fetchall()
    assert found
    for name, settings, is_public in found:
        assert f"search_path={users.schema}, public, pg_temp" in settings, name
        assert not is_public, name


def test_no_role_can_move_a_sequence_back(role: psycopg.Connection, owner: psycopg.Connection) -> None:
    found = owner.execute(
        "SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema()"
    ).fetchall()
    assert found
    for (sequence,) in found:
        assert _is_refused(role, f"SELECT setval('{sequence}', 1)"), sequence


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine ()",
        "CREATE FUNCTION lock_lease(unknown) RETURNS void LANGUAGE sql AS ''",
        "ALTER TABLE events DISABLE TRIGGER events_are_immutable",
        "DROP TRIGGER events_are_immutable ON events",
        "ALTER TABLE events ENABLE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
        "CREATE POLICY mine ON versions USING (true)",
        "ALTER FUNCTION claim SECURITY INVOKER",
        "GRANT SELECT ON rights TO PUBLIC",
        "SELECT apply_rights()",
        "SELECT set_tenant(1, NULL)",
        "SELECT set_partitions(1)",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('postgresql.conf')",
    ],
)
def test_no_role_can_change_what_the_store_is(role: psycopg.Connection, statement: str) -> None:
    assert _is_refused(role, statement)


# --- what a right to a table alone would allow --------------------------------------------------


def test_no_role_changes_a_row_of_the_log(role: psycopg.Connection) -> None:
    for statement in (
        "UPDATE events SET data = NULL",
        "DELETE FROM events",
        "TRUNCATE events",
        "INSERT INTO events (partition, last_offset, n, type) VALUES (0, 999, 1, 'pinned')",
    ):
        assert _is_refused(role, statement), statement


def test_no_role_but_the_collectors_removes_payload(role: psycopg.Connection, kind: str) -> None:
    for table in ("chunks", "embeddings", "segments", "versions", "files"):
        assert _is_refused(role, f"DELETE FROM {table}"), table
    for call in (
        "sweep_segments(1, 1, 1000)",
        "erase_file(1, 'no such file')",
        "delete_chunks(1, ARRAY[1024])",
    ):
        may = kind == "collector" and not call.startswith("delete_chunks")
        assert _is_refused(role, f"SELECT {call}") is not may, call


FORGED = [
    ("version_activated", 0),
    ("version_collected", 0),
    ("file_erased", 0),
    ("model_added", 0),
    ("version_committed", 1),
    ("no_such_type", 0),
]


@pytest.mark.parametrize(("event", "partitions_beside"), FORGED)
def test_a_writer_logs_its_own_types_of_events_alone_and_in_the_files_partition(
    users: Users, event: str, partitions_beside: int
) -> None:
    assert _appends(users, "writer", event, partitions_beside) is InsufficientPrivilege


@pytest.mark.parametrize("event", ["version_committed", "chunks_appended", "version_activated", "pinned"])
def test_a_collector_logs_its_own_types_of_events_alone(users: Users, event: str) -> None:
    assert _appends(users, "collector", event, 0) is InsufficientPrivilege


MALFORMED = [
    {"type": "version_committed", "version": 1},
    {"type": "version_committed", "version": 1, "data": {}},
    {"type": "version_committed", "version": 1, "data": {"target": "yes"}},
    {"type": "version_committed", "version": 1, "data": {"target": True, "replaced": 1.5}},
    {"type": "version_committed", "version": 1, "data": {"target": True, "note": "text"}},
    {"type": "version_committed", "data": {"target": True}},
    {"type": "target_changed", "version": 1, "data": "x"},
    {"type": "target_changed", "version": 1, "data": ["x"]},
    {"type": "target_changed", "version": 1, "data": {"previous": "x"}},
    {"type": "pinned", "version": 1, "n": 1024},
    {"type": "pinned", "version": 1, "chunks": [1]},
    {"type": "pinned", "version": 1, "first_chunk": 1},
    {"type": "dead_letter_retried", "version": 1, "data": {"model": 1, "chunk": "x"}},
    {"type": "dead_letter_discarded", "version": 1, "data": {"model": 1}},
    {"type": "chunks_appended", "version": 1, "n": 3},
    {"type": "chunks_appended", "version": 1, "n": 1024, "chunks": []},
    {"type": "chunks_appended", "version": 1, "n": 2, "chunks": [1, None]},
    {"type": "chunks_appended", "version": 1, "n": 0, "first_chunk": 1},
    {"type": "chunks_appended", "version": 1, "n": 1025, "first_chunk": 1},
    {"type": "chunks_appended", "version": 1, "first_chunk": 1},
]


@pytest.mark.parametrize("event", MALFORMED)
def test_a_writer_logs_nothing_that_a_reader_of_the_log_could_stumble_over(
    users: Users, event: dict[str, Any]
) -> None:
    with users.connect("writer") as connection, connection.transaction(force_rollback=True):
        row = connection.execute("SELECT file, partition FROM files WHERE key = 'a'").fetchone()
        assert row is not None
        with pytest.raises(InsufficientPrivilege, match="shape"):
            connection.execute(
                "SELECT append_checked(%s, %s::jsonb)", [row[1], Jsonb([event | {"file": row[0]}])]
            )


def test_a_writer_and_a_collector_do_log_their_events(users: Users) -> None:
    assert _appends(users, "writer", "version_committed", 0) is None
    assert _appends(users, "collector", "version_collected", 0) is None


def _appends(users: Users, name: str, event: str, beside: int) -> type[Exception] | None:
    with users.connect(name) as connection:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(
                    "SELECT append_checked(partition + %s, jsonb_build_array(jsonb_build_object("
                    "'type', %s::text, 'file', file, 'version', 1, 'data', CASE %s::text"
                    " WHEN 'version_committed' THEN '{\"target\": true}'::jsonb END"
                    "))) FROM files WHERE key = 'a'",
                    [beside, event, event],
                )
        except psycopg.Error as error:
            return type(error)
    return None


UNSEEN: list[tuple[str, str]] = [
    ("writer", "UPDATE versions SET state = 'abandoned' WHERE state = 'committed'"),
    ("writer", "UPDATE versions SET segments = '{}' WHERE state = 'committed'"),
    ("collector", "UPDATE versions SET state = 'abandoned' WHERE state = 'collected'"),
    ("projector", "UPDATE progress SET position = 9 WHERE consumer_group LIKE 'embed:%'"),
]


@pytest.mark.parametrize(("name", "statement"), UNSEEN)
def test_rows_that_are_another_process_s_are_not_changed(users: Users, name: str, statement: str) -> None:
    with users.connect(name) as connection, connection.transaction(force_rollback=True):
        assert connection.execute(statement.encode()).rowcount == 0


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("writer", "UPDATE versions SET state = 'collected' WHERE state = 'open'"),
        ("writer", "INSERT INTO versions (file, version, state) VALUES (1, 99, 'collected')"),
        ("collector", "UPDATE versions SET state = 'open' WHERE state = 'committed'"),
    ],
)
def test_a_state_that_is_another_process_s_to_give_is_refused(
    users: Users, name: str, statement: str
) -> None:
    with users.owner() as owner:
        owner.execute("INSERT INTO versions (file, version, state) VALUES (1, 98, 'open')")
        try:
            with users.connect(name) as connection:
                assert _is_refused(connection, statement)
        finally:
            owner.execute("DELETE FROM versions WHERE version = 98")


def test_a_consumer_claims_no_range_of_a_projectors_log(users: Users) -> None:
    with users.connect("consumer") as connection, pytest.raises(CheckViolation):
        connection.execute("SELECT * FROM claim('project:1', 256, '1 min', 'me', 0)")


_NAME_ALL = """
WITH made AS (
    INSERT INTO files (collection, key, partition) VALUES (1, %(key)s, 0) RETURNING file
)
INSERT INTO segments (segment, file, digest, min_chunk, max_chunk, chunks, hashes)
SELECT nextval('segment_ids'), m.file, '', min(c.chunk_id), max(c.chunk_id), array_agg(c.chunk_id), ''
FROM made m, chunks c
GROUP BY m.file
"""
_WITH_ALL_SEGMENTS = """
INSERT INTO versions (file, version, state, segments)
SELECT f.file, 1, 'open', (SELECT array_agg(segment) FROM segments)
FROM files f
WHERE f.key = %(key)s
"""
_ABANDON = """
UPDATE versions SET state = 'abandoned' WHERE file = (SELECT file FROM files WHERE key = %(key)s)
"""


async def test_a_chunk_that_another_files_segment_names_is_neither_swept_nor_erased(users: Users) -> None:
    with users.connect("writer") as writer:
        for key in ("swept", "erased"):
            for statement in (_NAME_ALL, _WITH_ALL_SEGMENTS, _ABANDON):
                writer.execute(statement, {"key": key})
    with users.owner() as owner:
        count = "SELECT count(*), (SELECT count(*) FROM segments WHERE file = 1) FROM chunks"
        before = owner.execute(count).fetchone()
        async with await ChunkStore.open(users.as_user("collector"), schema=users.schema) as store:
            await (await store.collection("docs")).erase("erased")
            report = await collect(store)
        assert report.swept == report.skipped == 0
        assert owner.execute(count).fetchone() == before


def test_a_temporary_table_is_not_taken_for_the_stores(users: Users) -> None:
    with users.connect("writer") as connection, connection.transaction(force_rollback=True):
        connection.execute("CREATE TEMPORARY TABLE roles AS SELECT 'public' AS role, 'owner' AS kind")
        connection.execute(
            "CREATE TEMPORARY TABLE files AS SELECT 1::bigint AS file, 0 AS partition, 1 AS collection"
        )
        connection.execute("SET LOCAL search_path = pg_temp")
        with pytest.raises(InsufficientPrivilege):
            connection.execute(
                sql.SQL("SELECT {}.append_checked(0, %s::jsonb)").format(sql.Identifier(users.schema)),
                ['[{"type": "version_activated", "file": 1, "version": 1}]'],
            )
