"""`examples/quickstart.py`, which `make run` runs: from an empty folder to a verified store, twice."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.py"


def counted(shown: str, name: str) -> int:
    """The first number that the tables give by that name."""
    found = re.search(rf"{name} +([0-9,]+)", shown)
    assert found is not None, shown
    return int(found[1].replace(",", ""))


@pytest.fixture
def papers() -> Iterator[Path]:
    """A folder of two documents. Not in pytest's own: it closes that to the server's user."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "papers"
        folder.mkdir()
        (folder / "tea.md").write_text(
            "# Tea\n\nTea is picked in spring.\n\n## Storing\n\nTea is kept dry.\n"
        )
        (folder / "ships.txt").write_text("Ships need harbours and a tide.\n")
        yield folder


@pytest.mark.timeout(300)
def test_the_quickstart_goes_the_whole_way_twice_and_changes_no_document(papers: Path) -> None:
    before = {path: path.read_bytes() for path in papers.iterdir()}
    first = run(papers)
    assert counted(first, "files added") == 2
    assert "2 versions collected" in first
    second = run(papers)
    assert (counted(second, "files added"), counted(second, "files updated")) == (1, 1), "both are back"
    for shown in (first, second):
        assert re.search(r"files added +0\n +files updated +1\n +files unchanged +0\n", shown)
        assert "1 chunk embedded again" in shown
        assert "The archive of the lighthouse keepers" in shown
        assert "every invariant holds" in shown
    assert {path: path.read_bytes() for path in papers.iterdir()} == before


def run(folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(QUICKSTART.parents[1]), "COLUMNS": "100"}
    ended = subprocess.run(
        [sys.executable, QUICKSTART, folder],
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
