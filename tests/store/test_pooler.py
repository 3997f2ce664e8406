"""Behind pgbouncer in transaction mode, where consecutive transactions meet different server sessions."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from chunkstore import migrate
from chunkstore.database import Database
from tests.fix_server import Server

CONFIGURATION = """
[databases]
{dbname} = host={host} port={port} user={user} dbname={dbname}
[pgbouncer]
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
def pooled(server: Server) -> Iterator[str]:
    """The address of a pgbouncer before the server, with three sessions for all."""
    program = shutil.which("pgbouncer")
    if program is None or server.log is None:
        pytest.skip("needs pgbouncer and the embedded server")
    where = conninfo_to_dict(server.dsn)
    owner = server.log.stat()
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, owner.st_uid, owner.st_gid)
        configuration = Path(folder, "pgbouncer.ini")
        configuration.write_text(CONFIGURATION.format(folder=folder, **where))
        process = subprocess.Popen(
            [program, "--quiet", configuration], user=owner.st_uid, group=owner.st_gid, extra_groups=[]
        )
        try:
            address = f"host={folder} port=6432 user={where['user']} dbname={where['dbname']}"
            _connect(address)
            yield address
        finally:
            process.terminate()
            process.wait()


@retry(
    retry=retry_if_exception_type(psycopg.OperationalError), stop=stop_after_delay(20), wait=wait_fixed(0.1)
)
def _connect(address: str) -> None:
    psycopg.connect(address).close()


async def test_transactions_of_two_databases_share_the_sessions_and_keep_their_schemas(
    pooled: str, schema: str, empty_schema_too: str
) -> None:
    assert await migrate.migrate(pooled, schema=empty_schema_too)
    async with (
        await Database.open(pooled, schema=schema) as first,
        await Database.open(pooled, schema=empty_schema_too) as second,
        anyio.create_task_group() as tasks,
    ):
        for database in [first, second] * 4:
            tasks.start_soon(_work, database)


async def _work(database: Database) -> None:
    for number in range(20):
        async with database.transaction() as connection:
            cursor = await connection.execute("SELECT current_schema(), %s::integer", [number])
            assert await cursor.fetchone() == (database.schema, number)
