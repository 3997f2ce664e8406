"""Tenants in one store: neither sees, changes or confirms anything of the other's, whatever SQL it sends."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b

import anyio
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, UniqueViolation

from chunkstore.chunks import Hashing, prepare
from chunkstore.cli.run import run
from chunkstore.collection import Collection
from chunkstore.errors import UnknownCollection
from chunkstore.model import Chunk
from chunkstore.models.hashing import HashingModel
from chunkstore.roles import set_tenant
from chunkstore.status import status
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector
from projections.rebuild import rebuild
from tests.store.fix_models import CountingModel
from tests.store.fix_roles import Users, users_of_a_new_store

MODEL = HashingModel(8)
SECRET = "the merger is signed on Friday"
TENANTS = ("honest", "hostile")


@pytest.fixture(scope="module")
def users(dsn: str) -> Iterator[Users]:
    """A store with a collection for each of two tenants; the honest one's holds a secret."""
    with users_of_a_new_store(dsn) as made:
        made.add("honest", "reader", "writer")
        made.add("hostile", "reader", "writer")
        anyio.run(_fill, made)
        yield made


async def _fill(users: Users) -> None:
    async with await ChunkStore.open(users.as_user("owner"), schema=users.schema) as owner:
        for name in TENANTS:
            await owner.collection(name, model=MODEL)
        await owner.collection("nobody", model="hashing:16")
        await set_tenant(owner.database, "honest", users.user("honest"))
        await set_tenant(owner.database, "hostile", users.user("hostile"))
    async with stores_of(users) as (honest, hostile):
        await honest.append("secret.md", [Chunk(SECRET), Chunk("second")], metadata={"of": "honest"})
        await honest.append("secret.md", [Chunk(SECRET), Chunk("third")], idempotency_key="k")
        await hostile.append("own.md", [Chunk("mine"), Chunk("mine too")])
    await work(users)


@asynccontextmanager
async def stores_of(users: Users) -> AsyncIterator[tuple[Collection, Collection]]:
    """The collection of each tenant, opened by that tenant."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(await ChunkStore.open(users.as_user(name), schema=users.schema))
            for name in TENANTS
        ]
        honest, hostile = [await store.collection(name) for store, name in zip(opened, TENANTS, strict=True)]
        yield honest, hostile


async def work(users: Users) -> None:
    """Embeds and activates what is left, each process with its own role."""
    async with await ChunkStore.open(users.as_user("consumer"), schema=users.schema) as store:
        await EmbeddingConsumer(store, MODEL).run(drain=True)
    async with await ChunkStore.open(users.as_user("projector"), schema=users.schema) as store:
        await Projector(store, MODEL.name).run(drain=True)


@pytest.fixture
def hostile(users: Users) -> Iterator[psycopg.Connection]:
    """The hostile tenant's connection, whose changes are rolled back."""
    with users.connect("hostile") as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def owner(users: Users) -> Iterator[psycopg.Connection]:
    """A connection of the store's owner."""
    with users.owner() as connection:
        yield connection


# --- each has its own ---------------------------------------------------------------------------


async def test_a_tenant_writes_reads_and_searches_its_own_collection(users: Users) -> None:
    async with stores_of(users) as (honest, hostile):
        for collection, key in ((honest, "secret.md"), (hostile, "own.md")):
            hits = await collection.search(MODEL.embed(["text"])[0], k=10)
            assert {hit.key for hit in hits} == {key}
            assert [name.name for name in await collection.store.collections()] == [collection.name]


async def test_a_tenant_appends_many_chunks_where_no_copy_is_possible(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 500)
    async with stores_of(users) as (_, hostile):
        version = await hostile.append("many.md", [Chunk(f"chunk {i}") for i in range(1200)])
        assert (await hostile.append("many.md", (Chunk(f"chunk {i}") for i in range(1201)))).reused == 1200
        await work(users)
        assert len([chunk async for chunk in hostile.chunks("many.md", version.number)]) == 1200


async def test_a_collector_works_for_every_tenant(users: Users) -> None:
    async with stores_of(users) as (_, hostile):
        for i in range(5):
            await hostile.append("gone.md", [Chunk(f"of version {i}")])
        await work(users)
    async with await ChunkStore.open(users.as_user("collector"), schema=users.schema) as store:
        report = await collect(store)
        assert (report.collected, report.swept) == (2, 2)
        await (await store.collection("hostile")).erase("gone.md")


