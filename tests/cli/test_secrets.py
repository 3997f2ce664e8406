"""A password and a key are shown nowhere: not by titles, activity, logs, texts, or what the store keeps."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.cli.fix_cli import Called, Cli, Running
from tests.fix_endpoint import KEY, Endpoint

PASSWORD = "hunter2-which-nobody-may-see"
MODEL = "openai:tiny,dimensions=8"


@pytest.fixture
def secretive(cli: Cli, dsn: str, schema: str, endpoint: Endpoint) -> Iterator[Cli]:
    """The command as a user with a password, with a model whose service wants a key."""
    role = f"{schema}_user"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(sql.Identifier(role), PASSWORD)
        )
        cli.environment |= {
            "CHUNKSTORE_DSN": make_conninfo(dsn, user=role, password=PASSWORD),
            "OPENAI_BASE_URL": endpoint.url,
            "OPENAI_API_KEY": KEY,
        }
        yield cli
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


@pytest.fixture
def here(secretive: Cli, called: Called, monkeypatch: pytest.MonkeyPatch) -> Called:
    """The same in this process."""
    for name in ("CHUNKSTORE_DSN", "CHUNKSTORE_SCHEMA", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, secretive.environment[name])
    return called


def test_a_running_process_shows_no_secret_to_the_system_or_the_server(
    secretive: Cli, here: Called, dsn: str, schema: str
) -> None:
    assert here("collection", "create", "docs", "--model", MODEL).code == 0
    running = Running(secretive.start("consume", "-m", MODEL))
    try:
        running.says("embedding with")
        with psycopg.connect(dsn, autocommit=True) as admin:
            started = psutil.Process(running.process.pid)
            titles = [" ".join(one.cmdline()) for one in (started, *started.children(recursive=True))]
            while not (
                activity := admin.execute(
                    "SELECT a::text FROM pg_stat_activity a WHERE usename = %s", [f"{schema}_user"]
                ).fetchall()
            ):
                assert running.process.poll() is None
            pids = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            ).fetchall()
        for (pid,) in pids:
            with suppress(psutil.NoSuchProcess):  # one of another test's, which is over
                titles.append(" ".join(psutil.Process(pid).cmdline()))
    finally:
        running.process.terminate()
        ended = running.end()
    assert any("consume" in title for title in titles)
    assert_no_secret_in(*titles, *(row for (row,) in activity), ended.out, ended.err)


def test_nothing_that_commands_print_or_store_or_that_the_server_logs_holds_a_secret(
    here: Called,
    monkeypatch: pytest.MonkeyPatch,
    dsn: str,
    schema: str,
    docs: Path,
    server_log: Path,
) -> None:
    said: list[str] = []
    for arguments in (
        ("ingest", str(docs), "--model", MODEL, "--wait"),
        ("status", "--json"),
        ("search", "tea", "--json"),
        ("ingest", str(docs), "--model", "openai:tiny,dimensions=9"),
        ("migrate",),
    ):
        said += here(*arguments)[1:]
    monkeypatch.setenv("CHUNKSTORE_DSN", make_conninfo(dsn, user="no_such_role", password=PASSWORD))
    said += here("status")[1:]
    with psycopg.connect(dsn, autocommit=True) as admin:
        tables = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]).fetchall()
        for (table,) in tables:
            rows = admin.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table)))
            said += [row for (row,) in rows.fetchall()]
    said.append(server_log.read_text(errors="replace"))
    for expected in ("openai:tiny", "no_such_role", "Tea is picked"):
        assert any(expected in text for text in said)
    assert_no_secret_in(*said)


def assert_no_secret_in(*texts: str) -> None:
    """Fails where a text holds the password or the key, also as a URL has them."""
    secrets = (PASSWORD, KEY, quote(PASSWORD, safe=""), quote(KEY, safe=""))
    assert [text for text in texts if any(secret in text for secret in secrets)] == []


def test_a_dsn_given_as_an_option_is_not_shown_by_errors(called: Called) -> None:
    ended = called("status", "--dsn", f"postgresql://u:{PASSWORD}@localhost:1/d")
    assert ended.code == 3
    assert_no_secret_in(ended.out, ended.err)
