"""Checks every invariant of the design that data can show, on a live store.

All checks read one snapshot, so that they agree with each other while writers go on; nothing is changed.
Invariant 12 (no constraint is ever violated) shows in the server's log alone.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import AsyncConnection, sql

from chunkstore import rows
from chunkstore.errors import DatabaseError
from chunkstore.model import CollectionId, ModelId
from chunkstore.statements import load
from chunkstore.store import ChunkStore

VERIFY = load("verify")

SHOWN = 20
"""Most offending rows that a check shows; it counts them all."""

_TRIES = 5


class Violation(msgspec.Struct, frozen=True):
    """One offending row, as JSON text."""

    row: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found."""

    invariant: int
    name: str
    description: str
    count: int
    """How many rows it found."""
    violations: list[Violation]
    """The first of them."""
    pending: bool = False
    """The rows break nothing: a collector or projector will clear them away."""
    skipped: str | None = None
    """What was not checked, and why."""

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return self.pending or self.count == 0


class VerifyReport(msgspec.Struct, frozen=True):
    """Every check, by invariant."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether no invariant is broken."""
        return all(check.ok for check in self.checks)

    @property
    def broken(self) -> list[Check]:
        """The checks that found an invariant broken."""
        return [check for check in self.checks if not check.ok]


class _Spec(msgspec.Struct, frozen=True):
    """A statement of `verify.sql` that returns what breaks an invariant; its comment describes it."""

    invariant: int
    name: str
    tables: bool = False
    """Run once for the tables of every (collection, model)."""
    rebuilds: bool = False
    """Run for the tables of running rebuilds, too."""
    drained: bool = False
    """True of a drained store only: asked of the models that have nothing left to do."""
    replay: bool = False
    """Replays the log, or compares every vector."""
    pending: bool = False


CHECKS: tuple[_Spec, ...] = (
    _Spec(1, "dense_offsets"),
    _Spec(1, "event_shapes"),
    _Spec(1, "event_partitions"),
    _Spec(2, "immutability"),
    _Spec(3, "manifest_segments"),
    _Spec(3, "manifest_arrays"),
    _Spec(3, "manifest_lengths"),
    _Spec(3, "segment_arrays"),
    _Spec(3, "manifest_chunks"),
    _Spec(3, "latest_versions"),
    _Spec(3, "chunks_once"),
    _Spec(4, "embeddings_of_chunks"),
    _Spec(4, "embeddings_once"),
    _Spec(4, "embedding_shapes"),
    _Spec(4, "dead_letters_of_chunks"),
    _Spec(4, "search_rows", tables=True, rebuilds=True),
    _Spec(4, "active_rows", tables=True, rebuilds=True),
    _Spec(5, "needed_chunks", drained=True),
    _Spec(5, "groups"),
    _Spec(6, "active_manifests", tables=True),
    _Spec(6, "active_searchable", tables=True),
    _Spec(6, "active_complete", tables=True),
    _Spec(6, "search_tables"),
    _Spec(7, "activations", replay=True),
    _Spec(8, "lease_ranges"),
    _Spec(8, "leases_in_reach"),
    _Spec(8, "done_marks"),
    _Spec(9, "kept_versions"),
    _Spec(9, "removals"),
    _Spec(9, "orphan_chunks"),
    _Spec(9, "orphan_segments"),
    _Spec(9, "to_collect", pending=True),
    _Spec(9, "superseded_search_rows", tables=True, pending=True),
    _Spec(10, "replay", replay=True),
    _Spec(10, "search_vectors", tables=True, rebuilds=True, replay=True),
    _Spec(10, "invalid_indexes", pending=True),
    _Spec(11, "erased_files"),
    _Spec(11, "erased_members", tables=True, rebuilds=True),
    _Spec(11, "erasures"),
    _Spec(11, "no_samples"),
    _Spec(11, "vector_tables"),
    _Spec(13, "active_targets", drained=True),
)


class _Tables(msgspec.Struct, frozen=True):
    collection: CollectionId
    model: ModelId
    search_table: str
    active_table: str
    rebuild: bool
    exist: bool


