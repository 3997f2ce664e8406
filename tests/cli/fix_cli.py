"""Fixtures that run the real `chunkstore` command, in a process of its own, on the session's server."""

import os
import pty
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from chunkstore.cli.run import run
from tests.forked import run_command

SECONDS = 60
MODEL = "hashing:64"
COMMAND = (sys.executable, "-m", "chunkstore.cli")


class Result(NamedTuple):
    """How a command ended."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which must be JSON and nothing else."""
        return msgspec.json.decode(self.out)

    def checked(self, expect: int | None) -> "Result":
        """Fails where the exit code is another one, or a traceback was said."""
        assert "Traceback" not in self.err, self.err
        assert expect is None or self.code == expect, self
        return self


Called = Callable[..., Result]


class Running(NamedTuple):
    """A command under way, with its standard error."""

    process: subprocess.Popen[str]

    def says(self, text: str) -> None:
        """Returns when the command has said the text on standard error."""
        assert self.process.stderr is not None
        seen: list[str] = []
        for line in self.process.stderr:
            seen.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} was not said, only {''.join(seen)!r}")

    def end(self) -> Result:
        """How it ends."""
        out, err = self.process.communicate(timeout=SECONDS)
        return Result(self.process.returncode, out, err)


class Cli:
    """The command with the environment of one store."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHUNKSTORE_")}
        root = Path(__file__).parents[2]
        self.environment = {**inherited, "PYTHONPATH": str(root), "COLUMNS": "100", **environment}

    def __call__(self, *arguments: str | Path, expect: int | None = 0) -> Result:
        """Runs it to its end, and checks its exit code and that no traceback is in what it said."""
        with tempfile.TemporaryDirectory() as said:
            result = Result(
                *run_command([*map(str, arguments)], self.environment, self.folder, Path(said), SECONDS)
            )
        return result.checked(expect)

    def anew(self, *arguments: str | Path, expect: int | None = 0) -> Result:
        """The same in a process that imports everything itself, as the user's does."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=SECONDS)
        return Result(process.returncode, out, err).checked(expect)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Starts it."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def at_terminal(self, *arguments: str | Path, prompt: str, answer: str) -> Result:
        """Runs it on a terminal, and types the answer when the prompt is seen."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            os.execve(COMMAND[0], [*COMMAND, *map(str, arguments)], self.environment)
        seen = b""
        answered = False
        deadline = time.monotonic() + SECONDS
        while chunk := _read(terminal, deadline):
            seen += chunk
            if not answered and prompt.encode() in seen:
                os.write(terminal, answer.encode())
                answered = True
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert answered, seen
        return Result(os.waitstatus_to_exitcode(status), seen.decode(errors="replace"), "")


def _read(terminal: int, deadline: float) -> bytes:
    readable, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
    assert readable, "the command has not ended in time"
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
def empty_cli(dsn: str, empty_schema: str, tmp_path: Path) -> Cli:
    """The command, with a schema that nothing is in yet."""
    return Cli(tmp_path, CHUNKSTORE_DSN=dsn, CHUNKSTORE_SCHEMA=empty_schema)


@pytest.fixture
def cli(dsn: str, schema: str, tmp_path: Path) -> Cli:
    """The command, with a migrated schema, in a folder of its own."""
    return Cli(tmp_path, CHUNKSTORE_DSN=dsn, CHUNKSTORE_SCHEMA=schema)


@pytest.fixture
def docs(cli: Cli) -> Path:
    """Three small files in the folder `docs` of the command's working folder."""
    folder = cli.folder / "docs"
    folder.mkdir()
    (folder / "tea.md").write_text("# Tea\n\nTea is picked in spring.\n")
    (folder / "ships.txt").write_text("Ships need harbours and a tide.\n")
    (folder / "bread.txt").write_text("Bread is baked before dawn.\n")
    return folder


@pytest.fixture
def filled(cli: Cli, docs: Path) -> Cli:
    """The command on a store in which the three files are active."""
    cli("ingest", docs, "--model", MODEL, "--wait")
    return cli


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    """Runs the command in this process, with no store in its environment: quick, for what ends at once."""
    for name in [name for name in os.environ if name.startswith("CHUNKSTORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        code = run(arguments)
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture
def started(cli: Cli) -> Iterator[Callable[..., Running]]:
    """Starts commands, and kills at the end what still runs."""
    running: list[Running] = []

    def start(*arguments: str) -> Running:
        running.append(Running(cli.start(*arguments)))
        return running[-1]

    yield start
    for command in running:
        if command.process.poll() is None:
            command.process.kill()
            command.end()
