"""Wrong use and a wrong database: one line on standard error, an exit code, and never a password."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.cli.fix_cli import MODEL, Called, Cli

PASSWORD = "s3cret-Pa55"


@pytest.mark.parametrize(
    "arguments",
    [
        ("serach", "tea"),
        ("search",),
        ("search", "tea", "more"),
        ("search", "tea", "-k", "many"),
        ("search", "tea", "-k", "0"),
        ("search", "tea", "-k", "1000000"),
        ("search", "", "-k", "1"),
        ("search", "tea", "--no-such-option"),
        ("search", "tea", "--collection", "nowhere"),
        ("collection", "create", "notes", "--model", "gpt"),
        ("collection", "create", "notes", "--model", MODEL, "--keep-last", "0"),
        ("rebuild", "nowhere"),
        ("gc", "--collection", "nowhere"),
        ("consume", "--drain"),
        ("status", "--schema", "pg_mine"),
        ("status", "--data", "here", "--dsn", "DSN"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    called: Called, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", dsn)
    monkeypatch.setenv("CHUNKSTORE_SCHEMA", schema)
    ended = called(*(argument.replace("DSN", dsn) for argument in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("chunkstore: ")
    assert ended.err.count("\n") == 1


def test_a_process_says_the_same(cli: Cli) -> None:
    ended = cli("search", "tea", "-k", "0", expect=2)
    assert (ended.out, ended.err) == ("", "chunkstore: k: 0 is not allowed; an integer from 1 to 10000\n")


def test_no_server_is_exit_code_3(tmp_path: Path) -> None:
    ended = Cli(tmp_path)("status", "--dsn", "postgresql://nobody@127.0.0.1:1/none", expect=3)
    assert "127.0.0.1:1" in ended.err
    assert ended.err.count("\n") == 1


def test_the_options_beat_the_environment(dsn: str, schema: str, tmp_path: Path) -> None:
    elsewhere = Cli(tmp_path, CHUNKSTORE_DSN="postgresql://nobody@127.0.0.1:1/none", CHUNKSTORE_SCHEMA="none")
    assert elsewhere("status", "--dsn", dsn, "--schema", schema, "--json").json["schema"] == schema


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/none",
        f"postgresql://me:{PASSWORD}@/no@127.0.0.1:1/none",
        f"postgresql://me:p@{PASSWORD}@127.0.0.1:1/none",
        f"postgresql://me:{PASSWORD}@127.0.0.1:none/none",
        f"host=127.0.0.1 port=1 user=me password='{PASSWORD}'",
        f"host=127.0.0.1 port=1 user=me password = {PASSWORD} nonsense",
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--dsn", "DSN"),
        ("DSN", "status"),
        ("status", "--dns=DSN"),
        ("search", "tea", "-k", "DSN"),
        ("status", "--dsn", "DSN", "--bogus"),
    ],
    ids=" ".join,
)
def test_a_password_is_never_printed(called: Called, dsn: str, arguments: tuple[str, ...]) -> None:
    ended = called(*(argument.replace("DSN", dsn) for argument in arguments))
    assert ended.code in (2, 3)
    assert PASSWORD not in ended.err + ended.out
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("status",), ("--help",), ("search", "--help"), ("consume", "--drain")], ids=" ".join
)
def test_a_password_in_the_environment_is_never_printed(
    called: Called, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", f"postgresql://me:{PASSWORD}@127.0.0.1:1/none")
    ended = called(*arguments)
    assert PASSWORD not in ended.err + ended.out


def test_a_refused_password_is_not_printed(dsn: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(dsn) | {"user": "no_such_role", "password": PASSWORD}
    given = " ".join(f"{name}='{value}'" for name, value in parts.items())
    ended = Cli(tmp_path)("status", "--dsn", given, expect=3)
    assert "no_such_role" in ended.err
    assert PASSWORD not in ended.err


def test_a_reader_that_has_had_enough_is_no_error(filled: Cli) -> None:
    process = filled.start("search", "tea", "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