class _WorkLeft(msgspec.Struct, frozen=True):
    collection: CollectionId
    model: ModelId
    collection_name: str
    model_name: str
    left: bool


class _Offending(msgspec.Struct, frozen=True):
    count: int
    row: str


async def verify(store: ChunkStore, *, replay: bool = True) -> VerifyReport:
    """Checks the store as it is at one moment; without `replay`, not against the log's activations.

    Cost follows the store's size. Writers and searches go on; a rebuild's swap gives way until it is done.
    Raises DatabaseError where search tables were swapped under every try.
    """
    for _ in range(_TRIES):
        async with store.database.transaction() as conn:
            tables = await _tables(conn)
        async with store.database.snapshot() as conn:
            if await _locked(conn, tables) and await _tables(conn) == tables:
                return await check(conn, replay=replay)
            await conn.rollback()
    raise DatabaseError(f"search tables were swapped under each of {_TRIES} tries to verify them; try again")


async def check(conn: AsyncConnection[Any], *, replay: bool = True) -> VerifyReport:
    """Checks the store as the connection's transaction sees it, its own changes included."""
    work = await rows.fetch_all(conn, VERIFY.work_left, row=_WorkLeft)
    run = _Run(conn, [pair for pair in await _tables(conn) if pair.exist], work, replay=replay)
    return VerifyReport([await run.check(spec) for spec in CHECKS])


async def _locked(conn: AsyncConnection[Any], tables: Sequence[_Tables]) -> bool:
    """Locks the tables before the snapshot is taken; False where one of them is gone."""
    try:
        for pair in tables:
            if pair.exist:
                both = {"search": pair.search_table, "active": pair.active_table}
                await conn.execute(VERIFY.with_tables("lock_tables", **both))
    except psycopg.errors.UndefinedTable:
        return False
    return True


async def _tables(conn: AsyncConnection[Any]) -> list[_Tables]:
    return await rows.fetch_all(conn, VERIFY.tables, row=_Tables)


class _Run:
    def __init__(
        self,
        conn: AsyncConnection[Any],
        tables: Sequence[_Tables],
        work: Sequence[_WorkLeft],
        *,
        replay: bool,
    ) -> None:
        self._conn = conn
        self._tables = tables
        self._replay = replay
        self._busy = [f"{row.collection_name} ({row.model_name})" for row in work if row.left]
        drained = [row for row in work if not row.left]
        self._drained = {
            "drained_collections": [row.collection for row in drained],
            "drained_models": [row.model for row in drained],
        }

    async def check(self, spec: _Spec) -> Check:
        if spec.replay and not self._replay:
            return _outcome(spec, [], skipped="without replay")
        if spec.tables:
            return _outcome(spec, [await self._of_tables(spec, pair) for pair in self._tables])
        found = await self._offending(sql.SQL(VERIFY.text(spec.name)), self._drained)
        skipped = f"not drained: {', '.join(self._busy)}" if spec.drained and self._busy else None
        return _outcome(spec, [found], skipped=skipped)

    async def _of_tables(self, spec: _Spec, pair: _Tables) -> list[_Offending]:
        if pair.rebuild and not spec.rebuilds:
            return []
        statement = VERIFY.with_tables(spec.name, search=pair.search_table, active=pair.active_table)
        return await self._offending(statement, msgspec.structs.asdict(pair))

    async def _offending(self, check: sql.Composable, params: dict[str, Any]) -> list[_Offending]:
        statement = VERIFY.composed("offending", check=check)
        return await rows.fetch_all(self._conn, statement, params | {"limit": SHOWN}, row=_Offending)


def _outcome(spec: _Spec, found: Sequence[list[_Offending]], *, skipped: str | None = None) -> Check:
    return Check(
        invariant=spec.invariant,
        name=spec.name,
        description=_description(spec.name),
        count=sum(offending[0].count for offending in found if offending),
        violations=[Violation(row.row) for offending in found for row in offending][:SHOWN],
        pending=spec.pending,
        skipped=skipped,
    )


def _description(name: str) -> str:
    """The first line of the comment that stands over a statement."""
    return VERIFY.text(name).partition("\n")[0].removeprefix("--").strip()
