"""The race of re-processing, shown: the usual pipeline and chunkstore under the same concurrent re-uploads.

Two uploaders re-upload the same 20 files of 30 chunks as fast as they can, two workers embed, a reader
searches and checks that it sees every file whole and at one upload. Everything runs in a folder that is
removed at the end:

    python examples/reupload_race.py --seconds 10

The usual pipeline is written as it usually is: an upload deletes the file's chunks, inserts the new ones and
queues one job a chunk, in one transaction; foreign keys cascade; workers take jobs with SKIP LOCKED. It runs
twice: with the text in the job, as message queues have it, and with workers that look the chunk up first.
"""

import argparse
import asyncio
import itertools
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import numpy as np
import psycopg
from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool
from rich.console import Console
from rich.progress import track
from rich.table import Table

from chunkstore import Chunk, ChunkStore
from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.models.hashing import HashingModel
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector

KEYS = [f"report-{number:02}.md" for number in range(20)]
CHUNKS = 30
UPLOADERS = 2
WORKERS = 2
READ_EVERY = 0.05
MODEL = HashingModel(64)
EVERYTHING = len(KEYS) * CHUNKS * 4
QUERY = np.asarray(MODEL.embed(["report chunk upload"])[0])

STAMPED = re.compile(r"(?P<key>\S+) upload (?P<upload>\d+) chunk (?P<chunk>\d+)")


class Outcome(msgspec.Struct):
    """What was counted while one pipeline ran."""

    uploads: int = 0
    embedded: int = 0
    """Texts that the model was given."""
    violations: int = 0
    wasted: int = 0
    """Texts whose upload had been replaced before their vector was stored."""
    wasted_batches: int = 0
    """In how many calls of the model they were."""
    reads: int = 0
    half: int = 0
    """Reads of a file that saw a part of an upload, a mix of two, or nothing."""
    seen: int = 0
    """Uploads that a reader saw whole."""


# --- the usual pipeline -------------------------------------------------------------------------

USUAL_TABLES = """
CREATE TABLE documents (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL UNIQUE
);
CREATE TABLE chunks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
    content     text NOT NULL
);
CREATE INDEX ON chunks (document_id);
CREATE TABLE embeddings (
    chunk_id  bigint PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    embedding vector(64) NOT NULL
);
CREATE TABLE jobs (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk_id bigint NOT NULL,
    content  text NOT NULL
);
"""

TAKE_JOB = """
DELETE FROM jobs
WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING chunk_id, content
"""

USUAL_SEARCH = """
SELECT c.content
FROM embeddings e
JOIN chunks c ON c.id = e.chunk_id
ORDER BY e.embedding <=> %s::vector
LIMIT %s
"""


class Usual:
    """Delete, insert, queue; the database's foreign keys keep it consistent, one statement at a time."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], *, looks_first: bool) -> None:
        self.name = "usual, look first" if looks_first else "usual, text in job"
        self._pool = pool
        self._looks_first = looks_first

    async def upload(self, key: str, texts: list[str]) -> None:
        """Replaces a file's chunks."""
        async with self._pool.connection() as conn:
            found = await conn.execute(
                "INSERT INTO documents (key) VALUES (%s) ON CONFLICT (key) DO UPDATE SET key = EXCLUDED.key"
                " RETURNING id",
                [key],
            )
            (document,) = await found.fetchone() or (None,)
            await conn.execute("DELETE FROM chunks WHERE document_id = %s", [document])
            await conn.execute(
                "WITH new AS (INSERT INTO chunks (document_id, content) SELECT %s, unnest(%s::text[])"
                " RETURNING id, content)"
                " INSERT INTO jobs (chunk_id, content) SELECT id, content FROM new ORDER BY id",
                [document, texts],
            )

    async def work(self, outcome: Outcome, stop: anyio.Event) -> None:
        """Embeds until the stop."""
        while not stop.is_set():
            if not await self._one_job(outcome):
                await anyio.sleep(0.005)

    async def drain(self) -> None:
        """Embeds what waits."""
        while await self._one_job(Outcome()):
            pass

    async def _one_job(self, outcome: Outcome) -> bool:
        async with self._pool.connection() as conn:
            job = await (await conn.execute(TAKE_JOB)).fetchone()
            if job is None:
                return False
            chunk, content = job
            if self._looks_first:
                look = await conn.execute("SELECT content FROM chunks WHERE id = %s", [chunk])
                if await look.fetchone() is None:
                    return True
            (vector,) = await anyio.to_thread.run_sync(MODEL.embed, [content])
            outcome.embedded += 1
            try:
                async with conn.transaction():
                    await conn.execute("INSERT INTO embeddings VALUES (%s, %s)", [chunk, vector.tolist()])
            except psycopg.errors.ForeignKeyViolation:
                outcome.violations += 1
        return True

    async def search(self) -> list[str]:
        """The content of everything that a search finds."""
        async with self._pool.connection() as conn:
            found = await conn.execute(USUAL_SEARCH, [QUERY.tolist(), EVERYTHING])
            return [content for (content,) in await found.fetchall()]

    async def count(self, outcome: Outcome) -> None:
        """Adds what only the database can tell."""
        outcome.wasted = outcome.wasted_batches = outcome.violations


