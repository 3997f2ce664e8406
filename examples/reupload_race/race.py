"""The race: the same uploads, workers and reads for every pipeline, and what each of them came to."""

import itertools
import tempfile
from pathlib import Path

import anyio
import msgspec
import numpy as np
from rich.progress import track

from chunkstore import ChunkStore
from chunkstore.embedded import EmbeddedServer
from chunkstore.models.hashing import HashingModel
from examples.reupload_race.ledger import Ledger, Waste
from examples.reupload_race.uploads import CHUNKS, KEYS, texts_of, whole_uploads
from examples.reupload_race.usual import Usual, usual_tables
from examples.reupload_race.versioned import Versioned

UPLOADERS = 2
WORKERS = 2
READ_EVERY = 0.05
MODEL = HashingModel(64)
EVERYTHING = len(KEYS) * CHUNKS * 4
QUERY = np.asarray(MODEL.embed(["report chunk upload"])[0])


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted while one pipeline ran."""

    uploads: int
    violations: int
    waste: Waste
    batch: int
    """Texts of one call of the model, at most."""
    reads: int
    half: int
    """Reads of a file that saw a part of an upload, a mix of two, or nothing."""
    seen: int
    """Uploads that a reader saw whole."""


class Race:
    """One pipeline's run."""

    def __init__(self, pipeline: Usual | Versioned) -> None:
        self._pipeline = pipeline
        self._ledger = Ledger()
        self._stamps = itertools.count(1)
        self._seen: set[int] = set()
        self._uploads = self._reads = self._half = 0

    async def run(self, seconds: float) -> Outcome:
        """Begins with every file indexed whole, races for so long, and counts."""
        for key in KEYS:
            await self._upload(key)
        await self._pipeline.drain()
        self._uploads = 0
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(UPLOADERS):
                tasks.start_soon(self._upload_all, stop)
            for worker in range(WORKERS):
                tasks.start_soon(self._pipeline.work, worker, self._ledger, stop)
            tasks.start_soon(self._read, stop)
            for _ in track(range(int(seconds * 10)), f"{self._pipeline.name:<18}", transient=True):
                await anyio.sleep(0.1)
            stop.set()
        return Outcome(
            uploads=self._uploads,
            violations=self._pipeline.violations(),
            waste=self._ledger.waste(),
            batch=self._pipeline.batch,
            reads=self._reads,
            half=self._half,
            seen=len(self._seen),
        )

    async def _upload(self, key: str) -> None:
        stamp = next(self._stamps)
        order = await self._pipeline.upload(key, texts_of(key, stamp))
        self._ledger.uploaded(key, stamp, order)
        self._uploads += 1

    async def _upload_all(self, stop: anyio.Event) -> None:
        for key in itertools.cycle(KEYS):
            if stop.is_set():
                return
            await self._upload(key)

    async def _read(self, stop: anyio.Event) -> None:
        while not stop.is_set():
            whole = whole_uploads(await self._pipeline.search(QUERY, EVERYTHING))
            self._seen.update(whole.values())
            self._reads += len(KEYS)
            self._half += len(KEYS) - len(whole)
            await anyio.sleep(READ_EVERY)


async def race_all(seconds: float) -> dict[str, Outcome]:
    """Every pipeline in turn, on one embedded server; by the pipeline's name."""
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="chunkstore-race-") as folder:
        server = EmbeddedServer(Path(folder))
        async with await ChunkStore.open(data=folder, migrate=True) as store:
            reports = await store.collection("reports", model=MODEL)
            for looks_first in (False, True):
                schema = "looks_first" if looks_first else "text_in_the_job"
                async with await usual_tables(server, schema) as pool:
                    usual = Usual(pool, MODEL, looks_first=looks_first)
                    outcomes[usual.name] = await Race(usual).run(seconds)
            versioned = Versioned(store, reports, MODEL, server)
            outcomes[versioned.name] = await Race(versioned).run(seconds)
    return outcomes
