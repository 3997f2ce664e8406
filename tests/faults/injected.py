"""Faults, each there while its block runs and over at its end: what tests aim at a store under siege.

Those of the network stand in `tests.faults.proxy`.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import psycopg
from psycopg import AsyncConnection, sql

from tests.faults.fix_processes import Fleet
from tests.faults.proxy import Proxy, To

TERMINATE = """
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE usename = %(role)s
  AND pid <> pg_backend_pid()
"""

TERMINATE_LISTENERS = """
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE query LIKE 'LISTEN chunkstore%'
"""

RAISING = """
CREATE FUNCTION raise_injected() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_user = TG_ARGV[0] AND random() < 0.3 THEN
        RAISE EXCEPTION 'injected by a test' USING ERRCODE = TG_ARGV[1];
    END IF;
    RETURN NULL;
END
$$
"""


# --- the network ----------------------------------------------------------------------------------


@asynccontextmanager
async def cut(proxy: Proxy, *, every: float = 0.2) -> AsyncIterator[None]:
    """Every connection is ended, again and again."""
    async with anyio.create_task_group() as tasks:

        async def cut() -> None:
            while True:
                proxy.cut()
                await anyio.sleep(every)

        tasks.start_soon(cut)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def refused(proxy: Proxy) -> AsyncIterator[None]:
    """Every connection is ended, and nobody gets a new one."""
    proxy.refuse()
    yield
    proxy.heal()


@asynccontextmanager
async def frozen(proxy: Proxy, *directions: To) -> AsyncIterator[None]:
    """No byte passes in the directions; at the end what was held up arrives."""
    proxy.freeze(*directions)
    yield
    proxy.heal()


@asynccontextmanager
async def frozen_for_ever(proxy: Proxy, *directions: To) -> AsyncIterator[None]:
    """No byte passes on the connections that there are, ever; at the end new ones work."""
    proxy.freeze(*directions)
    yield
    proxy.forget()
    proxy.heal()


@asynccontextmanager
async def vanished(proxy: Proxy) -> AsyncIterator[None]:
    """Every packet of the clients is lost."""
    proxy.vanish()
    yield
    proxy.heal()


@asynccontextmanager
async def answers_lost(proxy: Proxy, *, every: int) -> AsyncIterator[None]:
    """Of all commits every so many is done and its answer lost, the connection with it."""
    before = proxy.answers_lost
    proxy.lose_answers(b"COMMIT", every=every)
    yield
    proxy.heal()
    assert proxy.answers_lost > before, "no answer was lost: nothing was put to the test"


# --- the server -----------------------------------------------------------------------------------


@asynccontextmanager
async def connections_exhausted(dsn: str, role: str) -> AsyncIterator[None]:
    """Somebody else takes every connection there is, and those of the role too."""
    taken: list[AsyncConnection] = []
    try:
        async with await connected(dsn) as admin:
            await _take_all(dsn, taken)
            await admin.execute(TERMINATE, {"role": role})
            await _take_all(dsn, taken)
            yield
    finally:
        for connection in taken:
            await connection.close()


@asynccontextmanager
async def set_for(dsn: str, role: str, parameter: str, value: str) -> AsyncIterator[None]:
    """Every session of the role has the setting."""
    named = sql.SQL("ALTER ROLE {} {} {}").format
    async with await connected(dsn) as admin:
        change = sql.SQL("{} = {}").format(sql.Identifier(parameter), sql.Literal(value))
        await admin.execute(named(sql.Identifier(role), sql.SQL("SET"), change))
        await admin.execute(TERMINATE, {"role": role})
        yield
        await admin.execute(named(sql.Identifier(role), sql.SQL("RESET"), sql.Identifier(parameter)))
        await admin.execute(TERMINATE, {"role": role})


@asynccontextmanager
async def locks_time_out(dsn: str, schema: str, role: str) -> AsyncIterator[None]:
    """The role waits for no lock for longer than an instant, and somebody holds half of the partitions."""
    async with set_for(dsn, role, "lock_timeout", "10ms"), await connected(dsn) as holder:
        await holder.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM partitions WHERE partition % 2 = 0 ORDER BY partition FOR UPDATE")
        yield
        await holder.execute("ROLLBACK")


@asynccontextmanager
async def stopped_at_once(fleet: Fleet) -> AsyncIterator[None]:
    """The server is stopped in immediate mode, and starts again at the end, where somebody asks for it."""
    fleet.stop_server(signal.SIGQUIT)
    yield


@asynccontextmanager
async def server_killed(fleet: Fleet) -> AsyncIterator[None]:
    """The server's first process is killed with `kill -9`, and starts again where somebody asks for it."""
    fleet.kill_server()
    yield


@asynccontextmanager
async def killed(fleet: Fleet, *roles: str) -> AsyncIterator[None]:
    """The processes of these roles are killed with `kill -9`; who has the fleet starts them again."""
    for process in fleet.processes.values():
        if process.role in roles:
            process.kill()
    yield


@asynccontextmanager
async def disk_full(folder: Path) -> AsyncIterator[None]:
    """The file system of the folder has nothing left to write to."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    yield
    ballast.unlink()


@asynccontextmanager
async def raised(dsn: str, schema: str, role: str, state: str, *, at_commit: bool) -> AsyncIterator[None]:
    """Three in ten of the role's transactions that write to the log fail with the SQLSTATE."""
    deferred = "DEFERRABLE INITIALLY DEFERRED" if at_commit else ""
    async with await connected(dsn) as admin:
        await admin.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        await admin.execute(RAISING)
        await admin.execute(
            sql.SQL(
                "CREATE CONSTRAINT TRIGGER injected AFTER INSERT ON events"
                f" {deferred} FOR EACH ROW EXECUTE FUNCTION raise_injected({{}}, {{}})"
            ).format(sql.Literal(role), sql.Literal(state))
        )
        yield
        await admin.execute("DROP FUNCTION raise_injected CASCADE")


@asynccontextmanager
async def hints_lost(dsn: str) -> AsyncIterator[None]:
    """Who listens for hints is hung up on, again and again."""
    async with await connected(dsn) as admin, anyio.create_task_group() as tasks:

        async def terminate() -> None:
            while True:
                await admin.execute(TERMINATE_LISTENERS)
                await anyio.sleep(0.05)

        tasks.start_soon(terminate)
        yield
        tasks.cancel_scope.cancel()


async def connected(dsn: str) -> AsyncConnection:
    """A connection of the fault's own, straight to the server."""
    return await psycopg.AsyncConnection.connect(dsn, autocommit=True)


async def _take_all(dsn: str, taken: list[AsyncConnection]) -> None:
    while True:
        try:
            taken.append(await connected(dsn))
        except psycopg.OperationalError:
            return
