"""Each kind of process has a role of its own, and goes through its whole work with that role alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg import sql

from chunkstore import catalog
from chunkstore.cli.run import run
from chunkstore.database import Database
from chunkstore.errors import Conflict, InsufficientPrivilege, InvalidInput
from chunkstore.model import Chunk
from chunkstore.models.hashing import HashingModel
from chunkstore.roles import KINDS, Role, make_roles, set_tenant
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.collector import collect
from projections.projector import Projector
from tests.store.fix_models import FailingModel
from tests.store.fix_roles import Stores, Users, users_of_a_new_store

MODEL = HashingModel(8)


@pytest.fixture(scope="module")
def users(dsn: str) -> Iterator[Users]:
    """A store with its roles and users."""
    with users_of_a_new_store(dsn) as made:
        made.add("eraser", "reader", "collector")
        yield made


@pytest.fixture
def command(users: Users, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command line as one of the users; returns its exit code."""

    def run_as(user: str, *tokens: str) -> int:
        monkeypatch.setenv("CHUNKSTORE_DSN", users.as_user(user))
        monkeypatch.setenv("CHUNKSTORE_SCHEMA", users.schema)
        return run(tokens)

    return run_as


async def test_each_process_goes_through_its_work_with_its_own_role_alone(stores: Stores) -> None:
    await (await stores.of("owner")).collection("docs", model=MODEL, keep_last=1)
    written = await (await stores.of("writer")).collection("docs")
    await written.append("a", [Chunk(f"text {i}") for i in range(300)])
    await written.append("b", [Chunk("other")])
    version = await written.append("a", [Chunk(f"text {i}") for i in range(5)])
    await EmbeddingConsumer(await stores.of("consumer"), MODEL).run(drain=True)
    projected = await Projector(await stores.of("projector"), MODEL.name).run(drain=True)
    assert projected.activated
    read = await (await stores.of("reader")).collection("docs")
    await read.wait_until_active(version)
    hits = await read.search(MODEL.embed(["text 3"])[0], k=100)
    assert {hit.key for hit in hits} == {"a", "b"}
    collected = await collect(await stores.of("collector"))
    assert (collected.collected, collected.swept) == (1, 295)


async def test_a_writer_streams_rolls_back_pins_deletes_and_handles_dead_letters(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 500)
    await (await stores.of("owner")).collection("more", model=MODEL)
    written = await (await stores.of("writer")).collection("more")
    chunks = [Chunk(f"chunk {i}") for i in range(1100)]
    await written.append("long", chunks, idempotency_key="once")
    assert (await written.append("long", chunks)).number == 1
    await written.append("long", [Chunk("short")])
    await written.pin("long", 1)
    await written.rollback("long", 1)
    await written.unpin("long", 1)
    await embed(stores, MODEL)
    await written.append("bad", [Chunk("bad text")])
    await written.delete("bad")
    await written.append("bad", [Chunk("bad text")])
    await embed(stores, FailingModel())
    (letter,) = await written.dead_letters()
    await written.discard(letter.chunk_id)
    await written.retry(letter.chunk_id)
    assert await embed(stores, MODEL) == 1
    await Projector(await stores.of("projector"), MODEL.name).run(drain=True)
    read = await (await stores.of("reader")).collection("more")
    assert [version.active for version in await read.history("long")] == [True, False, False]
    await (await (await stores.of("collector")).collection("more")).erase("bad")
    keys = read.keys()
    assert [key async for key in keys] == ["long"]


async def test_a_projector_builds_indexes_and_a_collector_rebuilds_them(
    stores: Stores, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 100)
    await (await stores.of("owner")).collection("indexed", model=MODEL)
    written = await (await stores.of("writer")).collection("indexed")
    await written.append("a", [Chunk(f"text {i}") for i in range(200)])
    await embed(stores, MODEL)
    projected = await Projector(await stores.of("projector"), MODEL.name).run(drain=True)
    assert projected.indexes_built
    read = await (await stores.of("reader")).collection("indexed")
    assert not (await read.search([1.0] * 8)).exact

    monkeypatch.setattr(indexes, "REBUILD_FROM_DEAD", 0.0)
    with users.owner() as owner:
        maintains = owner.info.server_version >= 170000  # before, nobody but the owner may rebuild
    assert ((await collect(await stores.of("collector"))).indexes_rebuilt > 0) is maintains
    assert (await collect(await stores.of("owner"))).indexes_rebuilt
    assert not (await read.search([1.0] * 8)).exact


