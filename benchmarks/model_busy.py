"""Whether the model ever waits for the store: the consumer against the bare model over the same texts."""

from collections.abc import Sequence
from threading import Event

import numpy as np
from numpy.typing import NDArray

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from chunkstore.errors import ChunkstoreError
from chunkstore.models import Model, open_model
from consumers.embedding import EmbeddingConsumer

_MILLISECONDS = 50


async def main(setup: Setup) -> list[Result]:
    """A model that answers 256 texts in 50 ms without the machine's processors, and MiniLM on them."""
    away = _Elsewhere()
    name = f"a model elsewhere, {_MILLISECONDS} ms for 256 texts"
    results = [await _busy(setup, away, name, batch=256, batches=100)]
    try:
        minilm = open_model("minilm")
    except ChunkstoreError as error:
        return [*results, Result(work="model kept busy: MiniLM", ours=0, note=f"not run: {error}")]
    return [*results, await _busy(setup, minilm, "MiniLM on the CPU", batch=64, batches=4)]


async def _busy(setup: Setup, model: Model, name: str, *, batch: int, batches: int) -> Result:
    count = batches * batch
    async with setup.store() as store:
        collection = await store.collection("bench", model=model)

        async def ours(turn: int) -> float:
            await collection.append(f"file-{turn}", material.stream(count, seed=turn, size=200))
            with Stopwatch() as watch:
                report = await EmbeddingConsumer(store, model, batch=batch).run(drain=True)
            assert report.embedded == count
            return watch.seconds

        async def peer(turn: int) -> float:
            texts = [chunk.content for chunk in material.stream(count, seed=turn, size=200)]
            with Stopwatch() as watch:
                for start in range(0, count, batch):
                    model.embed(texts[start : start + batch])
            return watch.seconds

        return await against(
            f"model kept busy: {name}",
            ours,
            peer,
            name="the bare model over the same texts",
            rounds=setup.rounds(3),
            target=Target("≥", 0.97),
            per=count,
        )


class _Elsewhere(material.NullModel):
    """Takes the time of a fast accelerator, and none of this machine's processors."""

    def __init__(self) -> None:
        super().__init__(384)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        Event().wait(_MILLISECONDS / 1000 * len(texts) / 256)
        return super().embed(texts)