# --- this one -----------------------------------------------------------------------------------

# In the order of the log: embedded after the commit of a later version of the same file.
WASTED = """
SELECT count(*), count(DISTINCT (e.partition, e.last_offset))
FROM events e
CROSS JOIN LATERAL unnest(e.chunks) AS c (chunk_id)
JOIN events a ON a.type = 'chunks_appended'
    AND a.partition = e.partition
    AND c.chunk_id BETWEEN a.first_chunk AND a.first_chunk + a.n - 1
WHERE e.type = 'chunks_embedded'
  AND EXISTS (
      SELECT FROM events v
      WHERE v.type = 'version_committed'
        AND v.partition = a.partition
        AND v.file = a.file
        AND v.version > a.version
        AND v.last_offset < e.last_offset
  )
"""


class Versioned:
    """Append a version, embed by ranges of the log, switch when it is complete."""

    name = "chunkstore"

    def __init__(self, store: ChunkStore, reports: Collection, server: EmbeddedServer) -> None:
        self._store = store
        self._reports = reports
        self._log = server.log
        self._violations_before = self._logged_violations()

    async def upload(self, key: str, texts: list[str]) -> None:
        """Replaces a file's chunks."""
        await self._reports.append(key, [Chunk(text) for text in texts])

    async def work(self, outcome: Outcome, stop: anyio.Event) -> None:
        """Embeds until the stop."""
        consumer = EmbeddingConsumer(self._store, MODEL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(Projector(self._store, MODEL.name).run, stop=stop))
            await consumer.run(stop=stop)
        outcome.embedded += consumer.report.embedded

    async def drain(self) -> None:
        """Embeds what waits."""
        await EmbeddingConsumer(self._store, MODEL).run(drain=True)
        await Projector(self._store, MODEL.name).run(drain=True)

    async def search(self) -> list[str]:
        """The content of everything that a search finds."""
        return [hit.content for hit in await self._reports.search(QUERY, k=EVERYTHING)]

    async def count(self, outcome: Outcome) -> None:
        """Adds what only the database can tell."""
        async with self._store.database.transaction() as conn:
            counted = await (await conn.execute(WASTED)).fetchone()
            outcome.wasted, outcome.wasted_batches = counted or (0, 0)
        outcome.violations = self._logged_violations() - self._violations_before

    def _logged_violations(self) -> int:
        return self._log.read_text(errors="replace").count("violates foreign key")


# --- the race -----------------------------------------------------------------------------------


