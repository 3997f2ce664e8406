"""The one process that does everything, `chunkstore up`, through a server that dies and comes back."""

import os
import signal
import subprocess
import sys

import anyio
import pytest
from anyio import to_thread

from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.model import Chunk
from chunkstore.retries import persistently
from chunkstore.store import ChunkStore
from tests.faults.asking import ALL_ACTIVE, until, value
from tests.faults.fix_processes import Fleet

pytestmark = pytest.mark.slow


def started(env: dict[str, str]) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "chunkstore.cli", "up"], env=env, stderr=subprocess.PIPE)


@pytest.mark.timeout(120)
async def test_up_goes_on_when_its_server_comes_back(
    besieged: Fleet, besieged_store: ChunkStore, besieged_files: Collection
) -> None:
    env = os.environ | {
        "CHUNKSTORE_DSN": EmbeddedServer(besieged.where.data).dsn.conninfo(),
        "CHUNKSTORE_SCHEMA": besieged.where.schema,
    }
    up = started(env)
    try:
        await besieged_files.append("before", [Chunk("text")])
        await until(besieged_store, ALL_ACTIVE)
        besieged.kill_server()
        # Longer than it takes `up` to look for new models.
        await anyio.sleep(2.5)
        await persistently(lambda: besieged_files.append("after", [Chunk("text again")]))
        await until(besieged_store, ALL_ACTIVE)
        assert await value(besieged_store, "SELECT count(*) FROM active_versions") == 2
        assert up.poll() is None, up.stderr
        up.send_signal(signal.SIGTERM)
        assert await to_thread.run_sync(up.wait, 30) == 0
    finally:
        up.kill()
        _, said = up.communicate()
    assert b"Traceback" not in said
