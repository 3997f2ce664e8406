"""Switching to a version in which one chunk changed: the cost follows the change, not the file."""

import statistics

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target
from benchmarks.pipeline import drain
from chunkstore import ChunkStore, leases, rows
from chunkstore.model import FileId, ModelId
from consumers.embedding import EmbeddingConsumer
from projections import active
from projections.projector import Projector

_SIZE = 60


async def main(setup: Setup) -> list[Result]:
    """Files of 100, 10,000 and 1,000,000 chunks against the smallest; the switch alone, one transaction."""
    sizes = (100, 10_000, 100_000 if setup.quick else 1_000_000)
    medians = {size: await _switch(setup, size, rounds=setup.rounds(7)) for size in sizes}
    return [
        Result(
            work=f"switch one changed chunk in a file of {size:,}",
            ours=medians[size],
            against="" if size == sizes[0] else f"a file of {sizes[0]:,}",
            peer=None if size == sizes[0] else medians[sizes[0]],
            ratio=None if size == sizes[0] else medians[size] / medians[sizes[0]],
            target=None if size == sizes[0] else Target("≤", 3),
        )
        for size in sizes
    ]


async def _switch(setup: Setup, size: int, *, rounds: int) -> float:
    model = material.NullModel(8)
    async with setup.store() as store:
        collection = await store.collection("bench", model=model)
        known = collection._models[0].model  # noqa: SLF001
        await collection.append("file", material.stream(size, size=_SIZE))
        await drain(store, model)
        seconds: list[float] = []
        for turn in range(rounds + 1):
            changed = (
                chunk if i != size // 2 else material.edited([chunk], [0], f"turn {turn}")[0]
                for i, chunk in enumerate(material.stream(size, size=_SIZE))
            )
            await collection.append("file", changed)
            await EmbeddingConsumer(store, model).run(drain=True)
            seconds.append(await _activate(store, known))
            await Projector(store, model.name).run(drain=True)
        return statistics.median(seconds[1:])


async def _activate(store: ChunkStore, model: ModelId) -> float:
    """Makes the switch that a projector would make next; the projector then finds it made."""
    group = leases.projector_group(model)
    async with store.database.transaction() as conn:
        file, partition = (await rows.fetch_all(conn, "SELECT file, partition FROM files", row=_File))[0].key
        checkpoint = await leases.claim_checkpoint(conn, group, partition, seconds=60, owner="bench")
    assert checkpoint is not None, "nobody else projects"
    with Stopwatch() as watch:
        assert await active.activate(store.database, checkpoint, model, [file]) == 1
    async with store.database.transaction() as conn:
        await leases.release_checkpoint(conn, checkpoint, position=checkpoint.position)
    return watch.seconds


class _File:
    def __init__(self, file: FileId, partition: int) -> None:
        self.key = file, partition