class Race:
    """The same uploads, workers and reads for every pipeline."""

    def __init__(self, pipeline: Usual | Versioned) -> None:
        self._pipeline = pipeline
        self._stamps = itertools.count(1)
        self._seen: set[str] = set()
        self.outcome = Outcome()

    async def run(self, seconds: float) -> Outcome:
        """Begins with every file indexed whole, races for so long, and counts."""
        for key in KEYS:
            await self._upload(key)
        await self._pipeline.drain()
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(UPLOADERS):
                tasks.start_soon(self._upload_all, stop)
            for _ in range(WORKERS):
                tasks.start_soon(self._pipeline.work, self.outcome, stop)
            tasks.start_soon(self._read, stop)
            for _ in track(range(int(seconds * 10)), f"{self._pipeline.name:<18}", transient=True):
                await anyio.sleep(0.1)
            stop.set()
        await self._pipeline.count(self.outcome)
        self.outcome.seen = len(self._seen)
        return self.outcome

    async def _upload(self, key: str) -> None:
        stamp = next(self._stamps)
        texts = [f"{key} upload {stamp} chunk {number}: what was found" for number in range(CHUNKS)]
        await self._pipeline.upload(key, texts)

    async def _upload_all(self, stop: anyio.Event) -> None:
        for key in itertools.cycle(KEYS):
            if stop.is_set():
                return
            await self._upload(key)
            self.outcome.uploads += 1

    async def _read(self, stop: anyio.Event) -> None:
        while not stop.is_set():
            whole = whole_uploads(await self._pipeline.search())
            self._seen.update(whole.values())
            self.outcome.reads += len(KEYS)
            self.outcome.half += len(KEYS) - len(whole)
            await anyio.sleep(READ_EVERY)


def whole_uploads(contents: Iterable[str]) -> dict[str, str]:
    """By key, the upload that a search saw: every chunk of it once, and no chunk of another."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for content in contents:
        stamped = STAMPED.match(content)
        assert stamped is not None, content
        found[stamped["key"]].append((stamped["upload"], int(stamped["chunk"])))
    return {
        key: chunks[0][0]
        for key, chunks in found.items()
        if sorted(chunks) == sorted((chunks[0][0], number) for number in range(CHUNKS))
    }


async def race_all(seconds: float) -> dict[str, Outcome]:
    """Every pipeline in turn, on one embedded server."""
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="chunkstore-race-") as folder:
        server = EmbeddedServer(Path(folder))
        async with await ChunkStore.open(data=folder, migrate=True) as store:
            reports = await store.collection("reports", model=MODEL)
            for looks_first in (False, True):
                schema = "looks_first" if looks_first else "text_in_the_job"
                async with await usual_tables(server, schema) as pool:
                    usual = Usual(pool, looks_first=looks_first)
                    outcomes[usual.name] = await Race(usual).run(seconds)
            versioned = Versioned(store, reports, server)
            outcomes[versioned.name] = await Race(versioned).run(seconds)
    return outcomes


async def usual_tables(server: EmbeddedServer, schema: str) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """A pool of connections to the usual pipeline's tables, made anew."""
    path = sql.SQL("SET search_path = {}, chunkstore, public").format(sql.Identifier(schema))

    async def configure(conn: AsyncConnection[Any]) -> None:
        await conn.execute(path)
        await conn.commit()

    address = server.dsn.conninfo()
    async with await AsyncConnection.connect(address, autocommit=True) as conn:
        await conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        await conn.execute(path)
        await conn.execute(USUAL_TABLES)
    return AsyncConnectionPool[AsyncConnection[Any]](address, configure=configure, max_size=8, open=False)


def table(outcomes: dict[str, Outcome]) -> Table:
    """The counts side by side."""
    shown = Table("", *outcomes, title="Two uploaders, two workers, the same 20 files")
    rows = {
        "foreign-key violations": lambda o: f"{o.violations:,}",
        "texts embedded in vain": lambda o: f"{o.wasted:,} of {o.embedded:,}",
        "… in model calls": lambda o: f"{o.wasted_batches:,}",
        "half-indexed reads": lambda o: f"{o.half:,} of {o.reads:,}",
        "uploads": lambda o: f"{o.uploads:,}",
        "uploads seen whole": lambda o: f"{o.seen:,}",
    }
    for name, cell in rows.items():
        shown.add_row(name, *map(cell, outcomes.values()))
    return shown


def main() -> None:
    """Runs the races and prints the table."""
    parser = argparse.ArgumentParser(description="Races the usual pipeline and chunkstore.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each pipeline is raced")
    outcomes = asyncio.run(race_all(parser.parse_args().seconds))
    Console().print(table(outcomes))


if __name__ == "__main__":
    main()
