"""One soak from beginning to end: a store, everybody at work on it, faults, and then the verdict.

`SOAK_SECONDS` says how long faults go on (30 minutes), `SOAK_SEED` which ones (by chance; the table says it).
"""

import itertools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import randbelow
from time import monotonic

import anyio
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.errors import UnknownDeadLetter
from chunkstore.status import status
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.faults.asking import value
from tests.faults.models import MODEL
from tests.faults.processes import COLLECTION, Where
from tests.faults.proxy import Proxy, proxying
from tests.faults.siege import NOTICED_SECONDS, WORKER
from tests.soak.contents import COUNTED, FIRST, STEADY, uploaded
from tests.soak.faults import Faults
from tests.soak.journal import Line, operations, read
from tests.soak.judging import Verdict, left_over
from tests.soak.moods import OTHER
from tests.soak.promises import raised_in_log, told_wrong
from tests.soak.tally import Tally, errors_met, looked
from tests.soak.tending import Tender

SECONDS = int(os.environ.get("SOAK_SECONDS", "1800"))
SEED = int(os.environ.get("SOAK_SEED") or randbelow(10_000))
WARM_SECONDS = 5
PROGRESS_SECONDS = 30
DRAIN_SECONDS = 60
"""The longest that everything may take to be active after the last fault."""

ROWS = {
    "events": "SELECT count(*) FROM events",
    "versions": "SELECT count(*) FROM versions",
    "chunks": "SELECT count(*) FROM chunks",
    "embeddings": "SELECT count(*) FROM embeddings",
    "collections": "SELECT count(*) FROM collections",
}

LEFT_OVER = {
    "open versions": "SELECT count(*) FROM versions WHERE state = 'open'",
    "dead letters": "SELECT count(*) FROM dead_letters",
}


async def soak(where: Where) -> Tally:
    """Runs it all and judges it."""
    # Open to the end, so that the server stays; its connections do not live through the faults.
    async with await where.open(migrate=True) as first, by_proxy(where) as (proxied, proxy):
        await prepared(first)
        tender = Tender(where, proxied)
        try:
            return await raged(where, tender, Faults(SEED, tender, where, proxy))
        finally:
            tender.end()


async def raged(where: Where, tender: Tender, faults: Faults) -> Tally:
    """What came of the faults, once they are over."""
    async with tender.tending(), progress_said(where, faults):
        await anyio.sleep(WARM_SECONDS)  # until they have imported what they need
        at_start = tender.memory()
        await faults.rage(SECONDS)
        at_end = tender.memory()
    async with await where.open() as store:
        collection = await store.collection(COLLECTION)
        async with tender.tending():
            wrong = await tender.stop("write", "operate")
            drained_in = await drained(store, collection)
        wrong += await tender.stop(*{process.role for process in tender.of()} - {"write", "operate"})
        journals = journals_in(where.folder)
        done = [operation for lines in journals for operation in operations(lines)]
        verdict = Verdict(collection, done)
        wrong += await verdict.violations()
        wrong += told_wrong(done, journals, tender.ended)
        wrong += raised_in_log((where.data / "postgres/server.log").read_text(errors="replace"))
        searches = looked(journals)
        return Tally(
            seed=SEED,
            seconds=SECONDS,
            faults=faults.struck,
            operations=done,
            errors=errors_met(journals),
            searches=len(searches),
            files=sum(search.files for search in searches),
            ended=tender.ended,
            drained_in=drained_in,
            memory={role: (at_start[role], at_end[role]) for role in at_start},
            rows={name: await value(store, statement) for name, statement in ROWS.items()},
            left_over={name: await value(store, statement) for name, statement in LEFT_OVER.items()}
            | left_over(verdict.report),
            violations=faults.wrong + wrong,
        )


def journals_in(folder: Path) -> list[list[Line]]:
    """What every process wrote down."""
    return [list(read(path)) for path in sorted(folder.glob("*.journal"))]


@asynccontextmanager
async def progress_said(where: Where, faults: Faults) -> AsyncIterator[None]:
    """Prints a line every half minute, while the block runs."""

    async def say() -> None:
        for seconds in itertools.count(PROGRESS_SECONDS, PROGRESS_SECONDS):
            await anyio.sleep(PROGRESS_SECONDS)
            searches = looked(journals_in(where.folder))
            wrong = sum(bool(search.faults) for search in searches)
            struck = f"{faults.struck.total():,} faults, {len(searches):,} searches, {wrong} of them wrong"
            print(f"{seconds} s: {struck}", file=sys.stderr, flush=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(say)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def by_proxy(where: Where) -> AsyncIterator[tuple[Where, Proxy]]:
    """The same store by way of a proxy, as a role of its own."""
    server = EmbeddedServer(where.data)
    with psycopg.connect(server.dsn.conninfo(), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {WORKER} SUPERUSER LOGIN")
        admin.execute("ALTER SYSTEM SET max_wal_size = '512MB'")
        admin.execute("SELECT pg_reload_conf()")
    address = conninfo_to_dict(server.dsn.conninfo())
    async with proxying(f"{address['host']}/.s.PGSQL.{address['port']}") as proxy:
        yield where._replace(dsn=make_conninfo(proxy.dsn, user=WORKER, **NOTICED_SECONDS)), proxy


async def prepared(store: ChunkStore) -> None:
    """Makes the collection, with a first version of the files that a search finds always."""
    collection = await store.collection(COLLECTION, model=MODEL, keep_last=2)
    for key in STEADY:
        await collection.append(key, uploaded(key, FIRST), metadata={"stamp": FIRST})
    for key in COUNTED:
        await collection.append(key, uploaded(key, FIRST), metadata={"stamp": FIRST, "count": 0})
    await EmbeddingConsumer(store, MODEL).run(drain=True)
    await Projector(store, MODEL.name).run(drain=True)


async def drained(store: ChunkStore, collection: Collection) -> float:
    """How many seconds it took until every target was active; fails where it takes too long."""
    begun = monotonic()
    with anyio.fail_after(DRAIN_SECONDS):
        while not await _is_drained(store):
            await operate(store, collection)
            await anyio.sleep(0.2)
    return monotonic() - begun


async def _is_drained(store: ChunkStore) -> bool:
    now = await status(store)
    models = [model for row in now.collections for model in row.models]
    waiting = sum(model.waiting + model.failed + model.backfilling for model in models)
    return now.idle and waiting == 0 and all(row.open == 0 for row in now.collections)


async def operate(store: ChunkStore, collection: Collection) -> None:
    """What a person does after faults: takes dead letters back, and finishes what adds a model."""
    for letter in await collection.dead_letters():
        with suppress(UnknownDeadLetter):  # its chunk was embedded meanwhile
            await collection.retry(letter.chunk_id, letter.model)
    for row in (await status(store)).collections:
        if any(model.backfilling for model in row.models):
            await (await store.collection(row.name)).add_model(OTHER)