async def test_a_tenants_status_is_of_its_own_collection(users: Users) -> None:
    async with stores_of(users) as (honest, _):
        seen = await status(honest.store)
    assert [one.name for one in seen.collections] == ["honest"]


async def test_another_tenants_collection_is_not_there(users: Users) -> None:
    async with stores_of(users) as (_, hostile):
        for name in ("honest", "nobody"):
            with pytest.raises(UnknownCollection):
                await hostile.store.collection(name)


# --- what a hostile tenant reads ----------------------------------------------------------------

READ = [
    "SELECT * FROM models WHERE name <> 'hashing-8'",
    "SELECT * FROM collections WHERE name <> 'hostile'",
    "SELECT * FROM collection_models WHERE collection <> {own}",
    "SELECT * FROM files WHERE collection <> {own}",
    "SELECT * FROM versions WHERE metadata ->> 'of' = 'honest'",
    "SELECT file FROM versions WHERE file = {file}",
    "SELECT segment FROM segments WHERE file = {file}",
    "SELECT chunk_id FROM chunks WHERE chunk_id = {chunk}",
    "SELECT content FROM chunks WHERE content LIKE '%merger%'",
    "SELECT chunk_id FROM embeddings WHERE chunk_id = {chunk}",
    "SELECT * FROM idempotency_keys WHERE file = {file}",
    "SELECT * FROM sources WHERE file = {file}",
    "SELECT salt FROM collections WHERE collection <> {own}",
    "SELECT * FROM dead_letters WHERE file = {file}",
    "SELECT * FROM active_versions WHERE file = {file}",
    "SELECT * FROM events WHERE file = {file} OR file IS NULL",
    "SELECT * FROM active_chunks WHERE collection <> 'hostile'",
    "SELECT * FROM file_states WHERE collection <> 'hostile'",
    "SELECT * FROM waiting WHERE collection <> 'hostile'",
    "SELECT * FROM failed WHERE collection <> 'hostile'",
    "SELECT * FROM cite(1, ARRAY[{chunk}]::bigint[], ARRAY[{file}]::bigint[])",
    "SELECT unnest(needed_segments({file}))",
    "SELECT unnest(left_behind({file}, 1, 2))",
    "SELECT * FROM search_tables({other})",
    "SELECT 1 FROM pg_stats WHERE schemaname = current_schema() AND tablename IN ('files', 'versions')",
    "WITH x AS (UPDATE files SET target = 1 WHERE collection <> {own} RETURNING 1) SELECT * FROM x",
    "WITH x AS (DELETE FROM dead_letters WHERE file = {file} RETURNING 1) SELECT * FROM x",
    "SELECT file FROM files WHERE file = {file} FOR UPDATE",
]


@pytest.mark.parametrize(
    "before", ["", "SET LOCAL chunkstore.tenant = 'honest'; SET LOCAL app.role = 'honest';"]
)
@pytest.mark.parametrize("query", READ)
def test_no_query_finds_what_is_another_tenants(
    hostile: psycopg.Connection, owner: psycopg.Connection, query: str, before: str
) -> None:
    if before:
        hostile.execute(before.encode())
    statement = filled(query, owner)
    assert hostile.execute(statement).fetchall() == [], query


