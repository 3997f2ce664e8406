"""Chooses the number of partitions of a store that holds nothing yet."""

from chunkstore import rows
from chunkstore.database import Database
from chunkstore.errors import Conflict, DatabaseError, InvalidInput
from chunkstore.log import LOG

_MOST = 1_024
_IN_USE = "55006"


def checked_partitions(count: int) -> int:
    """The number as it is. Raises InvalidInput unless a log can have so many."""
    if not 1 <= count <= _MOST:
        raise InvalidInput("partitions", count, f"an integer from 1 to {_MOST}")
    return count


async def set_partitions(database: Database, count: int) -> None:
    """Makes the log have `count` partitions. Raises Conflict where it has others and is in use."""
    try:
        async with database.transaction() as conn:
            if await rows.fetch_value(conn, LOG.partitions) != count:
                await conn.execute(LOG.set_partitions, {"count": count})
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) == _IN_USE:
            raise Conflict(f"partitions: {count} cannot be had: {error}") from error
        raise
