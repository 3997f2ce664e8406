"""The embedded server as several real processes use it, and as `kill -9` leaves it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import psutil
import psycopg
import pytest

from chunkstore import embedded
from chunkstore.database import Database
from chunkstore.embedded import EmbeddedServer
from chunkstore.errors import DatabaseError, SchemaNotMigrated, ServerUnreachable

ROOT = Path(__file__).parents[2]

USER = """
import sys
from pathlib import Path
from chunkstore.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.acquire()
print("in", flush=True)
if sys.stdin.readline() == "leave\\n":
    server.release()
    print("out", flush=True)
"""


class User:
    """A process that uses the server of a folder until it is told to leave, ended or killed."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def is_in(self) -> bool:
        """Waits until it uses the server."""
        assert self._process.stdout is not None
        return self._process.stdout.readline() == "in\n"

    def leave(self) -> None:
        """Lets it release the server."""
        self._process.communicate("leave\n")
        assert self._process.returncode == 0

    def end(self) -> None:
        """Lets it end without a release."""
        self._process.communicate("")
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def empty() -> Iterator[Path]:
    """A folder that holds no cluster."""
    with tempfile.TemporaryDirectory(prefix="chunkstore-embedded-") as folder:
        yield Path(folder)
        _stop(Path(folder))


@pytest.fixture(scope="module")
def _made() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chunkstore-embedded-") as folder:
        server = EmbeddedServer(Path(folder))
        server.acquire()
        server.release()
        yield Path(folder)


@pytest.fixture
def folder(_made: Path) -> Iterator[Path]:
    """A folder whose cluster was made and stopped before."""
    yield _made
    _stop(_made)


@pytest.fixture
def users(folder: Path) -> Iterator[Callable[[], User]]:
    """Starts processes that use the folder's server."""
    started: list[User] = []

    def start() -> User:
        started.append(User(folder))
        return started[-1]

    yield start
    for user in started:
        user.kill()


def test_two_processes_that_start_at_once_in_an_empty_folder_share_one_server(empty: Path) -> None:
    first, second = User(empty), User(empty)
    try:
        assert first.is_in()
        assert second.is_in()
        assert _answers(empty)
        first.leave()
        assert _answers(empty)
        second.leave()
        assert not _runs(empty)
    finally:
        first.kill()
        second.kill()


def test_the_server_survives_the_kill_of_the_process_that_started_it(
    folder: Path, users: Callable[[], User]
) -> None:
    starter = users()
    assert starter.is_in()
    other = users()
    assert other.is_in()
    starter.kill()
    assert _answers(folder)
    other.leave()
    assert not _runs(folder), "a killed process still counts as a user"


def test_a_process_that_ends_without_a_release_stops_the_server(
    folder: Path, users: Callable[[], User]
) -> None:
    user = users()
    assert user.is_in()
    user.end()
    assert not _runs(folder)