REFUSED = [
    "SELECT * FROM {search}",
    "SELECT * FROM {active}",
    "SELECT text_hash FROM chunks",
    "SELECT hash FROM chunks",
    "SELECT digest FROM segments",
    "SELECT embedding FROM embeddings",
    "SELECT last_value FROM chunk_id_blocks",
    "SET ROLE {honest}",
    "SET SESSION AUTHORIZATION {honest}",
    "SELECT set_config('role', '{honest}', true)",
    "SELECT chunks_by_hash({file}, '\\x00', '\\x00')",
    "SELECT segments_by_digest({file}, ARRAY['\\x00'::bytea])",
    "SELECT set_pinned({file}, 1, true)",
    "SELECT erase_file({other}, 'secret.md')",
    "SELECT lock_file({other}, 'secret.md')",
    "INSERT INTO files (collection, key, partition) VALUES ({other}, 'new.md', 0)",
    "INSERT INTO versions (file, version, state) VALUES ({file}, 99, 'committed')",
    "INSERT INTO chunks VALUES (1, {file}, '', '', 'planted', '{{}}')",
    "INSERT INTO idempotency_keys VALUES ({file}, 'k', 1, '')",
    "INSERT INTO sources VALUES ({file}, 1, 1, 1, '', '', '')",
    "UPDATE files SET collection = {other}",
    "UPDATE collections SET tenant = '{hostile}'",
    "SELECT set_tenant({other}, '{hostile}')",
    "SELECT append_checked({partition}, '[{{\"type\": \"pinned\", \"file\": {file}, \"version\": 1}}]')",
    ("SELECT append_checked({own_partition}, jsonb_build_array(jsonb_build_object("
    "'type', 'chunks_appended', 'n', 1, 'file', {own_file}, 'version', 1, 'first_chunk', {chunk})))"),
    ("SELECT append_checked({own_partition}, jsonb_build_array(jsonb_build_object("
    "'type', 'chunks_appended', 'n', 1, 'file', {own_file}, 'version', 1, 'chunks', ARRAY[{chunk}])))"),
    ("INSERT INTO segments (segment, file, digest, min_chunk, max_chunk, chunks, hashes)"
    " VALUES (nextval('segment_ids'), {own_file}, '', {chunk}, {chunk}, ARRAY[{chunk}], '')"),
    ("INSERT INTO segments (segment, file, digest, min_chunk, max_chunk, chunks, hashes)"
    " VALUES (nextval('segment_ids'), {file}, '', {chunk}, {chunk}, ARRAY[{chunk}], '')"),
    ("INSERT INTO versions (file, version, state, segments)"
    " VALUES ({own_file}, 99, 'committed', ARRAY[{segment}])"),
    "SELECT * FROM rights",
    "SELECT * FROM roles",
]  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED)
def test_no_statement_reaches_what_is_another_tenants(
    hostile: psycopg.Connection, owner: psycopg.Connection, users: Users, statement: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        hostile.execute(filled(statement, owner, honest=users.user("honest"), hostile=users.user("hostile")))
    assert isinstance(caught.value, InsufficientPrivilege) or "row-level security" in str(caught.value)
    assert "secret" not in str(caught.value).replace(statement, "")


def test_what_is_refused_for_anothers_chunk_is_done_for_ones_own(
    hostile: psycopg.Connection, owner: psycopg.Connection
) -> None:
    mine = owner.execute("SELECT min(chunk_id), min(file) FROM chunks WHERE content = 'mine'").fetchone()
    assert mine is not None
    statements = [one for one in REFUSED if "{own_file}" in one and "{chunk}" in one]
    assert len(statements) == 3
    for statement in statements:
        assert hostile.execute(filled(statement.replace("{chunk}", str(mine[0])), owner)).rowcount == 1


def test_switching_row_security_off_ends_in_an_error(hostile: psycopg.Connection) -> None:
    hostile.execute("SET LOCAL row_security = off")
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        hostile.execute("SELECT * FROM files")


def test_functions_and_tables_of_the_tenants_own_fool_no_policy(
    hostile: psycopg.Connection, owner: psycopg.Connection, users: Users, dsn: str
) -> None:
    mine = f"{users.schema}_mine"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {mine} AUTHORIZATION {users.user('hostile')}".encode())
    for function in (
        f"caller() RETURNS name LANGUAGE sql AS $$SELECT '{users.user('honest')}'::name$$",
        "is_own(text) RETURNS boolean LANGUAGE sql AS $$SELECT true$$",
        "is_own_file(bigint) RETURNS boolean LANGUAGE sql AS $$SELECT true$$",
        "is_trusted() RETURNS boolean LANGUAGE sql AS $$SELECT true$$",
        "is_isolated() RETURNS boolean LANGUAGE sql AS $$SELECT false$$",
        "pg_has_role(name, oid, text) RETURNS boolean LANGUAGE sql AS $$SELECT true$$",
        "to_regrole(text) RETURNS regrole LANGUAGE sql AS $$SELECT 'pg_monitor'::regrole$$",
    ):
        hostile.execute(f"CREATE FUNCTION {mine}.{function}".encode())
    hostile.execute("CREATE TEMPORARY TABLE collections AS SELECT 1 AS collection, current_user AS tenant")
    hostile.execute(f"SET LOCAL search_path = {mine}, pg_catalog, {users.schema}, public".encode())
    for table in ("collections", "files", "versions", "active_chunks"):
        query = f"SELECT count(*) FROM {users.schema}.{table} t WHERE t::text ~ 'honest|secret|merger'"
        assert hostile.execute(query.encode()).fetchone() == (0,), table
    with pytest.raises(InsufficientPrivilege):
        hostile.execute(filled(f"SELECT {users.schema}.set_pinned({{file}}, 1, true)", owner))


def test_a_function_of_the_tenants_own_is_not_shown_hidden_rows(hostile: psycopg.Connection) -> None:
    shown: list[str] = []
    hostile.add_notice_handler(lambda notice: shown.append(str(notice.message_primary)))
    hostile.execute(
        "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001"
        " AS $$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$"
    )
    hostile.execute("SELECT 1 FROM chunks WHERE pg_temp.leak(content)")
    assert "mine" in shown
    assert SECRET not in shown


def test_another_sessions_query_is_not_shown(hostile: psycopg.Connection, users: Users) -> None:
    with users.connect("honest") as honest:
        honest.execute("SELECT 'the merger'")
        pid = honest.info.backend_pid
        found = hostile.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    assert found == ("<insufficient privilege>",)


# --- what a hostile tenant could guess ----------------------------------------------------------

GUESSES = [
    "SELECT 1 FROM chunks WHERE content = '{guess}'",
    "SELECT 1 FROM chunks WHERE length(content) = {length}",
    "SELECT 1 FROM chunks WHERE starts_with(content, '{guess}')",
    """SELECT 1 FROM chunks WHERE metadata = '{{"headings": ["{guess}"]}}'""",
    "SELECT 1 FROM versions WHERE chunks = {length}",
    "SELECT 1 FROM versions WHERE digest = '{guess}'",
    "SELECT 1 FROM active_versions WHERE cursor = {length}",
]


@pytest.mark.parametrize("guess", GUESSES)
def test_a_policy_is_asked_before_any_condition_of_the_tenants(
    hostile: psycopg.Connection, guess: str
) -> None:
    query = "EXPLAIN (COSTS OFF) " + guess.format(guess=SECRET, length=len(SECRET))
    plan = "\n".join(line for (line,) in hostile.execute(query.encode()).fetchall())
    assert re.search(r"Filter: \(is_own_file\(file\) AND ", plan), plan


@pytest.mark.parametrize("guess", GUESSES[:3])
def test_a_guess_that_is_right_looks_like_one_that_is_wrong(hostile: psycopg.Connection, guess: str) -> None:
    def analyzed(text: str) -> str:
        query = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) "
        query += guess.format(guess=text, length=len(text))
        plan = "\n".join(line for (line,) in hostile.execute(query.encode()).fetchall())
        return plan.replace(text, "…").replace(str(len(text)), "…")

    assert analyzed(SECRET) == analyzed("the merger is off for good, and nobody knows")


