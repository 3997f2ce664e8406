"""Everything at once for half an hour, with a fault a second: nothing lost, nothing mixed, nothing raised."""

import shutil
import tempfile
from pathlib import Path

import pytest

from projections import indexes
from tests.faults.processes import Where
from tests.soak.roles import INDEX_FROM_ROWS
from tests.soak.soaking import SECONDS, SEED, soak
from tests.soak.tally import show


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 600)
async def test_everything_at_once_with_a_fault_a_second_breaks_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "INDEX_FROM_ROWS", INDEX_FROM_ROWS)
    folder = Path(tempfile.mkdtemp(prefix="chunkstore-soak-"))
    with capfd.disabled():
        tally = await soak(Where(folder, "soak"))
        show(tally)
    assert tally.violations == [], f"SOAK_SEED={SEED}; what the processes left is in {folder}"
    assert sum(tally.left_over.values()) == 0
    shutil.rmtree(folder)
