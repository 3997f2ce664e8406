"""Claim, read and acknowledge with a model that costs nothing, against a queue that takes a job a chunk.

The queue is procrastinate's: every job deferred in one call, run by its own worker in this process, each
fetching its chunk's content. It is slow, so that it gets fewer chunks, and its time is scaled up to ours.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import msgspec
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from benchmarks.claim_complete import acknowledging
from benchmarks.harness import Result, Setup, Stopwatch, Target, against
from chunkstore import ChunkStore

WORK = "log, claim, read and acknowledge, null model"
WORKERS = 10
"""Jobs that run at a time: 1 is slower, 20 is no faster."""


async def main(setup: Setup) -> list[Result]:
    """20,480 chunks in 20 files on our side, 1,000 jobs on the other."""
    if find_spec("procrastinate") is None:
        return [Result(work=WORK, note="not run: the extra `bench`, with procrastinate, is not installed")]
    jobs = 200 if setup.quick else 1_000
    async with setup.store() as store:
        every, ours = await acknowledging(store, files=5 if setup.quick else 20)
        async with _queue(setup, store) as run:

            async def peer(_: int) -> float:
                return await run(every[:jobs]) * len(every) / jobs

            line = await against(
                WORK,
                ours,
                peer,
                name=f"procrastinate, a job a chunk, {WORKERS} at a time, and fetching the content",
                rounds=setup.rounds(5),
                target=Target("≥", 100),
                per=len(every),
            )
    note = f"{line.note}; the queue ran {jobs:,} jobs a round, their time is scaled to {len(every):,}"
    return [msgspec.structs.replace(line, note=note)]


@asynccontextmanager
async def _queue(setup: Setup, store: ChunkStore) -> AsyncIterator[Any]:
    """Gives what defers a job for each of the chunks and runs them all, and returns the seconds."""
    from procrastinate import App, PsycopgConnector

    setup.peer().close()
    dsn = make_conninfo(setup.dsn, options="-c search_path=peer,public")
    content = f'SELECT content FROM "{store.database.schema}".chunks WHERE chunk_id = %s'
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=WORKERS, max_size=WORKERS + 2))
    async with (
        AsyncConnectionPool(
            setup.dsn, min_size=WORKERS, max_size=WORKERS, kwargs={"autocommit": True}, open=False
        ) as pool,
        app.open_async(),
    ):
        await app.schema_manager.apply_schema_async()
        fetched = 0

        @app.task(name="fetch")
        async def fetch(chunk: int) -> None:
            nonlocal fetched
            async with pool.connection() as conn:
                found = await (await conn.execute(content, (chunk,))).fetchone()
            fetched += found is not None

        async def run(chunks: Sequence[int]) -> float:
            nonlocal fetched
            fetched = 0
            async with pool.connection() as conn:
                await conn.execute("TRUNCATE peer.procrastinate_jobs CASCADE")
            with Stopwatch() as watch:
                await fetch.batch_defer_async(*({"chunk": chunk} for chunk in chunks))
                await app.run_worker_async(wait=False, concurrency=WORKERS, install_signal_handlers=False)
            assert fetched == len(chunks), "every job has run"
            return watch.seconds

        yield run
