"""Local models from the shell: searches without torch, and what a model cuts is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from chunkstore import Chunk
from chunkstore.sync import ChunkStore
from tests.cli.fix_cli import Cli
from tests.unit.models.fix_folders import save

pytestmark = pytest.mark.slow

SEARCH = """
import sys
from chunkstore.cli.run import run
code = run(["search", "when are the leaves picked?", "-k", "1"])
print(sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
sys.exit(code)
"""


def test_a_search_with_a_local_model_imports_no_torch(cli: Cli, docs: Path) -> None:
    assert cli("ingest", docs, "--model", "minilm", "--wait", "--json").json["embedded"] == 3
    done = subprocess.run(
        [sys.executable, "-c", SEARCH],
        env=cli.environment,
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "docs/tea.md" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "small", max_tokens=24)


def test_chunks_that_a_model_cannot_read_whole_are_counted_and_said(
    cli: Cli, small_model: Path, dsn: str, schema: str
) -> None:
    spec = f"sentence-transformers:{small_model}"
    cli("collection", "create", "notes", "--model", spec)
    with ChunkStore.open(dsn, schema=schema) as store:
        store.collection("notes").append("a", [Chunk("a cat " * 50), Chunk("mice"), Chunk("rain " * 23)])
    said = cli("consume", "--model", spec, "--drain").err
    assert "small read only the first 24 tokens of 2 of 3 chunks" in said


def test_what_is_ingested_for_a_model_is_read_whole(cli: Cli, small_model: Path) -> None:
    (cli.folder / "long.txt").write_text("A cat sleeps on the mat. " * 40)
    spec = f"sentence-transformers:{small_model}"
    ended = cli("ingest", "long.txt", "--collection", "notes", "--model", spec, "--wait")
    assert "chunks embedded" in ended.out
    assert "read only the first" not in ended.err
    (cli.folder / "more.txt").write_text("Ships leave before dawn. " * 40)
    said = cli("ingest", "more.txt", "--collection", "notes").err
    assert "sized by an estimate: give 'small' with --model" in said
