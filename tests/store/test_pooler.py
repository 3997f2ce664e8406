"""Behind pgbouncer in transaction mode, where consecutive transactions meet different server sessions."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from chunkstore import Chunk, ChunkStore, migrate
from chunkstore.database import Database
from chunkstore.errors import UnsupportedServer
from chunkstore.scrub import scrub
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.collector import collect
from projections.projector import Projector
from projections.rebuild import rebuild
from projections.verify import verify
from tests.faults.models import MODEL
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


async def test_the_whole_way_goes_through_a_pooler_and_leaves_nothing_on_its_sessions(
    pooled: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", 100)
    async with await ChunkStore.open(pooled, schema=schema) as store:
        assert store.database.is_pooled
        docs = await store.collection("docs", MODEL, keep_last=1)
        for turn in range(2):
            await docs.append("doc", [Chunk(f"text {turn} {number}") for number in range(200)])
            await EmbeddingConsumer(store, MODEL).run(drain=True)
            await Projector(store, MODEL.name).run(drain=True)
        assert (await collect(store)).swept == 200
        hits = await docs.search(MODEL.embed(["text 1 77"])[0], k=1)
        assert ([hit.content for hit in hits], hits.exact) == (["text 1 77"], False)
        assert (await verify(store)).broken == []
        with pytest.raises(UnsupportedServer, match="is a pooler: give a DSN that goes to the server itself"):
            await rebuild(store, "docs")
        with pytest.raises(UnsupportedServer, match="is a pooler"):
            await scrub(store.database)
    for path, channels in await anyio.to_thread.run_sync(_left_on_the_sessions, pooled):
        assert (path, channels) == ('"$user", public', [])


def _left_on_the_sessions(pooled: str) -> list[tuple[str, list[str]]]:
    """The search path and the channels of each of the pooler's sessions."""
    question = "SELECT current_setting('search_path'), ARRAY(SELECT pg_listening_channels())"
    with ExitStack() as stack:
        held = [stack.enter_context(psycopg.connect(pooled)) for _ in range(3)]
        return [connection.execute(question).fetchall()[0] for connection in held]
