"""The Python blocks of the documents run, a page at a time, on a store of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What the pages take for granted: a collection that holds a file.
PRELUDE = """
from chunkstore import Chunk
from chunkstore.sync import ChunkStore

with ChunkStore.open() as store:
    for name in ("default", "notes"):
        store.collection(name, model="hashing:256").append("docs/guide.md", [Chunk("Read this first.")])
"""

PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "reference" not in page.parts and "```python" in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_python_blocks_of_a_page_run(page: Path, dsn: str, schema: str) -> None:
    found = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    environment = os.environ | {"CHUNKSTORE_DSN": dsn, "CHUNKSTORE_SCHEMA": schema, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-"],
        input="\n".join([PRELUDE, *found]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
