"""An ingestion that is ended half-way: nothing is left running, and the next one goes on where it stopped."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import psycopg
import pytest

from chunkstore.ingest.pipeline import APPENDED_AT_ONCE
from chunkstore.ingest.workers import cores
from tests.cli.fix_cli import COMMAND, MODEL, Cli, Running

pytestmark = pytest.mark.slow

FILES = 400
IN_HAND = cores() + APPENDED_AT_ONCE


@pytest.fixture
def many(cli: Cli) -> Path:
    """A folder of some hundred files that were written a while ago."""
    folder = cli.folder / "many"
    folder.mkdir()
    for i in range(FILES):
        path = folder / f"{i}.md"
        path.write_text(f"# File {i}\n\n" + f"Something that only file {i} says. " * 60)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


class Ingesting:
    """The command under way over the folder, and what the store holds meanwhile."""

    def __init__(self, cli: Cli, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._environment = cli.environment
        self._name = cli.environment.get("PGAPPNAME", "")

    def count(self, table: str) -> int:
        schema = self._environment["CHUNKSTORE_SCHEMA"]
        return self._value(f"SELECT count(*) FROM {schema}.{table}")

    def connections(self) -> int:
        """Those of the command, some of which may still commit when it is gone."""
        return self._value(f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{self._name}'")

    def _value(self, statement: str) -> int:
        with psycopg.connect(self._environment["CHUNKSTORE_DSN"]) as connection:
            row = connection.execute(statement.encode()).fetchone()
            assert row is not None
            return row[0]

    def workers(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for children in listed for pid in children.read_text().split()]

    async def until(self, reached: Callable[[], bool]) -> None:
        with anyio.fail_after(60):
            while True:
                if reached():
                    return
                await anyio.sleep(0.02)


@pytest.fixture
def ingesting(cli: Cli, started: Callable[..., Running], many: Path) -> Ingesting:
    """An ingestion that has just begun."""
    cli.environment["PGAPPNAME"] = f"ingesting into {cli.environment['CHUNKSTORE_SCHEMA']}"
    return Ingesting(cli, started("ingest", str(many), "--model", MODEL).process)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
async def test_an_interrupted_ingestion_leaves_nothing_running_and_is_gone_on_with(
    cli: Cli, ingesting: Ingesting, sent: signal.Signals, code: int
) -> None:
    await ingesting.until(lambda: ingesting.count("versions") >= 150)
    workers = ingesting.workers()
    assert workers
    assert ingesting.connections() > 0
    ingesting.process.send_signal(sent)
    _, said = ingesting.process.communicate(timeout=30)
    assert ingesting.process.returncode == code
    assert ("what was brought in stays" in said) == (sent != signal.SIGKILL)
    await ingesting.until(lambda: not any(map(is_running, workers)) and not ingesting.connections())

    done, stamped = ingesting.count("versions"), ingesting.count("sources")
    assert 150 <= done < FILES
    assert done - stamped <= (140 if sent == signal.SIGKILL else IN_HAND)
    report = cli("ingest", "many", "--json").json
    assert (report["added"], report["unchanged"], report["failed"]) == (FILES - done, done, [])
    assert ingesting.count("versions") == ingesting.count("sources") == FILES
    assert cli("verify").code == 0


async def test_a_signal_to_the_whole_group_as_a_terminal_sends_it_is_left_to_the_command(
    cli: Cli, many: Path
) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220
        [*COMMAND, "ingest", str(many), "--model", MODEL],
        env=cli.environment,
        cwd=cli.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ingesting = Ingesting(cli, process)
    await ingesting.until(lambda: ingesting.count("versions") >= 50)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "crashed" not in out + err
    assert 0 <= ingesting.count("versions") - ingesting.count("sources") <= IN_HAND
