"""The environments that child processes get: this process's own, without the secrets in it.

A server outlives the process that started it, and one that parses a hostile file may be taken over: neither
needs the database's password or a model provider's key.
"""

import os
import re

_OURS = ("CHUNKSTORE_", "OPENAI_", "PG")
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?|DSN|DATABASE_URL)(_|$)", re.IGNORECASE)


def of_parsers() -> dict[str, str]:
    """The environment without what this system takes from it; a parser of the user's may want the rest."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def of_servers() -> dict[str, str]:
    """The same, and without any variable whose name says that it holds a secret."""
    return {name: value for name, value in of_parsers().items() if not _SECRET.search(name)}
