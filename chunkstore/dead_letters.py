"""Dead letters of the whole store, found by collection, model, state and chunk, with where they stand.

What is done about one is in `chunkstore.embeddings`: `retry` and `discard`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from chunkstore import rows
from chunkstore.database import Database
from chunkstore.errors import UnknownDeadLetter
from chunkstore.model import ChunkId, Metadata
from chunkstore.statements import load

DEAD_LETTERS = load("dead_letters")

State = Literal["open", "discarded"]


class FoundDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk that a consumer gave up on; `version` and `ordinal` where a kept version names it."""

    chunk_id: ChunkId
    collection: str
    key: str
    version: int | None
    ordinal: int | None
    model: str
    state: State
    attempts: int
    error: str
    failed_at: datetime


class Content(msgspec.Struct, frozen=True):
    """The chunk that a dead letter is about."""

    content: str
    metadata: Metadata


async def find(
    database: Database,
    *,
    collection: str | None = None,
    model: str | None = None,
    state: State | None = None,
    chunks: Sequence[ChunkId] | None = None,
) -> list[FoundDeadLetter]:
    """The dead letters that fit all that is given, oldest first.

    Raises UnknownDeadLetter where one of `chunks` has none that fits.
    """
    params = {
        "collection": collection,
        "model": model,
        "state": state,
        "chunks": None if chunks is None else list(chunks),
    }
    async with database.transaction() as conn:
        found = await rows.fetch_all(conn, DEAD_LETTERS.find, params, row=FoundDeadLetter)
    missing = sorted(set(chunks or ()) - {letter.chunk_id for letter in found})
    if missing:
        raise UnknownDeadLetter(
            f"chunk_id: no dead letter is kept for {', '.join(map(str, missing))};"
            " `chunkstore dead-letters list` shows those that are"
        )
    return found


async def content(database: Database, chunk: ChunkId) -> Content | None:
    """The chunk's text and metadata; None where it was erased or collected meanwhile."""
    async with database.transaction() as conn:
        return await rows.fetch_one(conn, DEAD_LETTERS.content, {"chunk": chunk}, row=Content)
