"""Help: every command has an example, the exit codes are said, and nothing heavy is loaded for it."""

import subprocess
import sys

import pytest

from chunkstore.cli.app import collections, dead_letters, load
from tests.cli.fix_cli import Called

FLAGS = {"--help", "-h", "--version"}
WITHOUT_A_STORE = {("models",)}
GROUPS = {"collection": collections, "dead-letters": dead_letters}
COMMANDS = sorted(set(load()) - FLAGS - set(GROUPS))
GROUPED = {name: sorted(set(group) - FLAGS) for name, group in GROUPS.items()}


def test_every_command_is_there() -> None:
    expected = (
        "chunks consume delete erase gc history ingest migrate models pin project rebuild roles rollback"
        " scrub search status tenant unpin up verify"
    )
    assert expected.split() == COMMANDS
    assert GROUPED == {"collection": ["create", "list"], "dead-letters": ["discard", "list", "retry", "show"]}


def test_help_says_the_exit_codes_and_where_settings_come_from(called: Called) -> None:
    shown = called("--help").out
    for said in ("Exit codes:", "130", "CHUNKSTORE_DSN", "chunkstore migrate", *COMMANDS):
        assert said in shown
    assert called().out == shown


@pytest.mark.parametrize(
    "command",
    [*((name,) for name in COMMANDS), *((group, name) for group in GROUPED for name in GROUPED[group])],
)
def test_a_command_has_an_example_and_the_common_options(called: Called, command: tuple[str, ...]) -> None:
    shown = called(*command, "--help").out
    assert f"chunkstore {' '.join(command)}" in shown.partition("For example:")[2]
    for option in ("--dsn", "--schema", "--data"):
        assert (option in shown) == (command not in WITHOUT_A_STORE)


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"psycopg", "numpy", "torch", "anyio", "msgspec", "asyncio", "yoyo"}),
        (
            ["status", "--dsn", "postgresql://nobody@127.0.0.1:1/none"],
            {"torch", "yoyo", "semchunk", "rich.table"},
        ),
    ],
)
def test_a_command_loads_nothing_that_it_does_not_need(arguments: list[str], heavy: set[str]) -> None:
    code = (
        "import sys; from chunkstore.cli.run import run; run(sys.argv[1:]);"
        "sys.stderr.write(' '.join(sorted(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert heavy & set(ended.stderr.split()) == set()
