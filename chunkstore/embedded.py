"""The embedded server: Postgres and pgvector from a wheel, in a folder that this machine's processes share.

Every user holds a shared file lock, which the kernel drops when a process dies, so that `kill -9` of any of
them miscounts nothing. The last one to leave stops the server. It listens on its Unix socket only.
"""

import atexit
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import psycopg
from psycopg.conninfo import make_conninfo
from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, wait_fixed

from chunkstore.dsn import Dsn
from chunkstore.embedded_binaries import Binaries, find_binaries
from chunkstore.errors import DatabaseError, InsufficientPrivilege, SchemaNotMigrated, ServerUnreachable
from chunkstore.settings import Settings

_PORT = 5432  # only a part of the socket's name: no TCP port is opened
_START_SECONDS = 20
_WAIT_SECONDS = 600  # recovery after a crash takes its time
_SOCKET_PATH_BYTES = 100
_SHORT = Path("/tmp")  # noqa: S108 - _make_socket_folder checks whose folder it is

_INITDB = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--set=listen_addresses=",
    "--set=unix_socket_permissions=0700",
    "--set=shared_buffers=512MB",
    "--set=max_wal_size=4GB",
    "--set=checkpoint_timeout=15min",
    "--set=max_connections=200",
)


class EmbeddedServer:
    """This process's use of the server in one folder, from `acquire` to `release` or the process's end.

    The folder holds `postgres/` (the cluster and its `server.log`), `lock` (held while somebody starts or
    stops the server) and `users` (locked, shared, by each user). As root the server runs as the system
    user `pgserver`, made where it is missing, and the folders above the data get the right to be passed
    through (`o+x`). All methods block; call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._postgres = folder / "postgres"
        self._socket = _socket_folder(self._postgres)
        self._users: int | None = None
        self._process = os.getpid()

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._postgres / "server.log"

    @property
    def dsn(self) -> Dsn:
        """The address of the server's socket; it holds no password."""
        return Dsn(make_conninfo(host=str(self._socket), port=_PORT, user="postgres", dbname="postgres"))

    @property
    def is_made(self) -> bool:
        """Whether the folder holds a cluster."""
        return self._postgres.exists()

    def acquire(self) -> None:
        """Makes the cluster where there is none, starts the server where it does not run, and stays a user.

        Raises InsufficientPrivilege where the folder cannot be used, ServerUnreachable where the server
        does not start.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._users = _open_lock_file(self.folder / "users")
                fcntl.flock(self._users, fcntl.LOCK_SH)
                self._initialise()
                self._ensure_running()
        except OSError as error:
            self._leave()
            kind = InsufficientPrivilege if isinstance(error, PermissionError) else DatabaseError
            raise kind(f"the data folder {self.folder} cannot be used: {error}") from error
        except BaseException:
            self._leave()
            raise
        atexit.register(self.release)

    def revive(self) -> None:
        """Starts the server again where it was killed under its users."""
        with self._alone():
            self._ensure_running()

    def release(self) -> None:
        """Stops being a user; the last one stops the server."""
        atexit.unregister(self.release)
        if self._users is None:
            return
        if self._process != os.getpid() or not self.folder.exists():
            self._leave()  # a fork of the user, whose lock it shares, or nothing left to stop
            return
        with self._alone():
            if self._is_last_user():
                self._pg_ctl("stop", "-m", "fast")
                _remove_socket_folder(self._socket, self._postgres)
            self._leave()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = _open_lock_file(self.folder / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _leave(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _is_last_user(self) -> bool:
        assert self._users is not None
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _binaries(self) -> Binaries:
        return find_binaries(self._postgres)

    def _initialise(self) -> None:
        # initdb works beside and is renamed into place: one that was killed leaves no half cluster.
        if self.is_made:
            return
        binaries = self._binaries()
        unfinished = self.folder / "postgres.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        binaries.give(unfinished)
        done = binaries.run("initdb", *_INITDB, "-D", ".", cluster=unfinished)
        if not done.ok:
            raise DatabaseError(f"initdb failed in {unfinished}: {done.output}")
        unfinished.rename(self._postgres)

    def _ensure_running(self) -> None:
        Retrying(
            retry=retry_if_result(lambda running: running is False),
            stop=stop_after_delay(_START_SECONDS),
            wait=wait_fixed(0.1),
            retry_error_callback=self._give_up,
        )(self._start)

    def _start(self) -> bool:
        if self._answers():
            return True
        self._remove_stale_pid_file()
        _make_socket_folder(self._socket, self._postgres, self._binaries())
        # Fails where another start is under way or children of a killed server still end: tried again.
        self._pg_ctl("start", "-l", self.log.name, "-o", f"-p {_PORT} -k {shlex.quote(str(self._socket))}")
        return self._answers()

    def _pg_ctl(self, *arguments: str) -> None:
        # The folder is the current one and named ".": pg_ctl's shell would trip over a quote in its path.
        self._binaries().run(
            "pg_ctl", "-D", ".", "-w", "-t", str(_WAIT_SECONDS), *arguments, cluster=self._postgres
        )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn.conninfo(connect_timeout=10)).close()
        except psycopg.OperationalError:
            return False
        return True

    def _remove_stale_pid_file(self) -> None:
        # After kill -9 of the server its process number may belong to another program by now.
        import psutil

        pid_file = self._postgres / "postmaster.pid"
        try:
            first = pid_file.read_text().partition("\n")[0]
            server = psutil.Process(int(first)).name() == "postgres"
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        if not server:
            pid_file.unlink(missing_ok=True)

    def _give_up(self, _: RetryCallState) -> None:
        tail = self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else "no log was written"
        raise ServerUnreachable(f"the embedded server in {self.folder} does not start; its log ends:\n{tail}")


@asynccontextmanager
async def address(settings: Settings) -> AsyncIterator[Dsn]:
    """The address of the settings' server, which the embedded one, if it is meant, keeps while in use."""
    if settings.dsn is not None:
        yield settings.dsn
        return
    server = await acquire(settings.data)
    try:
        yield server.dsn
    finally:
        await release(server)


