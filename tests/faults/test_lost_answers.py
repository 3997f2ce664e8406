"""A silent network: nobody waits for ever, neither a client for an answer nor others for its locks."""

from collections.abc import AsyncIterator
from time import monotonic

import anyio
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chunkstore import answers
from chunkstore.database import FOR_AS_LONG_AS_IT_TAKES, Database
from chunkstore.dsn import Dsn
from chunkstore.errors import ServerUnreachable
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.faults.models import MODEL
from tests.faults.proxy import Proxy, To, proxying
from tests.fix_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A proxy before the session's server."""
    address = conninfo_to_dict(server.dsn)
    if server.log is None:
        pytest.skip("the proxy leads to the embedded server's socket alone")
    async with proxying(f"{address['host']}/.s.PGSQL.{address['port']}") as made:
        yield made


@pytest.fixture
async def remote(proxy: Proxy, schema: str) -> AsyncIterator[Database]:
    """A Database by way of the proxy, whose kernel notices within two seconds that a network is gone."""
    soon = make_conninfo(
        proxy.dsn, connect_timeout=2, tcp_user_timeout=1500, keepalives_idle=1, keepalives_interval=1
    )
    async with await Database.open(soon, schema=schema, max_size=1) as opened:
        yield opened


async def ask(database: Database, statement: bytes = b"SELECT 1") -> None:
    async with database.transaction() as conn:
        await conn.execute(statement)