def test_a_fork_that_ends_does_not_stop_the_server_under_its_parent(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.acquire()
    fork = os.fork()
    if fork == 0:
        try:
            server.release()
        finally:
            os._exit(0)
    os.waitpid(fork, 0)
    assert _answers(folder)
    server.release()
    assert not _runs(folder)


def test_a_server_left_by_a_kill_of_its_last_user_is_found_and_stopped_by_the_next(
    folder: Path, users: Callable[[], User]
) -> None:
    user = users()
    assert user.is_in()
    user.kill()
    before = _postmaster(folder).pid
    server = EmbeddedServer(folder)
    server.acquire()
    assert _postmaster(folder).pid == before
    server.release()
    assert not _runs(folder)


def test_what_was_committed_is_there_after_the_server_was_killed(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.acquire()
    with psycopg.connect(server.dsn.conninfo()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS one")
    _kill_server(folder)
    assert not _answers(folder)

    later = EmbeddedServer(folder)
    later.acquire()
    with psycopg.connect(later.dsn.conninfo()) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    later.release()
    assert _answers(folder), "the first user still needs the server"
    server.release()
    assert not _runs(folder)


def test_a_pid_file_that_names_another_living_program_does_not_hinder_the_start(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.acquire()
    _kill_server(folder)
    owner = (folder / "postgres").stat().st_uid
    other = subprocess.Popen(["sleep", "60"], user=owner)
    try:
        pid_file = folder / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{other.pid}\n", *lines[1:]]))
        server.revive()
        assert _answers(folder)
    finally:
        other.kill()
        other.wait()
        server.release()


async def test_a_database_finds_its_server_again_after_the_server_was_killed(folder: Path) -> None:
    async with await Database.open(data=folder, schema="revived", migrate=True) as database:
        async with database.transaction() as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS kept (one integer)")
        _kill_server(folder)
        with pytest.raises(ServerUnreachable):
            async with database.transaction():
                pass
        with anyio.fail_after(30):
            await _until_it_answers(database)
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO kept VALUES (1)")


async def test_a_database_stops_the_server_when_it_is_closed(folder: Path) -> None:
    database = await Database.open(data=folder, schema="closed", migrate=True)
    assert _answers(folder)
    await database.close()
    assert not _runs(folder)


async def test_a_database_that_cannot_open_leaves_no_server_behind(folder: Path) -> None:
    with pytest.raises(DatabaseError, match="chunkstore migrate"):
        await Database.open(data=folder, schema="missing")
    assert not _runs(folder)


async def test_a_store_that_is_not_there_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(SchemaNotMigrated, match=f"no store is in the data folder {tmp_path}/none"):
        await Database.open(data=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_initdb_that_was_killed_is_begun_anew(empty: Path) -> None:
    leftover = empty / "postgres.new"
    leftover.mkdir()
    (leftover / "PG_VERSION").write_text("18\n")
    server = EmbeddedServer(empty)
    server.acquire()
    try:
        assert _answers(empty)
        assert not leftover.exists()
    finally:
        server.release()


@pytest.mark.parametrize("name", ['a, b\'s "folder"', "Übung", "long" * 25])
def test_any_folder_will_do(folder: Path, name: str) -> None:
    odd = folder.parent / name
    odd.mkdir()
    try:
        shutil.move(folder / "postgres", odd / "postgres")
        server = EmbeddedServer(odd)
        server.acquire()
        try:
            assert _answers(odd)
        finally:
            server.release()
        shutil.move(odd / "postgres", folder / "postgres")
    finally:
        shutil.rmtree(odd)


def test_the_server_opens_no_port_and_its_socket_is_its_owners(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.acquire()
    try:
        with psycopg.connect(server.dsn.conninfo()) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert not [c for c in _postmaster(folder).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        socket = folder / "postgres" / ".s.PGSQL.5432"
        assert socket.stat().st_mode & 0o077 == 0
    finally:
        server.release()


def test_the_environments_postgres_settings_do_not_reach_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGPORT", "PGHOST", "PGUSER", "PGDATABASE", "PGDATA"):
        monkeypatch.setenv(name, "1")
    server = EmbeddedServer(folder)
    server.acquire()
    try:
        assert _answers(folder)
    finally:
        server.release()


def test_a_folder_that_is_a_file_is_refused_clearly(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(DatabaseError, match=str(path)):
        EmbeddedServer(path).acquire()


def test_a_cluster_of_an_unknown_version_is_refused_clearly(empty: Path) -> None:
    (empty / "postgres").mkdir()
    (empty / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(DatabaseError, match="made by Postgres 9"):
        EmbeddedServer(empty).acquire()


def test_a_server_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.1)
    settings = folder / "postgres" / "postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "\nno_such_setting = 1\n")
    try:
        with pytest.raises(ServerUnreachable, match="no_such_setting"):
            EmbeddedServer(folder).acquire()
    finally:
        settings.write_text(before)


async def _until_it_answers(database: Database) -> None:
    while True:
        try:
            async with database.transaction():
                return
        except ServerUnreachable:
            await anyio.lowlevel.checkpoint()


def _postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().partition("\n")[0]))


def _runs(folder: Path) -> bool:
    return (folder / "postgres" / "postmaster.pid").exists()


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(EmbeddedServer(folder).dsn.conninfo()).close()
    except psycopg.OperationalError:
        return False
    return True


def _kill_server(folder: Path) -> None:
    postmaster = _postmaster(folder)
    postmaster.send_signal(signal.SIGKILL)
    postmaster.wait(10)


def _stop(folder: Path) -> None:
    # A test that failed may have left the server running.
    if _runs(folder):
        server = EmbeddedServer(folder)
        server.acquire()
        server.release()
