"""Erases a file: content, key, metadata and vectors leave every table in one transaction (rules 3, 6, 20).

Keeps invariant 11. WAL and backups hold copies until they are recycled; nothing here can reach those.
"""

from typing import Any

from psycopg import AsyncConnection

from chunkstore import rows
from chunkstore.errors import UnknownFile
from chunkstore.model import CollectionId, FileId
from chunkstore.statements import load

ERASE = load("erase")


async def erase(conn: AsyncConnection[Any], collection: CollectionId, key: str) -> FileId:
    """Erases the file of the key; returns its number, which alone stays. Raises UnknownFile."""
    file = await rows.fetch_value(conn, ERASE.erase_file, {"collection": collection, "key": key})
    if file is None:
        raise UnknownFile(f"key: no file {key!r} in this collection, or it was erased already")
    return file