def pages(owner: psycopg.Connection, text_hash: bytes) -> str:
    """How many pages a lookup in the hostile tenant's file reads, which a clock could tell."""
    query = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) "
    query += f"SELECT * FROM chunks_by_hash({{own_file}}, '\\x{text_hash.hex()}', '\\x{text_hash.hex()}')"
    plans = [owner.execute(filled(query, owner)).fetchall() for _ in range(3)]
    plan = "\n".join(line for (line,) in plans[-1])
    assert "Buffers: shared hit=" in plan
    return plan


def test_a_text_that_another_tenant_has_is_looked_up_as_one_that_nobody_has(
    hostile: psycopg.Connection, owner: psycopg.Connection
) -> None:
    ((salt,),) = hostile.execute("SELECT salt FROM collections").fetchall()

    def hashed(text: str) -> bytes:
        return prepare(Chunk(text), Hashing(headings=True, salt=salt), position=0).text_hash

    assert pages(owner, hashed(SECRET)) == pages(owner, hashed("a text that nobody has"))


def test_without_a_salt_that_others_do_not_know_the_pages_would_tell(owner: psycopg.Connection) -> None:
    query = filled("SELECT text_hash FROM chunks WHERE chunk_id = {chunk}", owner)
    ((held,),) = owner.execute(query).fetchall()
    assert pages(owner, held) != pages(owner, blake2b(held, digest_size=16).digest())


