"""Active versions: complete? then switch, and clear away what the switch superseded (rules 15 to 18).

Keeps invariants 6 and 7: the switch is one transaction under the file's lock, to the target as it is then.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from chunkstore import leases, rows
from chunkstore.arrays import Bigints
from chunkstore.database import BY_INDEX, Database
from chunkstore.events import ChunksEmbedded
from chunkstore.leases import Checkpoint
from chunkstore.model import ChunkId, FileId, ModelId
from chunkstore.statements import load

PROJECTIONS = load("projections")

CHECKPOINT_SECONDS = 60.0
"""How long a checkpoint is leased; renewed by each transaction that switches."""

# Files switched in one transaction, search rows staged or removed in one.
_FILES = 64
_ROWS = 1000

Outcome = Literal["active", "waiting", "stage", "none"]


class _Switched(msgspec.Struct, frozen=True):
    file: FileId
    outcome: Outcome


class _Idle(msgspec.Struct, frozen=True):
    file: FileId
    chunks: list[ChunkId]


async def activate(
    database: Database, checkpoint: Checkpoint, model: ModelId, files: Sequence[FileId]
) -> int:
    """Switches every file whose target is complete; returns how many. Raises LeaseLost."""
    switched = 0
    for start in range(0, len(files), _FILES):
        outcomes = await _activate(database, checkpoint, model, files[start : start + _FILES])
        # Again where the staged rows are gone already: a rebuild's swap came between.
        while unstaged := [row.file for row in outcomes if row.outcome == "stage"]:
            switched += sum(row.outcome == "active" for row in outcomes)
            for file in unstaged:
                await _stage(database, checkpoint, model, file)
            outcomes = await _activate(database, checkpoint, model, unstaged)
        switched += sum(row.outcome == "active" for row in outcomes)
    return switched


async def _activate(
    database: Database, checkpoint: Checkpoint, model: ModelId, files: Sequence[FileId]
) -> list[_Switched]:
    params = checkpoint.key | {"model": model, "files": list(files)}
    async with database.transaction(BY_INDEX) as conn:
        await leases.renew_checkpoint(conn, checkpoint, seconds=CHECKPOINT_SECONDS)
        return await rows.fetch_all(conn, PROJECTIONS.activate, params, row=_Switched)


async def _stage(database: Database, checkpoint: Checkpoint, model: ModelId, file: FileId) -> None:
    """Stages missing search rows in batches, so that the switch has none to insert (rule 17)."""
    params = checkpoint.key | {"model": model, "file": file, "limit": _ROWS}
    first: int | None = 1
    while first is not None:
        async with database.transaction(BY_INDEX) as conn:
            await leases.renew_checkpoint(conn, checkpoint, seconds=CHECKPOINT_SECONDS)
            first = await rows.fetch_value(conn, PROJECTIONS.stage_target, params | {"first": first})


async def clear_left_behind(
    database: Database, model: ModelId, file: FileId, previous: int | None, active: int
) -> int:
    """Removes the search rows that a switch superseded, in batches; returns how many."""
    params = {"file": file, "previous": previous or 0, "active": active}
    async with database.transaction(BY_INDEX) as conn:
        left = await rows.fetch_value(conn, PROJECTIONS.left_behind, params)
    return await _remove(database, model, file, left)


async def clear_born_superseded(database: Database, model: ModelId, file: FileId, version: int) -> int:
    """Removes the search rows of a version that never became the target; returns how many."""
    params = {"file": file, "version": version}
    async with database.transaction(BY_INDEX) as conn:
        left = await rows.fetch_value(conn, PROJECTIONS.born_superseded, params)
    return await _remove(database, model, file, left)


async def clear_idle(database: Database, model: ModelId, embedded: Sequence[ChunksEmbedded]) -> int:
    """Removes search rows of chunks that were superseded while they were embedded; returns how many."""
    if not embedded:
        return 0
    params = {
        "model": model,
        "files": sorted({file for event in embedded for file in event.files}),
        "chunks": Bigints([chunk for event in embedded for chunk in event.chunks]),
    }
    async with database.transaction(BY_INDEX) as conn:
        idle = await rows.fetch_all(conn, PROJECTIONS.idle_chunks, params, row=_Idle)
    removed = 0
    for row in idle:
        removed += await _remove(database, model, row.file, row.chunks)
    return removed


async def _remove(database: Database, model: ModelId, file: FileId, chunks: Sequence[ChunkId]) -> int:
    removed = 0
    for start in range(0, len(chunks), _ROWS):
        params = {"model": model, "file": file, "chunks": list(chunks[start : start + _ROWS])}
        async with database.transaction(BY_INDEX) as conn:
            removed += await rows.fetch_value(conn, PROJECTIONS.remove_superseded, params)
    return removed
