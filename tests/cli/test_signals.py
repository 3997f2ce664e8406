"""Ctrl-C and SIGTERM: no traceback, nothing half done, nothing held; and what ends where a model hangs."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql

from tests.cli.fix_cli import MODEL, Cli, Running

Start = Callable[..., Running]

_HELD = """
SELECT count(*) FROM leases l
WHERE owner IS NOT NULL AND expires > clock_timestamp()
  AND NOT EXISTS (
      SELECT FROM done d
      WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
  )
"""


@pytest.fixture
def conn(dsn: str, schema: str) -> Iterator[Connection]:
    """A connection in the store's schema, each statement committing by itself."""
    with psycopg.connect(dsn, autocommit=True) as opened:
        opened.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(schema)))
        yield opened


def count(conn: Connection, query: str) -> int:
    row = conn.execute(query).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("command", ["consume", "project", "up"])
def test_what_runs_for_ever_ends_cleanly(
    cli: Cli, started: Start, command: str, sent: signal.Signals, code: int
) -> None:
    cli("collection", "create", "notes", "--model", MODEL)
    running = started(command)
    running.says("until Ctrl-C or SIGTERM")
    running.process.send_signal(sent)
    ended = running.end()
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    assert "finishing what is in hand" in ended.err


def test_a_stopped_consumer_holds_nothing_and_loses_nothing(
    cli: Cli, started: Start, conn: Connection
) -> None:
    (cli.folder / "long.txt").write_text(
        "\n\n".join(f"Paragraph {i} is about {i * i}." for i in range(20_000))
    )
    added = cli("ingest", "long.txt", "--model", MODEL, "--json").json["chunks_added"]
    running = started("consume", "--batch", "16", "--json")
    running.says("until Ctrl-C or SIGTERM")
    running.process.send_signal(signal.SIGTERM)
    ended = running.end()
    assert ended.code == 0, ended
    stored = ended.json["hashing-64"]["stored"]
    assert stored == count(conn, "SELECT count(*) FROM embeddings")
    assert count(conn, _HELD) == 0
    assert cli("consume", "--drain", "--json").json["hashing-64"]["stored"] == added - stored
    cli("verify")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_waits_for_a_lock_ends_cleanly_and_writes_nothing(
    cli: Cli, docs: Path, started: Start, conn: Connection, sent: signal.Signals, code: int
) -> None:
    cli("collection", "create", "default", "--model", MODEL)
    with conn.transaction():
        conn.execute("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
        running = started("delete", "docs/tea.md")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'files'::regclass"
        while not count(conn, waiting):
            assert running.process.poll() is None
        running.process.send_signal(sent)
        ended = running.end()
    assert (ended.code, ended.out, ended.err) == (code, "", "")


def test_a_drain_that_is_stopped_does_not_pass_for_done(
    cli: Cli, docs: Path, started: Start, conn: Connection
) -> None:
    cli("ingest", docs, "--model", MODEL)
    with conn.transaction():
        conn.execute("LOCK TABLE embeddings IN ACCESS EXCLUSIVE MODE")
        running = started("consume", "--drain")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'embeddings'::regclass"
        while not count(conn, waiting):
            assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        running.says("finishing what is in hand")
    assert running.end().code == 143
    assert count(conn, _HELD) == 0


def test_up_does_everything_for_collections_that_come_later(cli: Cli, docs: Path, started: Start) -> None:
    running = started("up", "--collect-every", "1")
    running.says("until Ctrl-C or SIGTERM")
    cli("ingest", docs, "--model", MODEL)
    while len(cli("search", "tea", "--json").json["hits"]) < 3:
        assert running.process.poll() is None
    running.process.send_signal(signal.SIGINT)
    assert running.end().out.splitlines()[:3] == [
        "chunks embedded     3",
        "chunks given up     0",
        "files switched      3",
    ]


HANGING = """
import threading
from chunkstore.cli import main
from chunkstore.models.hashing import HashingModel
from consumers.embedding import EmbeddingConsumer
HashingModel.embed = lambda self, texts: threading.Event().wait()
EmbeddingConsumer.__init__.__kwdefaults__["model_seconds"] = 0.5
main()
"""


@pytest.mark.parametrize("command", ["consume", "up"])
def test_a_process_whose_model_hangs_ends_and_says_so(cli: Cli, docs: Path, command: str) -> None:
    cli("ingest", docs, "--model", MODEL)
    ended = subprocess.run(
        [sys.executable, "-c", HANGING, command],
        env=cli.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 5, ended
    assert "the model has not answered for 0.5 s" in ended.stderr
    assert "Traceback" not in ended.stderr
