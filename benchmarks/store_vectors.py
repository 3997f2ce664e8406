"""Storing vectors while no index stands, against binary COPY of the same vectors into a bare table.

Ours goes into two tables, full precision and half, each with a key, and logs what it stored.
"""

from typing import Any

from benchmarks import material
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from benchmarks.peers import BareVectors
from chunkstore import ChunkStore, embeddings, leases
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, ModelId

DIMENSIONS = 384
BATCH = 256


async def main(setup: Setup) -> list[Result]:
    """Vectors of 384, in the batches of 256 that a consumer stores, each committed; and in one COPY."""
    count = 2_048 if setup.quick else 10_240
    vectors = material.clustered(count, DIMENSIONS)
    async with setup.store() as store:
        collection = await store.collection("bench", model=material.NullModel(DIMENSIONS))
        model = collection._models[0].model  # noqa: SLF001
        number = 0

        async def ours(_: int) -> float:
            nonlocal number
            number += 1
            await collection.append(f"file-{number}", material.stream(count, seed=number, size=100))
            claimed = await _claim_all(store, model)
            with Stopwatch() as watch:
                done = 0
                for lease, ids in claimed:
                    async with store.database.transaction() as conn:
                        await embeddings.complete(conn, lease, model, ids, vectors[done : done + len(ids)])
                    done += len(ids)
            assert done == count
            return watch.seconds

        with setup.peer() as conn:
            bare = BareVectors(conn, DIMENSIONS)

            async def in_batches(_: int) -> float:
                with Stopwatch() as watch:
                    for start in range(0, count, BATCH):
                        end = start + BATCH
                        bare.copy(range(start, end), vectors[start:end])
                return watch.seconds

            async def in_one(_: int) -> float:
                with Stopwatch() as watch:
                    bare.copy(range(count), vectors)
                return watch.seconds

            work = "store vectors of 384, no index yet"
            rounds, target = setup.rounds(7), Target("≥", 0.5)
            batches = "binary COPY into a bare table, 256 a transaction"
            whole = "the same in one COPY"
            return [
                await against(work, ours, in_batches, name=batches, rounds=rounds, target=target, per=count),
                await against(work, ours, in_one, name=whole, rounds=rounds, target=target, per=count),
            ]


async def _claim_all(store: ChunkStore, model: ModelId) -> list[tuple[Lease, list[ChunkId]]]:
    claimed: list[tuple[Lease, list[ChunkId]]] = []
    while True:
        async with store.database.transaction() as conn:
            found = await _claim(conn, model)
        if found is None:
            return claimed
        claimed.append(found)


async def _claim(conn: Any, model: ModelId) -> tuple[Lease, list[ChunkId]] | None:
    group = leases.embedding_group(model)
    lease = await leases.claim(conn, group, batch=BATCH, seconds=600, owner="bench")
    if lease is None:
        return None
    return lease, [chunk.chunk_id for chunk in await embeddings.owed(conn, lease, model)]
