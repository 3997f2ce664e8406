"""A store under siege: every kind of process works on it while a fault goes on, and searches are checked.

After the fault everybody must get on with new work within a time, by himself; then nothing may be lost,
doubled, or broken.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic

import anyio
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import ALL_ACTIVE, TOLD_TWICE, eventually, until, value, values
from tests.faults.fix_processes import Fleet
from tests.faults.models import MODEL
from tests.faults.processes import COLLECTION, FEW_KEYS
from tests.faults.proxy import Proxy, proxying
from tests.faults.searching import Checker, read_back
from tests.faults.stamped import KEYS, chunks_of

WORKER = "worker"
"""The role of the processes, which faults can be aimed at."""

NOTICED_SECONDS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 1500,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
}
"""What the processes' DSN says, so that a network that is gone is noticed sooner than by default."""

PEACE_SECONDS = 30


async def all_whole_and_active(store: ChunkStore, collection: Collection, keys: Sequence[str] = KEYS) -> None:
    """Gives the readers a first version of every file to see."""
    for key in keys:
        await collection.append(key, chunks_of(key, "first"))
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)


async def nothing_is_broken(store: ChunkStore) -> None:
    """Drains what the processes left, and verifies every invariant, those of a drained store too."""
    with anyio.fail_after(PEACE_SECONDS):
        while await _skipped(store):
            pass  # a collector that runs beside has written to the log since
    assert await value(store, TOLD_TWICE) == 0


async def _skipped(store: ChunkStore) -> list[str]:
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)
    report = await verify(store)
    assert report.broken == []
    return [check.name for check in report.checks if check.skipped]


def violations(log: str) -> list[str]:
    """The lines of a server's log that tell of a violated constraint."""
    return [line for line in log.splitlines() if "violates" in line or "duplicate key" in line]


class Siege:
    """The processes of a store, which reach its server through a proxy, and the test's direct way to it."""

    def __init__(self, fleet: Fleet, store: ChunkStore, proxy: Proxy, server: EmbeddedServer) -> None:
        self.fleet = fleet
        self.store = store
        self.proxy = proxy
        self.dsn = server.dsn.conninfo()
        self.schema = fleet.where.schema
        self.ended = 0

    async def withstands(
        self, fault: AbstractAsyncContextManager[object], *, lasts: float, within: float
    ) -> float:
        """How many seconds it took until everybody had done new work after the fault.

        Fails where that is more than `within`, or anything else went wrong.
        """
        self.fleet.resume()
        await self._everybody_works(PEACE_SECONDS)
        async with fault:
            await anyio.sleep(lasts)  # how long the fault goes on, not a wait for something
        self.ended += self.fleet.resume()  # as a supervisor does
        took = await self._everybody_works(within)
        await self.fleet.stop("upload-few")
        await self.fleet.stop("upload-few-streamed")
        await until(self.store, ALL_ACTIVE)
        await nothing_is_broken(self.store)
        assert self.found.faults == []
        assert violations(self.fleet.log) == []
        return took

    @property
    def found(self) -> Checker:
        """What the searching process found so far."""
        return read_back(self.fleet.where.folder / "search-1.searches")

    async def _everybody_works(self, within: float) -> float:
        """Waits until every file is active in a version that is newer than any at the call, and more is new.

        So everybody who appends, embeds, projects, collects and searches has done something since.
        """
        begun = monotonic()
        (latest,) = await values(self.store, "SELECT array_agg((file, last_version)::text) FROM files")
        pairs = ", ".join(latest)
        collected = await value(self.store, _COLLECTED)
        searches = self.found.searches
        all_newer = f"""
        SELECT bool_and(a.version > seen.version)
        FROM (VALUES {pairs}) AS seen (file, version)
        JOIN active_versions AS a USING (file)
        """
        await until(self.store, all_newer, seconds=within)
        await until(self.store, f"SELECT ({_COLLECTED}) > {collected}", seconds=begun + within - monotonic())

        async def searched() -> bool:
            return self.found.searches != searches

        await eventually(searched, "somebody searched", seconds=begun + within - monotonic())
        return monotonic() - begun


_COLLECTED = "SELECT count(*) FROM events WHERE type = 'version_collected'"


@asynccontextmanager
async def besieging(fleet: Fleet) -> AsyncIterator[Siege]:
    """A siege of the fleet's embedded server, whose processes run when the block begins."""
    async with await fleet.where.open(migrate=True) as store:
        server = EmbeddedServer(fleet.where.data)
        with psycopg.connect(server.dsn.conninfo(), autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {WORKER} SUPERUSER LOGIN")
        collection = await store.collection(COLLECTION, model=MODEL, keep_last=2)
        await all_whole_and_active(store, collection, FEW_KEYS)
        address = conninfo_to_dict(server.dsn.conninfo())
        async with proxying(f"{address['host']}/.s.PGSQL.{address['port']}") as proxy:
            fleet.where = fleet.where._replace(dsn=make_conninfo(proxy.dsn, user=WORKER, **NOTICED_SECONDS))
            for role, count in _ROLES.items():
                fleet.start(role, count)
            yield Siege(fleet, store, proxy, server)
            await fleet.stop()


_ROLES = {"upload-few": 1, "upload-few-streamed": 1, "consume": 2, "project": 1, "collect": 1, "search": 1}
