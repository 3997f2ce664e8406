"""A file of a million small chunks: appended, embedded, activated; then one chunk changed, activated again.

The index over the vectors is held back, as it is during a bulk load; searches are exact meanwhile.
"""

import resource
import sys
from collections.abc import Iterator
from time import perf_counter

import anyio
import psycopg

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch
from benchmarks.pipeline import without_indexes
from chunkstore import Chunk, ChunkStore
from chunkstore.collection import Collection
from chunkstore.model import Version
from chunkstore.models import Model, open_model
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector

_SIZE = 60
_MODEL = "hashing:64"
_STATISTICS_SECONDS = 11.0


async def main(setup: Setup) -> list[Result]:
    """The time of each step, the process's peak memory by then, and the rows that the second switch wrote."""
    count = 50_000 if setup.quick else 1_000_000
    async with setup.store() as store:
        model = open_model(_MODEL)
        collection = await store.collection("bench", model=model)
        run = _Run(setup, store, collection, model)
        run.step(f"a file of {count:,} chunks: the store open", 0.0)
        async with without_indexes(store) as hold:
            await hold(collection)
            await run.ingest("", _chunks(count, changed=None))
            await run.ingest("one chunk changed: ", _chunks(count, changed=count // 2))
        with Stopwatch() as watch:
            hits = await collection.search(f"{count // 2} changed", k=10)
        assert hits.exact
        assert hits[0].content == f"{count // 2} changed"
        run.step("search without an index, top 10", watch.seconds)
        return run.steps


def _chunks(count: int, *, changed: int | None) -> Iterator[Chunk]:
    for i, chunk in enumerate(material.stream(count, size=_SIZE)):
        yield chunk if i != changed else Chunk(f"{i} changed", place=chunk.place)


class _Run:
    def __init__(self, setup: Setup, store: ChunkStore, collection: Collection, model: Model) -> None:
        self._setup = setup
        self._store = store
        self._collection = collection
        self._model = model
        self.steps: list[Result] = []

    def step(self, work: str, seconds: float, note: str = "") -> None:
        memory = f"peak {_peak_mebibytes():,} MiB"
        self.steps.append(Result(work=work, ours=seconds, note=f"{memory}; {note}" if note else memory))

    async def ingest(self, name: str, chunks: Iterator[Chunk]) -> None:
        with Stopwatch() as watch:
            version = await self._collection.append("file", chunks)
        self.step(
            f"{name}append", watch.seconds, f"{version.added:,} chunks added, {version.reused:,} reused"
        )
        with Stopwatch() as watch:
            report = await EmbeddingConsumer(self._store, self._model).run(drain=True)
        self.step(f"{name}embed", watch.seconds, f"{report.stored:,} vectors stored")
        await anyio.sleep(_STATISTICS_SECONDS)
        await self._project(name, version)

    async def _project(self, name: str, version: Version) -> None:
        """The switch ends when searches see the version; what it superseded is removed behind it."""
        before = self._written()
        begun = perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wait_until_active, name, version, begun)
            await Projector(self._store, self._model.name).run(drain=True)
        seconds = perf_counter() - begun
        await anyio.sleep(_STATISTICS_SECONDS)  # the server's counters lag behind
        after = self._written()
        rows = {table: count - before.get(table, 0) for table, count in after.items()}
        note = ", ".join(f"{table} {count:,}" for table, count in sorted(rows.items()) if count)
        self.step(f"{name}projector done", seconds, f"rows written: {note}")

    async def _wait_until_active(self, name: str, version: Version, begun: float) -> None:
        await self._collection.wait_until_active(version, timeout=3600)
        self.step(f"{name}switch", perf_counter() - begun)

    def _written(self) -> dict[str, int]:
        """Rows inserted, updated and deleted so far, a table of the store."""
        with psycopg.connect(self._setup.dsn, autocommit=True) as conn:
            found = conn.execute(
                "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del"
                " FROM pg_stat_user_tables WHERE schemaname = %s",
                (self._store.database.schema,),
            )
            return dict(found.fetchall())


def _peak_mebibytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
