"""Leases: a consumer's time-limited right to one range of offsets, fenced by an epoch (rules 11 and 22).

A shared group has any number of ranges in flight a partition; an ordered group has one, whose lease is
columns of its checkpoint's row. Keeps invariant 8: who lost a lease changes nothing.
"""

import os
import socket
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
from psycopg import AsyncConnection

from chunkstore import rows
from chunkstore.errors import LeaseLost
from chunkstore.model import ModelId
from chunkstore.statements import load

LEASES = load("leases")


class Lease(msgspec.Struct, frozen=True):
    """The right to the offsets `[lo, hi)` of one partition, while nobody holds a higher epoch."""

    group: str
    partition: int
    lo: int
    hi: int
    epoch: int
    attempts: int

    @property
    def is_single(self) -> bool:
        """Whether the range is of one chunk, so that a failure is that chunk's own."""
        return self.hi - self.lo == 1

    @property
    def is_suspect(self) -> bool:
        """Whether the range is of one chunk that failed before, or killed its consumer."""
        return self.is_single and self.attempts > 0

    @property
    def key(self) -> dict[str, Any]:
        """The parameters that name this lease in statements."""
        return {"group": self.group, "partition": self.partition, "lo": self.lo, "epoch": self.epoch}


class Checkpoint(msgspec.Struct, frozen=True):
    """An ordered group's place in one partition, held under an epoch."""

    group: str
    partition: int
    position: int
    epoch: int

    @property
    def key(self) -> dict[str, Any]:
        """The parameters that name this checkpoint in statements."""
        return {"group": self.group, "partition": self.partition, "epoch": self.epoch}


class _Claimed(msgspec.Struct, frozen=True):
    partition: int
    lo: int
    hi: int
    epoch: int
    attempts: int


class _ClaimedCheckpoint(msgspec.Struct, frozen=True):
    partition: int
    position: int
    epoch: int


def new_owner() -> str:
    """A name for whoever claims ranges: its machine, its process, and a part that is nobody else's."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


def embedding_group(model: ModelId) -> str:
    """The shared group that embeds for a model, one for the whole store."""
    return f"embed:{model}"


def projector_group(model: ModelId) -> str:
    """The ordered group that projects for a model, one for the whole store."""
    return f"project:{model}"


async def create_group(conn: AsyncConnection[Any], group: str) -> None:
    """Makes a group known; where it is new it starts at offset 0."""
    await conn.execute(LEASES.create_group, {"group": group})


# --- shared groups ------------------------------------------------------------------------------


async def claim(
    conn: AsyncConnection[Any], group: str, *, batch: int, seconds: float, owner: str, start: int = 0
) -> Lease | None:
    """Claims a range of at most `batch` chunks for `seconds`; expired and released ranges come first."""
    params = {
        "group": group,
        "batch": batch,
        "lease": timedelta(seconds=seconds),
        "owner": owner,
        "start": start,
    }
    claimed = await rows.fetch_one(conn, LEASES.claim, params, row=_Claimed)
    if claimed is None:
        return None
    return Lease(group, claimed.partition, claimed.lo, claimed.hi, claimed.epoch, claimed.attempts)


async def renew(conn: AsyncConnection[Any], lease: Lease, *, seconds: float) -> None:
    """Extends the lease from now. Raises LeaseLost where it was taken over."""
    await _held(conn, LEASES.renew, lease, {"lease": timedelta(seconds=seconds)})


async def release(conn: AsyncConnection[Any], lease: Lease, *, delay: float = 0.0) -> None:
    """Gives the range back unfinished, claimable after `delay` seconds; counts no attempt."""
    await _held(conn, LEASES.release, lease, {"delay": timedelta(seconds=delay)})


async def halve(conn: AsyncConnection[Any], lease: Lease) -> None:
    """Splits a failed range in two that anybody may claim. Raises LeaseLost."""
    await conn.execute(LEASES.halve, lease.key)


async def count_attempt(conn: AsyncConnection[Any], lease: Lease, *, delay: float) -> None:
    """Counts a failure of a range of one chunk; claimable after `delay` seconds. Raises LeaseLost."""
    await _held(conn, LEASES.count_attempt, lease, {"delay": timedelta(seconds=delay)})


async def is_idle(conn: AsyncConnection[Any], group: str) -> bool:
    """Whether nothing of a shared group is in flight and no chunk waits for a claim."""
    return await rows.fetch_value(conn, LEASES.idle, {"group": group})


async def _held(conn: AsyncConnection[Any], statement: bytes, lease: Lease, params: dict[str, Any]) -> None:
    if await rows.fetch_value(conn, statement, lease.key | params) is None:
        raise LeaseLost(f"range {lease.lo} of partition {lease.partition} was taken over by another consumer")


# --- ordered groups -----------------------------------------------------------------------------


async def partitions_behind(conn: AsyncConnection[Any], group: str) -> list[int]:
    """The partitions where an ordered group has something to read and nobody reads it; a hint."""
    return await rows.fetch_values(conn, LEASES.partitions_behind, {"group": group})


async def claim_checkpoint(
    conn: AsyncConnection[Any], group: str, partition: int, *, seconds: float, owner: str
) -> Checkpoint | None:
    """Claims the group's checkpoint in a partition, or None where somebody holds it."""
    params = {"group": group, "partition": partition, "owner": owner, "lease": timedelta(seconds=seconds)}
    claimed = await rows.fetch_one(conn, LEASES.claim_checkpoint, params, row=_ClaimedCheckpoint)
    return None if claimed is None else Checkpoint(group, partition, claimed.position, claimed.epoch)


async def renew_checkpoint(conn: AsyncConnection[Any], checkpoint: Checkpoint, *, seconds: float) -> None:
    """Extends the checkpoint's lease from now. Raises LeaseLost where it was taken over."""
    await _held_checkpoint(conn, LEASES.renew_checkpoint, checkpoint, {"lease": timedelta(seconds=seconds)})


async def release_checkpoint(conn: AsyncConnection[Any], checkpoint: Checkpoint, *, position: int) -> None:
    """Moves the checkpoint to `position` and gives its lease back. Raises LeaseLost."""
    await _held_checkpoint(conn, LEASES.release_checkpoint, checkpoint, {"position": position})


async def is_ordered_idle(conn: AsyncConnection[Any], group: str) -> bool:
    """Whether an ordered group has read every partition to its head."""
    return await rows.fetch_value(conn, LEASES.ordered_idle, {"group": group})


async def _held_checkpoint(
    conn: AsyncConnection[Any], statement: bytes, checkpoint: Checkpoint, params: dict[str, Any]
) -> None:
    if await rows.fetch_value(conn, statement, checkpoint.key | params) is None:
        raise LeaseLost(
            f"the checkpoint of partition {checkpoint.partition} was taken over by another projector"
        )
