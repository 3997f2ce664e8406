"""Connection strings, and the promise that the password in one reaches no log, no error and no repr.

libpq quotes parts of a malformed string in its errors, a password among them. So a string is parsed here,
what could be misread is refused without showing it, and only the parts that are safe to show are shown.
"""

import os
import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chunkstore.errors import InvalidInput

_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_ALLOWED = (
    "postgresql://user:password@host:port/database with anything but letters, digits and -._~ in its parts "
    "percent-encoded, or host=… user=… password='…' dbname=…"
)
_DEFAULTS = {
    "fallback_application_name": "chunkstore",
    "client_encoding": "UTF8",
    # A network that is gone is noticed within half a minute, also by who only waits for an answer.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class Dsn:
    """A connection string that shows its password to nobody but `conninfo`'s caller.

    Raises InvalidInput, without the string in it, for one that cannot be parsed in exactly one way.
    """

    __slots__ = ("_parameters",)

    def __init__(self, text: str) -> None:
        self._parameters: dict[str, str] = {}  # a traceback with its locals shows an object half made, too
        parameters = _parse(text)
        if parameters is None or not _is_unambiguous(text, parameters):
            raise InvalidInput("dsn", "***", _ALLOWED)
        self._parameters = parameters

    def conninfo(self, **defaults: str | int) -> str:
        """The string to connect with, password included; `defaults` hold where the DSN says nothing."""
        return make_conninfo("", **{**_DEFAULTS, **defaults, **self._parameters})

    @property
    def user(self) -> str:
        """The role that it logs in as, as far as the string and the environment say."""
        return self._shown("user", "PGUSER", "the system's user")

    @property
    def database(self) -> str:
        """The database that it names."""
        return self._shown("dbname", "PGDATABASE", self.user)

    @property
    def server(self) -> str:
        """The server's address, `host:port`."""
        host = self._shown("host", "PGHOST", self._parameters.get("hostaddr") or "local socket")
        return f"{host}:{self._shown('port', 'PGPORT', '5432')}"

    def scrubbed(self, text: str) -> str:
        """The text without the DSN's secrets."""
        for secret in self._secrets():
            text = text.replace(secret, "•••")
        return text

    def is_shown_in(self, text: str) -> bool:
        """Whether the text holds a secret of the DSN."""
        return any(secret in text for secret in self._secrets())

    def __repr__(self) -> str:
        return f"Dsn({self.user}@{self.server}/{self.database})"

    def _shown(self, name: str, variable: str, default: str) -> str:
        return self._parameters.get(name) or os.environ.get(variable) or default

    def _secrets(self) -> list[str]:
        return [secret for name in _SECRETS if (secret := self._parameters.get(name))]


def _parse(text: str) -> dict[str, str] | None:
    # The parser's error quotes the string: it must not live on as the context of ours.
    try:
        return {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except (psycopg.Error, UnicodeError, ValueError):
        return None


def _is_unambiguous(text: str, parameters: dict[str, str]) -> bool:
    if "\0" in text or re.fullmatch(r"\d*(,\d*)*", parameters.get("port", "")) is None:
        return False
    if re.match(r"postgres(ql)?://", text) is None:
        return True
    # An unencoded @ or / in a password moves the rest of it into the host or the database's name.
    authority, _, rest = text.partition("://")[2].partition("/")
    return authority.count("@") <= 1 and "@" not in rest
