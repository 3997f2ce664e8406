"""What every benchmark shares: a server of its own, runs in turn with a peer, medians, one table at the end.

A number stands beside its target only as a ratio of two things that ran interleaved on the same server.
"""

import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self
from uuid import uuid4

import msgspec
import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from chunkstore import ChunkStore
from chunkstore.embedded import acquire, release


class Target(msgspec.Struct, frozen=True):
    """What the design asks of a ratio."""

    relation: Literal["≥", "≤"]
    ratio: float

    def met_by(self, ratio: float) -> bool:
        return ratio >= self.ratio if self.relation == "≥" else ratio <= self.ratio

    def __str__(self) -> str:
        return f"{self.relation} {self.ratio:g} ×"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `ours` and `peer` are medians in seconds; no ratio where there is no peer."""

    work: str
    ours: float = 0.0
    against: str = ""
    peer: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    """The least and the greatest ratio of the rounds."""
    target: Target | None = None
    note: str = ""


class Setup(msgspec.Struct, frozen=True):
    """The server that a benchmark runs on, and whether it is to be quick."""

    dsn: str
    quick: bool

    @asynccontextmanager
    async def store(self) -> AsyncIterator[ChunkStore]:
        """A store in a fresh schema, dropped at the end."""
        schema = f"bench_{uuid4().hex[:12]}"
        async with await ChunkStore.open(self.dsn, schema=schema, migrate=True) as store:
            yield store
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute("SET client_min_messages = error")
            conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))

    def peer(self) -> psycopg.Connection[Any]:
        """A connection for a peer, in an empty schema of its own."""
        conn = psycopg.connect(self.dsn, autocommit=True)
        conn.execute("SET client_min_messages = error")
        conn.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        conn.execute("DROP SCHEMA IF EXISTS peer CASCADE; CREATE SCHEMA peer; SET search_path = peer, public")
        return conn

    def rounds(self, full: int) -> int:
        return 3 if self.quick else full


Timed = Callable[[int], Awaitable[float]]


class Stopwatch:
    """Seconds between the start and the end of a `with`."""

    def __enter__(self) -> Self:
        self.seconds = 0.0
        self._start = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = perf_counter() - self._start


@asynccontextmanager
async def setup(*, quick: bool, dsn: str | None = None) -> AsyncIterator[Setup]:
    """A Setup on that server, else on an embedded one in a folder that is removed at the end."""
    if dsn is not None:
        yield Setup(dsn, quick)
        return
    with tempfile.TemporaryDirectory(prefix="chunkstore-bench-") as folder:
        server = await acquire(Path(folder))
        try:
            yield Setup(server.dsn.conninfo(), quick)
        finally:
            await release(server)


async def against(
    work: str,
    ours: Timed,
    peer: Timed,
    *,
    name: str,
    rounds: int,
    target: Target | None = None,
    per: int | None = None,
) -> Result:
    """Runs both by turns, one warm-up round first, and takes the median of the rounds' ratios.

    The ratio is of speeds for a target of at least, of times for one of at most. Each function returns the
    seconds that count, for the round that it is given. `per` is how many chunks a round handles.
    """
    times: list[tuple[float, float]] = []
    for turn in range(rounds + 1):
        if turn % 2:
            mine, theirs = await ours(turn), await peer(turn)
        else:
            theirs, mine = await peer(turn), await ours(turn)
        times.append((mine, theirs))
    del times[0]
    at_most = target is not None and target.relation == "≤"
    ratios = [mine / theirs if at_most else theirs / mine for mine, theirs in times]
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    note = f"{per / own:,.0f} a second against {per / other:,.0f}" if per else ""
    return Result(
        work=work,
        ours=own,
        against=name,
        peer=other,
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        target=target,
        note=note,
    )


def show(results: list[Result]) -> None:
    """Prints the table."""
    table = Table(title="chunkstore against peers: medians of runs by turns on this machine")
    for heading in ("work", "ours", "against", "peer", "ratio", "spread", "target", "", "note"):
        right = heading in ("ours", "peer", "ratio", "target")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in results:
        met = None if row.target is None or row.ratio is None else row.target.met_by(row.ratio)
        table.add_row(
            row.work,
            duration(row.ours) if row.ours else "",
            row.against,
            "" if row.peer is None else duration(row.peer),
            "" if row.ratio is None else f"{row.ratio:.2f} ×",
            "" if row.spread is None else f"{row.spread[0]:.2f} … {row.spread[1]:.2f}",
            "" if row.target is None else str(row.target),
            {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}[met],
            row.note,
        )
    Console(width=190).print(table)


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"
