"""The process that reads files starts with next to nothing: a single file pays for one."""

import subprocess
import sys

HEAVY = (
    "psycopg",
    "numpy",
    "torch",
    "openvino",
    "anyio",
    "asyncio",
    "pgvector",
    "rich",
    "cyclopts",
    "tokenizers",
    "lxml",
)


def imported(statement: str) -> set[str]:
    """Those of the heavy modules that are in memory after the statement."""
    script = f"{statement}\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_a_worker_imports_nothing_heavy() -> None:
    assert imported("import chunkstore.ingest.worker") == set()


def test_a_chunker_by_a_models_tokens_brings_neither_the_model_nor_the_database() -> None:
    brought = imported("import chunkstore.ingest.worker, chunkstore.models.counting")
    assert brought <= {"numpy", "tokenizers"}