async def acquire(folder: Path, *, make: bool = True) -> EmbeddedServer:
    """The server of a folder, running, with this process among its users.

    Unless `make`, raises SchemaNotMigrated for a folder that holds none, and leaves it as it is.
    """
    server = EmbeddedServer(folder)
    if not make and not server.is_made:
        raise SchemaNotMigrated(f"no store is in the data folder {folder}: run `chunkstore migrate`")
    await anyio.to_thread.run_sync(server.acquire)
    return server


async def release(server: EmbeddedServer | None) -> None:
    """Stops using the server, even where the caller was cancelled."""
    if server is not None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.release)


def _socket_folder(postgres: Path) -> Path:
    # A socket's path has a length limit, and Postgres splits it at commas.
    plain = re.fullmatch(r"[A-Za-z0-9_./-]+", str(postgres)) is not None
    if plain and len(str(postgres / f".s.PGSQL.{_PORT}")) <= _SOCKET_PATH_BYTES:
        return postgres
    return _SHORT / f"chunkstore-{hashlib.sha256(os.fsencode(postgres)).hexdigest()[:16]}"


def _make_socket_folder(socket: Path, postgres: Path, binaries: Binaries) -> None:
    if socket == postgres:
        return
    try:
        socket.mkdir(mode=0o700)
        if binaries.account is not None:
            os.chown(socket, binaries.account.pw_uid, binaries.account.pw_gid)
    except FileExistsError:
        pass
    found = socket.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != binaries.owner():
        raise InsufficientPrivilege(f"{socket} belongs to somebody else; the server's socket would go there")


def _remove_socket_folder(socket: Path, postgres: Path) -> None:
    if socket != postgres:
        shutil.rmtree(socket, ignore_errors=True)


def _open_lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
