"""A store is migrated while older processes write, consume, project, collect and search: what they do then.

The older code is this one; the newer schema is this one and a migration more.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from chunkstore import migrate
from chunkstore.collection import Collection
from chunkstore.dsn import Dsn
from chunkstore.store import ChunkStore
from projections.verify import verify
from tests.faults.asking import ALL_ACTIVE, until, value
from tests.faults.fix_processes import Fleet
from tests.faults.stamped import KEYS, broken, chunks_of

pytestmark = pytest.mark.slow

ROLES = ("upload", "consume", "project", "collect")

TABLES = ("versions", "chunks", "leases")
WIDER = "ALTER TABLE {} ADD COLUMN later integer NOT NULL DEFAULT 7;"
"""What older code can live with: a table gets a column that it knows nothing of."""

OTHER = """
CREATE TABLE taken AS SELECT pg_get_functiondef('complete'::regproc) AS definition;
DROP FUNCTION complete;
"""
"""What it cannot: what it calls is gone."""

TAKEN_BACK = """
DO $$
BEGIN
    EXECUTE (SELECT definition FROM taken);
END
$$;
DROP TABLE taken;
DELETE FROM _yoyo_migration WHERE migration_id LIKE '99%'
"""


class Newer:
    """Migrates the store to schemas that are newer and newer."""

    def __init__(self, store: ChunkStore, dsn: str, folder: Path) -> None:
        self._store = store
        self._dsn = Dsn(dsn)
        self._folder = folder
        self._last = migrate.own_folder()

    async def apply(self, name: str, text: str) -> None:
        """Applies one migration more. What was read of a folder is kept, so each has a folder of its own."""
        folder = self._folder / name
        shutil.copytree(self._last, folder)
        (folder / f"{name}.sql").write_text(text)
        self._last = folder
        applied = await anyio.to_thread.run_sync(
            migrate.apply, self._dsn, self._store.database.schema, folder
        )
        assert applied == [name]


@pytest.fixture
def newer(store: ChunkStore, dsn: str, tmp_path: Path) -> Newer:
    return Newer(store, dsn, tmp_path)


@asynccontextmanager
async def searching(files: Collection) -> AsyncIterator[list[str]]:
    """Searches all the time, and lists what was wrong with what was found."""
    faults: list[str] = []

    async def search() -> None:
        while True:
            faults.extend(broken(await files.search("upload", k=2000)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search)
        yield faults
        tasks.cancel_scope.cancel()


async def more(store: ChunkStore, kind: str, count: int) -> None:
    """Returns when so many more events of the type are in the log."""
    counting = f"SELECT count(*) FROM events WHERE type = '{kind}'"
    await until(store, f"SELECT ({counting}) >= {await value(store, counting) + count}")


async def test_older_processes_go_on_under_a_newer_schema_or_stop_with_a_clear_message(
    fleet: Fleet, store: ChunkStore, files: Collection, newer: Newer
) -> None:
    for key in KEYS:
        await files.append(key, chunks_of(key, "first"))
    for role in ROLES:
        fleet.start(role)
    await until(store, "SELECT count(DISTINCT file) = 20 FROM active_versions WHERE version IS NOT NULL")
    async with searching(files) as faults:
        for number, table in enumerate(TABLES):
            await newer.apply(f"9990_{number}", WIDER.format(table))
        for kind in ("version_committed", "chunks_embedded", "version_activated"):
            await more(store, kind, 5)
        await newer.apply("9999_next", OTHER)
        consumer = fleet.processes["consume-1"]
        assert await consumer.ended() == 1, consumer.errors
        assert "SchemaTooNew: the schema" in consumer.errors
        assert "unknown here: upgrade chunkstore" in consumer.errors
        await more(store, "version_committed", 5)
    assert faults == []
    await fleet.stop("upload")

    async with store.database.transaction() as conn:
        await conn.execute(TAKEN_BACK, prepare=False)
    fleet.start("consume")
    await until(store, ALL_ACTIVE)
    await fleet.stop()
    assert broken(await files.search("upload", k=2000)) == []
    assert (await verify(store)).broken == []
