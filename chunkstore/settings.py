"""Where a store is, and every limit of the system in one place.

Of the three settings an argument beats the environment (`CHUNKSTORE_DSN`, `CHUNKSTORE_SCHEMA`,
`CHUNKSTORE_DATA`), and the environment beats the default. There is no fourth place.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
import platformdirs

from chunkstore.dsn import Dsn
from chunkstore.errors import InvalidInput

MAX_KEY_BYTES: Final = 1_024
MAX_IDEMPOTENCY_KEY_BYTES: Final = 255
MAX_CONTENT_BYTES: Final = 1_048_576
MAX_METADATA_BYTES: Final = 65_536
MAX_METADATA_DEPTH: Final = 32
MAX_SCHEMA_BYTES: Final = 63
MAX_K: Final = 10_000

EVENT_CHUNKS: Final = 1_024
"""Most chunks that one event of the log names."""
SEGMENT_MIN: Final = 500
"""Chunks after which a segment of a manifest may end."""
SEGMENT_MAX: Final = 2_000
"""Chunks at which a segment ends in any case."""
OPEN_VERSION_DEADLINE: Final = 600.0
"""Seconds after its last batch until an open version may be abandoned."""
KEEP_LAST: Final = 3
"""Versions of a file that are kept unless its collection says otherwise."""
MAX_KEEP_LAST: Final = 2**31 - 1
MAX_KEEP_FOR_DAYS: Final = 36_500


class Settings(msgspec.Struct, frozen=True):
    """Where the store is: a server (`dsn`) or, where that is None, the embedded one in the folder `data`."""

    dsn: Dsn | None
    schema: str
    data: Path


def read(
    dsn: str | None = None,
    *,
    schema: str | None = None,
    data: Path | str | None = None,
) -> Settings:
    """The settings that hold: each argument, where it is None its environment variable, else the default.

    `data` names the embedded server, so as an argument it also beats `CHUNKSTORE_DSN`. Raises InvalidInput
    where both `dsn` and `data` are given, the DSN is malformed, or Postgres cannot hold the schema's name.
    """
    if dsn is not None and data is not None:
        raise InvalidInput("data", str(data), "give a DSN or a data folder, not both")
    if dsn is None and data is None:
        dsn = os.environ.get("CHUNKSTORE_DSN") or None
    return Settings(
        dsn=None if dsn is None else Dsn(dsn),
        schema=_schema(schema if schema is not None else os.environ.get("CHUNKSTORE_SCHEMA") or "chunkstore"),
        data=_folder(data if data is not None else os.environ.get("CHUNKSTORE_DATA") or None),
    )


def _folder(data: Path | str | None) -> Path:
    if data is None:
        return platformdirs.user_data_path("chunkstore", appauthor=False)
    if data == "":
        raise InvalidInput("data", data, "the path of a folder; . is the current one")
    return Path(data).expanduser().resolve()


def _schema(name: str) -> str:
    allowed = f"1 to {MAX_SCHEMA_BYTES} bytes, without NUL, not beginning with pg_, not information_schema"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidInput("schema", name, allowed) from None
    reserved = name.startswith("pg_") or name == "information_schema"
    if not 1 <= size <= MAX_SCHEMA_BYTES or "\0" in name or reserved:
        raise InvalidInput("schema", name, allowed)
    return name