async def test_a_projector_drops_what_a_killed_rebuild_left_beside_an_index(
    stores: Stores, users: Users
) -> None:
    owner_store = await stores.of("owner")
    collection = await owner_store.collection("left", model=MODEL)
    async with owner_store.database.transaction() as conn:
        (model,) = await catalog.models_of(conn, collection.row.collection)
    table = model.search_table
    with users.owner() as owner:
        create = f"CREATE INDEX {{}} ON {table} USING hnsw (embedding halfvec_cosine_ops)"
        for name in (f"{table}_hnsw", f"{table}_hnsw_ccnew"):
            owner.execute(create.format(name).encode())
        await indexes.build_due((await stores.of("projector")).database, model.model)
        names = owner.execute("SELECT indexname FROM pg_indexes WHERE tablename = %s", [table]).fetchall()
    assert sorted(name for (name,) in names) == [f"{table}_hnsw", f"{table}_pkey"]


async def embed(stores: Stores, model: HashingModel) -> int:
    """Embeds what is left, as the consumer; returns how many texts the model was given."""
    consumer = EmbeddingConsumer(await stores.of("consumer"), model)
    await consumer.run(drain=True)
    return consumer.report.embedded


def test_every_command_ends_well_with_its_own_role_alone(
    users: Users,
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "one.md").write_text("# One\n\nLeases expire.\n")
    in_cli = ("--collection", "cli")
    for user, *tokens in (
        ("owner", "collection", "create", "cli", "--model", "hashing:64", "--keep-last", "1"),
        ("writer", "ingest", "docs", *in_cli),
        ("consumer", "consume", "--drain"),
        ("projector", "project", "--drain"),
        ("reader", "search", "leases", *in_cli),
        ("reader", "status"),
        ("reader", "history", "docs/one.md", *in_cli),
        ("reader", "chunks", "docs/one.md", *in_cli),
        ("reader", "collection", "list"),
        ("reader", "dead-letters", "list"),
        ("collector", "gc", "--dry-run"),
        ("collector", "gc"),
        ("writer", "delete", "docs/one.md", *in_cli),
        ("projector", "project", "--drain"),
        ("owner", "rebuild", "cli"),
        ("owner", "verify"),
        ("owner", "roles", "--prefix", users.prefix),
        ("eraser", "erase", "docs/one.md", "--yes", *in_cli),
    ):
        assert command(user, *tokens) == 0, (user, tokens, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("user", "tokens"),
    [
        ("reader", ("delete", "one.md", "--collection", "cli")),
        ("consumer", ("project", "--drain")),
        ("projector", ("consume", "--drain")),
        ("collector", ("roles",)),
        ("writer", ("collection", "create", "mine", "--model", "hashing:64")),
        ("reader", ("migrate", "--partitions", "4")),
    ],
)
def test_a_command_that_its_role_is_not_for_ends_in_one_line(
    command: Callable[..., int], user: str, tokens: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("owner", "collection", "create", "cli", "--model", "hashing:64") == 0
    capsys.readouterr()
    assert command(user, *tokens) == 3
    assert "denied" in capsys.readouterr().err


# --- making them --------------------------------------------------------------------------------


async def test_four_at_once_make_the_roles_of_a_store_once(users: Users) -> None:
    made: list[list[Role]] = []

    async def make() -> None:
        async with await Database.open(users.as_user("owner"), schema=users.schema, max_size=1) as database:
            made.append(await make_roles(database, prefix=f"{users.prefix}_x"))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(make)
    created = [role.role for roles in made for role in roles if role.created]
    assert sorted(created) == sorted(f"{users.prefix}_x_{kind}" for kind in KINDS)
    await anyio.to_thread.run_sync(users.make)


async def test_a_role_that_is_none_of_the_stores_any_more_has_lost_its_rights(users: Users) -> None:
    async with await Database.open(users.as_user("owner"), schema=users.schema) as database:
        await make_roles(database, prefix=f"{users.prefix}_y")
    with users.connect("reader") as reader, pytest.raises(psycopg.errors.UndefinedTable):
        reader.execute("SELECT * FROM chunks")
    await anyio.to_thread.run_sync(users.make)


async def test_a_right_that_was_given_by_hand_is_taken_again(users: Users) -> None:
    with users.owner() as owner, users.connect("reader") as reader:
        owner.execute(f"GRANT ALL ON events, chunks TO {users.role('reader')}".encode())
        owner.execute("GRANT EXECUTE ON FUNCTION erase_file TO PUBLIC")
        await anyio.to_thread.run_sync(users.make)
        for statement in ("DELETE FROM chunks", "SELECT hash FROM chunks", "SELECT erase_file(1, 'a')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement.encode())


async def test_an_owner_without_createrole_is_told_what_an_administrator_must_run(
    users: Users, dsn: str
) -> None:
    owner = sql.Identifier(users.user("owner"))
    prefix = f"{users.prefix}_z"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} NOCREATEROLE").format(owner))
        try:
            async with await Database.open(users.as_user("owner"), schema=users.schema) as database:
                with pytest.raises(InsufficientPrivilege, match="administrator run") as caught:
                    await make_roles(database, prefix=prefix)
                said = str(caught.value).partition("run: ")[2].partition("; and then")[0]
                assert said.count("CREATE ROLE") == len(KINDS)
                admin.execute(said.encode())
                assert not any(role.created for role in await make_roles(database, prefix=prefix))
        finally:
            admin.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(owner))
    await anyio.to_thread.run_sync(users.make)


