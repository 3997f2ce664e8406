"""The disk of the server is full for a while: nothing committed is lost, and all get on when there is room.

Needs to mount a small file system of its own, and so root; skipped where that is refused.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import injected
from tests.faults.fix_processes import Fleet
from tests.faults.processes import Where
from tests.faults.siege import besieging

SIZE = "256m"
WITHIN_SECONDS = 40
"""The server, which may have died of it, recovers first."""


@pytest.fixture
def cramped() -> Iterator[Fleet]:
    """Processes whose server has a file system of its own."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-cramped-") as folder:
        fleet = Fleet(Where(Path(folder), "cramped"))
        fleet.where.data.mkdir()
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", fleet.where.data]
        if subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
            pytest.skip("no file system can be mounted here")
        try:
            yield fleet
        finally:
            fleet.end()
            subprocess.run(["umount", "--lazy", fleet.where.data], check=True)


@pytest.mark.soak
async def test_everybody_gets_on_after_the_disk_was_full(cramped: Fleet) -> None:
    async with besieging(cramped) as siege:
        await siege.withstands(injected.disk_full(cramped.where.data), lasts=3, within=WITHIN_SECONDS)
        assert "No space left on device" in cramped.log, "the disk had room: nothing was put to the test"
