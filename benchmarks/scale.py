"""Append, embed, switch and collect in a store of ten million chunks, against the same at 100,000.

The store grows in files of 10,000 small chunks. The index over the vectors is held back, whose inserts cost
more the larger it is, in any store. After a checkpoint the first appends log each page that they touch whole;
they are left out at both sizes.
"""

import statistics

import psycopg

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target
from benchmarks.pipeline import running, without_indexes
from chunkstore import ChunkStore
from chunkstore.collection import Collection
from consumers.embedding import EmbeddingConsumer
from projections.collector import collect
from projections.projector import Projector

FILE = 10_000
_SIZE = 60
_STEPS = ("append", "claim, read and store", "switch", "collect")
_SETTLED = "CHECKPOINT; VACUUM (ANALYZE)"
_WARM_UP = 8


async def main(setup: Setup) -> list[Result]:
    """Microseconds a chunk of each step at both sizes, and their ratio."""
    small, large = (20_000, 60_000) if setup.quick else (100_000, 10_000_000)
    async with setup.store() as store:
        model = material.NullModel(8)
        collection = await store.collection("bench", model=model, keep_last=1)
        run = _Run(setup, store, collection, model)
        async with without_indexes(store) as hold:
            await hold(collection)
            before = await run.at(small, rounds=setup.rounds(7))
            after = await run.at(large, rounds=setup.rounds(7))
    return [
        Result(
            work=f"{step} {FILE:,} chunks of {large:,}",
            ours=statistics.median(after[step]),
            against=f"the same of {small:,}",
            peer=statistics.median(before[step]),
            ratio=statistics.median(after[step]) / statistics.median(before[step]),
            spread=(
                min(after[step]) / statistics.median(before[step]),
                max(after[step]) / statistics.median(before[step]),
            ),
            target=Target("≤", 1.3),
            note=f"{statistics.median(after[step]) / FILE * 1e6:.1f} µs a chunk",
        )
        for step in _STEPS
    ]


class _Run:
    def __init__(
        self, setup: Setup, store: ChunkStore, collection: Collection, model: material.NullModel
    ) -> None:
        self._setup = setup
        self._store = store
        self._collection = collection
        self._model = model
        self._files = 0

    async def at(self, size: int, *, rounds: int) -> dict[str, list[float]]:
        """Grows the store to that many chunks; the seconds of each step in each round after the warm-up."""
        await self._grow(size)
        seconds: dict[str, list[float]] = {step: [] for step in _STEPS}
        for turn in range(rounds + _WARM_UP):
            for step, took in zip(_STEPS, await self._round(), strict=True):
                if turn >= _WARM_UP:
                    seconds[step].append(took)
        return seconds

    async def _grow(self, size: int) -> None:
        async with running(self._store, self._model):
            while self._files * FILE < size:
                version = await self._collection.append(f"file-{self._files}", self._new_chunks())
                self._files += 1
                if not self._files % 20:
                    await self._collection.wait_until_active(version, timeout=600)
        await self._embed()
        await self._project()
        with psycopg.connect(self._setup.dsn, autocommit=True) as conn:
            for statement in _SETTLED.split("; "):
                conn.execute(statement.encode())

    async def _round(self) -> tuple[float, float, float, float]:
        """A file that is new, and one that replaces it, whose first version is collected."""
        key, chunks = f"file-{self._files}", self._new_chunks()
        self._files += 1
        with Stopwatch() as append:
            await self._collection.append(key, chunks)
        with Stopwatch() as embed:
            await self._embed()
        with Stopwatch() as switch:
            await self._project()
        replacing = self._new_chunks()
        self._files += 1
        await self._collection.append(key, replacing)
        await self._embed()
        await self._project()
        with Stopwatch() as collecting:
            report = await collect(self._store)
        assert report.swept >= FILE, report
        return append.seconds, embed.seconds, switch.seconds, collecting.seconds

    def _new_chunks(self) -> list[material.Chunk]:
        return material.chunks(FILE, seed=self._files, size=_SIZE)

    async def _embed(self) -> None:
        await EmbeddingConsumer(self._store, self._model).run(drain=True)

    async def _project(self) -> None:
        await Projector(self._store, self._model.name).run(drain=True)