async def test_no_chunk_and_no_embedding_is_shared_across_collections(
    users: Users, owner: psycopg.Connection
) -> None:
    async with stores_of(users) as (honest, hostile):
        model = CountingModel()
        before = owner.execute("SELECT count(*) FROM chunks WHERE content = %s", [SECRET]).fetchone()
        version = await hostile.append("guess.md", [Chunk(SECRET)])
        assert (version.reused, version.added) == (0, 1)
        async with await ChunkStore.open(users.as_user("consumer"), schema=users.schema) as store:
            await EmbeddingConsumer(store, model).run(drain=True)
        assert model.texts[SECRET] == 1
        assert before == (1,)
        chunks = owner.execute(
            "SELECT c.chunk_id, f.collection FROM chunks c JOIN files f USING (file)"
            " JOIN embeddings e USING (chunk_id) WHERE content = %s",
            [SECRET],
        ).fetchall()
        assert len({chunk for chunk, _ in chunks}) == len({collection for _, collection in chunks}) == 2
        await work(users)
        assert [hit.key for hit in await honest.search(MODEL.embed([SECRET])[0], k=10)].count("guess.md") == 0


def test_a_number_that_another_tenants_chunk_has_is_refused_without_a_detail(
    hostile: psycopg.Connection, owner: psycopg.Connection
) -> None:
    with pytest.raises(UniqueViolation) as caught:
        hostile.execute(filled("INSERT INTO chunks VALUES ({chunk}, {own_file}, '', '', 'x', '{{}}')", owner))
    assert caught.value.diag.message_detail is None


# --- switching ----------------------------------------------------------------------------------


async def test_a_rebuild_gives_the_new_tables_to_the_tenant_alone(users: Users) -> None:
    async with await ChunkStore.open(users.as_user("owner"), schema=users.schema) as store:
        await rebuild(store, "honest")
    async with stores_of(users) as (honest, _):
        assert await honest.search(MODEL.embed(["text"])[0], k=10)
    for name in ("hostile", "reader"):
        with users.connect(name) as connection, users.owner() as owner, pytest.raises(InsufficientPrivilege):
            connection.execute(filled("SELECT * FROM {search}", owner))


async def test_a_reader_who_is_no_tenant_sees_no_collection(users: Users) -> None:
    async with await ChunkStore.open(users.as_user("reader"), schema=users.schema) as store:
        assert await store.collections() == []


def filled(statement: str, owner: psycopg.Connection, **names: str) -> bytes:
    """The statement with the numbers of both tenants' things in it."""
    row = owner.execute(
        "SELECT h.collection, o.collection, h.file, h.partition, o.file, o.partition,"
        " (SELECT min(chunk_id) FROM chunks WHERE file = h.file),"
        " (SELECT min(segment) FROM segments WHERE file = h.file), m.search_table, m.active_table"
        " FROM files h JOIN collection_models m USING (collection), files o"
        " WHERE h.key = 'secret.md' AND o.key = 'own.md'"
    ).fetchone()
    assert row is not None
    places = (
        "other",
        "own",
        "file",
        "partition",
        "own_file",
        "own_partition",
        "chunk",
        "segment",
        "search",
        "active",
    )
    return statement.format(**dict(zip(places, row, strict=True)), **names).encode()


def test_the_command_gives_a_collection_to_a_tenant_and_to_nobody(
    users: Users, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", users.as_user("owner"))
    monkeypatch.setenv("CHUNKSTORE_SCHEMA", users.schema)
    assert run(["tenant", "nobody", users.user("honest"), "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert given == {"collection": "nobody", "tenant": users.user("honest")}
    assert run(["tenant", "nobody"]) == 0
    assert "'nobody' belongs to nobody but the owner" in capsys.readouterr().err