async def test_who_does_not_own_the_store_cannot_make_its_roles(stores: Stores, users: Users) -> None:
    with pytest.raises(InsufficientPrivilege):
        await make_roles((await stores.of("collector")).database, prefix=users.prefix)


@pytest.mark.parametrize("prefix", ["", "pg_mine", "a\0b", "x" * 54])
async def test_a_prefix_that_no_role_can_have_is_refused(stores: Stores, prefix: str) -> None:
    with pytest.raises(InvalidInput, match="prefix"):
        await make_roles((await stores.of("owner")).database, prefix=prefix)


async def test_a_collection_goes_to_a_role_that_is_there_and_to_no_other(stores: Stores) -> None:
    owner = await stores.of("owner")
    await owner.collection("given", model=MODEL)
    with pytest.raises(InvalidInput, match="CREATE ROLE"):
        await set_tenant(owner.database, "given", "no such role")


async def test_a_store_without_roles_has_no_tenants(store: ChunkStore) -> None:
    await store.collection("docs", model=MODEL)
    with pytest.raises(Conflict, match="chunkstore roles"):
        await set_tenant(store.database, "docs", "postgres")


async def test_an_error_that_ends_a_process_is_the_one_that_its_caller_names(
    stores: Stores, users: Users
) -> None:
    given = await (await stores.of("owner")).collection("given", model=MODEL)
    await given.append("doc", [Chunk("text")])
    reader = await stores.of("reader")
    with pytest.raises(InsufficientPrivilege):
        await EmbeddingConsumer(reader, MODEL).run(drain=True)
    with pytest.raises(InsufficientPrivilege):
        await Projector(reader, MODEL.name).run(drain=True)


@pytest.mark.parametrize(("others", "grant"), [("PUBLIC", "PUBLIC"), (None, "pg_database_owner")])
async def test_no_rights_are_given_where_others_could_stand_in_for_what_the_owners_functions_call(
    users: Users, dsn: str, others: str | None, grant: str
) -> None:
    with psycopg.connect(dsn) as admin:  # nobody sees what is not committed
        admin.execute(f'SET search_path = "{users.schema}", public'.encode())
        admin.execute(f"GRANT CREATE ON SCHEMA public TO {grant}".encode())
        if others is None:
            admin.execute("SELECT apply_rights()")
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"{others} may create functions"):
                admin.execute("SELECT apply_rights()")
        admin.rollback()
