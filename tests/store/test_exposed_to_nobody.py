"""The embedded server can be reached by its user alone, and is given no secret of whoever starts it."""

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
import pytest

from chunkstore.embedded import EmbeddedServer
from tests.fix_endpoint import KEY

PASSWORD = "hunter2-which-nobody-may-see"
NOBODY = 65534


class Embedded(NamedTuple):
    """An embedded server that was started by a process with secrets in its environment."""

    server: EmbeddedServer

    @property
    def postgres(self) -> Path:
        """The cluster's folder."""
        return self.server.folder / "postgres"

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        with psycopg.connect(self.server.dsn.conninfo()) as connection:
            return Path(connection.info.host) / f".s.PGSQL.{connection.info.port}"

    @property
    def process(self) -> psutil.Process:
        """The server's first process."""
        return psutil.Process(int((self.postgres / "postmaster.pid").read_text().partition("\n")[0]))


@pytest.fixture(scope="module", params=["short path", "long path"])
def embedded(request: pytest.FixtureRequest, made: Path) -> Iterator[Embedded]:
    """A running server whose socket is in its data folder, and one whose path is too long for that."""
    folder = made
    if request.param == "long path":
        folder = made / ("long" * 25)
        folder.mkdir()
        folder.chmod(0o711)
        (made / "postgres").rename(folder / "postgres")
    server = EmbeddedServer(folder)
    server.acquire()
    yield Embedded(server)
    server.release()


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder for the servers; secrets are in this process's environment."""
    secrets = {
        "CHUNKSTORE_DSN": f"postgresql://u:{PASSWORD}@h/d",
        "PGPASSWORD": PASSWORD,
        "OPENAI_API_KEY": KEY,
        "SOME_API_KEY": KEY,
        "HF_TOKEN": KEY,
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="chunkstore-own-") as folder,
    ):
        for name, value in secrets.items():
            patch.setenv(name, value)
        yield Path(folder)


# --- the server ---------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_of_the_machine_can_open_neither_the_socket_nor_the_data(embedded: Embedded) -> None:
    path = embedded.socket
    folder = embedded.postgres

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    assert _as_root(connect) is None
    for attempt in (
        connect,
        lambda: list(folder.iterdir()),
        (folder / "PG_VERSION").read_text,
        (folder / "server.log").read_text,
        lambda: list((folder / "base").iterdir()),
        lambda: list(path.parent.iterdir()),
        lambda: (folder.parent / "lock").open("r+"),
        lambda: (folder.parent / "users").open("r"),
        lambda: folder.rename(folder.with_name("stolen")),
    ):
        assert _as_nobody(attempt) == "PermissionError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_the_socket_itself_lets_nobody_in_where_its_folder_was_opened(embedded: Embedded) -> None:
    path = embedded.socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    folder = path.parent
    folder.chmod(0o755)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            assert _as_nobody(lambda: client.connect(str(path))) == "PermissionError"
    finally:
        folder.chmod(0o700)


def test_no_file_of_the_cluster_is_open_to_group_or_others(embedded: Embedded) -> None:
    files = [embedded.postgres, embedded.server.folder / "lock", embedded.server.folder / "users"]
    files += list(embedded.postgres.rglob("*"))
    assert len(files) > 500
    modes = {str(path): stat.S_IMODE(path.lstat().st_mode) for path in files if path.exists()}
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_the_server_listens_on_no_network_address(embedded: Embedded) -> None:
    with psycopg.connect(embedded.server.dsn.conninfo()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    assert [one for one in embedded.process.net_connections(kind="inet") if one.status == "LISTEN"] == []


def test_the_server_is_not_given_the_secrets_of_whoever_starts_it(embedded: Embedded) -> None:
    with psycopg.connect(embedded.server.dsn.conninfo()) as connection:
        connection.execute("CREATE TEMPORARY TABLE variables (line text)")
        connection.execute("COPY variables FROM PROGRAM 'env'")
        lines = [line for (line,) in connection.execute("SELECT line FROM variables").fetchall()]
    assert any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if PASSWORD in line or KEY in line]


def _as_root(attempt: Callable[[], object]) -> str | None:
    return _in_a_child(attempt, 0)


def _as_nobody(attempt: Callable[[], object]) -> str | None:
    return _in_a_child(attempt, NOBODY)


def _in_a_child(attempt: Callable[[], object], user: int) -> str | None:
    """The name of the error that the attempt ends in for that user of the system; None for none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            attempt()
        except BaseException as error:  # noqa: BLE001 - it must not go on as a second pytest
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        name = said.read()
    os.waitpid(child, 0)
    return name or None