@pytest.mark.parametrize("directions", [[To.SERVER], [To.CLIENT], [To.SERVER, To.CLIENT]])
async def test_who_hears_no_answer_on_a_connection_that_looks_alive_gives_it_up(
    proxy: Proxy, remote: Database, directions: list[To], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_LOOK", 0.3)
    monkeypatch.setattr(answers, "SECOND_LOOK", 0.2)
    await ask(remote)
    proxy.freeze(*directions)
    proxy.forget()
    with anyio.fail_after(5):
        with pytest.raises(ServerUnreachable):
            await ask(remote)
        await ask(remote)


async def test_who_hears_no_answer_and_cannot_ask_for_it_gives_up(
    proxy: Proxy, remote: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_LOOK", 0.2)
    monkeypatch.setattr(answers, "SECOND_LOOK", 0.1)
    monkeypatch.setattr(answers, "_LOOK_SECONDS", 1)
    await ask(remote)
    proxy.freeze(To.CLIENT)
    with anyio.fail_after(15), pytest.raises(ServerUnreachable):
        await ask(remote)


async def test_a_statement_that_takes_long_is_waited_for(
    remote: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_LOOK", 0.1)
    monkeypatch.setattr(answers, "SECOND_LOOK", 0.05)
    await ask(remote, b"SELECT pg_sleep(1)")


async def test_who_listens_for_hints_is_not_taken_for_one_who_waits(
    remote: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_LOOK", 0.1)
    monkeypatch.setattr(answers, "SECOND_LOOK", 0.05)
    async with remote.connection() as conn:
        await conn.execute(b"LISTEN quiet")
        async for _ in conn.notifies(timeout=1):
            pass
        await conn.execute(b"SELECT 1")


@pytest.mark.parametrize("statement", [b"SELECT 1", b"SELECT pg_sleep(30)"])
async def test_a_network_that_is_gone_is_noticed_by_the_kernel(
    proxy: Proxy, remote: Database, statement: bytes
) -> None:
    """Also by who only waits: it is asked for a sign of life."""
    async with remote.transaction() as conn:
        await conn.execute(b"SELECT 1")
    async with anyio.create_task_group() as tasks:

        async def vanish() -> None:
            await anyio.sleep(0.2)
            proxy.vanish()

        if b"sleep" in statement:
            tasks.start_soon(vanish)
        else:
            proxy.vanish()
        with anyio.fail_after(10), pytest.raises(ServerUnreachable):
            await ask(remote, statement)


async def test_the_server_ends_a_transaction_whose_client_is_gone_without_a_word(
    proxy: Proxy, database: Database, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.connections.IDLE_SECONDS", 1)
    lock = b"SELECT FROM partitions WHERE partition = 0 FOR UPDATE"
    async with await Database.open(proxy.dsn, schema=schema) as remote:
        with pytest.raises(ServerUnreachable):
            async with remote.transaction() as conn:
                await conn.execute(lock)
                proxy.freeze(*To)
                with anyio.fail_after(10):
                    await ask(database, lock)
                proxy.heal()
                await conn.execute(b"SELECT 1")


async def test_what_a_role_was_given_is_left_as_it_is(dsn: str, schema: str) -> None:
    given = make_conninfo(dsn, options="-c idle_in_transaction_session_timeout=1234s")
    async with await Database.open(given, schema=schema) as database, database.transaction() as conn:
        shown = await conn.execute(b"SHOW idle_in_transaction_session_timeout")
        assert await shown.fetchone() == ("1234s",)


async def test_a_server_that_takes_no_connection_is_told_before_the_pool_gives_up(
    proxy: Proxy, remote: Database
) -> None:
    await ask(remote)
    proxy.refuse()
    begun = monotonic()
    for _ in range(2):
        with pytest.raises(ServerUnreachable):
            await ask(remote)
    assert monotonic() - begun < 10


async def test_a_pool_whose_connections_are_all_in_use_is_waited_for(dsn: str, schema: str) -> None:
    async with (
        await Database.open(dsn, schema=schema, max_size=1) as database,
        anyio.create_task_group() as tasks,
        database.transaction(),
    ):
        tasks.start_soon(ask, database)
        await anyio.sleep(2.5)  # longer than the pool is waited for without a doubt


async def test_one_lost_connection_speaks_for_all_of_its_age(
    proxy: Proxy, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_LOOK", 1)
    monkeypatch.setattr(answers, "SECOND_LOOK", 0.2)
    async with await Database.open(proxy.dsn, schema=schema, max_size=4) as database:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask, database, b"SELECT pg_sleep(0.3)")
        proxy.freeze(*To)
        proxy.forget()
        with pytest.raises(ServerUnreachable):
            await ask(database)
        with anyio.fail_after(1):
            for _ in range(4):
                await ask(database)


async def test_a_transaction_that_says_so_may_hold_its_lock_while_its_client_is_busy(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.connections.IDLE_SECONDS", 1)
    async with (
        await Database.open(dsn, schema=schema) as database,
        database.transaction(FOR_AS_LONG_AS_IT_TAKES) as conn,
    ):
        await anyio.sleep(1.5)
        await conn.execute(b"SELECT 1")


def test_a_dsn_asks_the_kernel_for_signs_of_life_unless_it_says_otherwise() -> None:
    asked = conninfo_to_dict(Dsn("host=example.org").conninfo())
    idle, interval, count = (int(asked[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert idle + interval * count <= 30
    assert int(asked["tcp_user_timeout"]) <= 30_000
    given = conninfo_to_dict(Dsn("host=example.org tcp_user_timeout=7 keepalives_idle=9").conninfo())
    assert (given["tcp_user_timeout"], given["keepalives_idle"]) == ("7", "9")


async def test_what_starts_while_the_server_is_away_waits_for_it(proxy: Proxy, schema: str) -> None:
    """Consumers and projectors that a service manager starts in the middle of a restart of the server."""
    dsn = make_conninfo(proxy.dsn, connect_timeout=2)
    async with await ChunkStore.open(dsn, schema=schema) as store:
        docs = await store.collection("docs", model=MODEL)
        version = await docs.append("a", [Chunk("text")])
        proxy.refuse()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EmbeddingConsumer(store, MODEL).run)
            tasks.start_soon(Projector(store, MODEL.name).run)
            with pytest.raises(ServerUnreachable):
                await docs.history("a")
            proxy.heal()
            await docs.wait_until_active(version, timeout=30)
            tasks.cancel_scope.cancel()
