"""After an erasure the server's folder is searched, byte by byte, for what was erased: where it is, how long.

The marks are random, so that nothing compresses them away, and half of one is enough. That each is found
before the erasure, and where, shows that the search finds what is there.
"""

import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import anyio
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import Connection

from chunkstore import scrub
from chunkstore.collection import Collection
from chunkstore.embedded import EmbeddedServer
from chunkstore.errors import DatabaseError
from chunkstore.model import Chunk
from chunkstore.models.hashing import HashingModel
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections import indexes
from projections.projector import Projector
from projections.verify import verify
from tests.faults.asking import until

pytestmark = pytest.mark.slow

REFUSED = "refused"


class Quoting(HashingModel):
    """Makes vectors that stay as they are when halved; refuses some texts in an error that quotes them."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        for text in texts:
            if text.startswith(REFUSED):
                raise ValueError(f"I do not embed {text}")
        signs = [
            np.random.default_rng(list(text.encode())).choice([-1, 1], self.dimensions) for text in texts
        ]
        return np.array(signs, np.float32) / np.float32(self.dimensions**0.5)


MODEL = Quoting(64)
PAGE = Path(__file__).parents[2] / "docs/howto/delete-roll-back-pin-erase.md"

RELATIONS = """
SELECT pg_relation_filepath(c.oid), coalesce(owner.relname || ', toasted', c.relname)
FROM pg_class c
LEFT JOIN pg_class owner ON owner.reltoastrelid = c.oid
WHERE pg_relation_filepath(c.oid) IS NOT NULL
"""

NEXT_LOG_FILE = "SELECT pg_logical_emit_message(false, 'test', ''), pg_switch_wal()"
CANCEL_WHO_WAITS = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

Found = dict[str, set[str]]
"""The places in which each mark was found."""


class Folder:
    """The folder of a server, and marks that were written through it."""

    def __init__(self, path: Path, admin: Connection) -> None:
        self.path = path
        self._admin = admin
        self.marks: dict[str, bytes] = {}

    def mark(self, what: str) -> str:
        """A text that is nowhere else; remembered under a name."""
        text = secrets.token_urlsafe(30)
        self.marks[what] = text.encode()
        return text

    def find(self) -> Found:
        """Every place in which a mark is, when all that is in memory has been written."""
        self._admin.execute("CHECKPOINT")
        names = dict(self._admin.execute(RELATIONS).fetchall())
        found: Found = {what: set() for what in self.marks}
        for path in self.path.rglob("*"):
            if not path.is_file():
                continue
            content = path.read_bytes()
            for what, mark in self.marks.items():
                half = len(mark) // 2  # the log puts a header between two of its pages
                if mark[:half] in content or mark[half:] in content:
                    inside = str(path.relative_to(self.path)).removeprefix("postgres/")
                    found[what].add(self._place(inside, names))
        return found

    def _place(self, path: str, names: Mapping[str, str]) -> str:
        if path.startswith("pg_wal/"):
            return "log"
        return names.get(path.partition(".")[0] if path.startswith("base/") else path, path)


class Erased:
    """A store, with a file in it that is erased, and what was found in the folder at each step."""

    def __init__(self, store: ChunkStore, files: Collection, folder: Folder, admin: Connection) -> None:
        self.store = store
        self.files = files
        self.folder = folder
        self.admin = admin
        self.found: dict[str, Found] = {}

    def look(self, step: str) -> None:
        self.found[step] = self.folder.find()

    async def write(self) -> None:
        """A file with a mark wherever something of a file can go."""
        folder = self.folder
        for number in range(20):
            await self.files.append(f"other {number}", [Chunk(f"other {number} {i}") for i in range(5)])
        long = secrets.token_urlsafe(6000) + folder.mark("long content") + secrets.token_urlsafe(6000)
        chunks = [
            Chunk(f"say {folder.mark('content')}", metadata={"by": folder.mark("metadata")}),
            Chunk(long),
            Chunk(f"{REFUSED} {folder.mark('refused content')}"),
        ]
        self.key = folder.mark("key")
        await self.files.append(
            self.key,
            chunks,
            idempotency_key=folder.mark("idempotency key"),
            metadata={"of": folder.mark("version metadata")},
        )
        source = (
            "INSERT INTO sources (file, version, size, hash, parser, chunker)"
            " SELECT file, 1, 1, %s, 'text', 'plain' FROM files WHERE key = %s"
        )
        async with self.store.database.transaction() as conn:
            await conn.execute(source, [folder.mark("hash of the source").encode(), self.key])
        await EmbeddingConsumer(self.store, MODEL).run(drain=True)
        for letter in await self.files.dead_letters():
            await self.files.discard(letter.chunk_id)
        await Projector(self.store, MODEL.name).run(drain=True)
        (vector,) = MODEL.embed([chunks[0].content])
        folder.marks["vector"] = vector.tobytes()
        folder.marks["vector, halved"] = vector.astype(np.float16).tobytes()
        hashes = "SELECT hash, text_hash FROM chunks WHERE content LIKE 'say %'"
        async with self.store.database.transaction() as conn:
            ((hash_, text_hash),) = await (await conn.execute(hashes)).fetchall()
        folder.marks["hash"], folder.marks["hash of the text"] = bytes(hash_), bytes(text_hash)

    async def be_cancelled(self) -> None:
        """An append that waits for a lock until the server cancels it, which the server's log tells of."""
        chunks = [Chunk(f"say {self.folder.mark('cancelled content')}")]

        async def append() -> None:
            with pytest.raises(DatabaseError, match="57014"):
                await self.files.append(self.key, chunks)

        with psycopg.connect(self.admin.info.dsn) as holder:
            holder.execute("SELECT FROM chunkstore.files FOR UPDATE")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(append)
                await until(self.store, WAITING)
                self.admin.execute(CANCEL_WHO_WAITS)


@pytest.fixture(scope="module")
async def erased() -> AsyncIterator[Erased]:
    """A store on a server of its own, a file of which was written, erased, vacuumed away and scrubbed."""
    with (
        tempfile.TemporaryDirectory(prefix="chunkstore-erased-") as path,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(indexes, "INDEX_FROM_ROWS", 50)
        async with await ChunkStore.open(data=path, migrate=True) as store:
            server = EmbeddedServer(Path(path))
            with psycopg.connect(server.dsn.conninfo(), autocommit=True) as admin:
                files = await store.collection("docs", model=MODEL)
                erased = Erased(store, files, Folder(Path(path), admin), admin)
                for _ in range(3):  # files of the log that are used again before the one with the marks
                    admin.execute(NEXT_LOG_FILE)
                admin.execute("CHECKPOINT")
                await erased.write()
                await erased.be_cancelled()
                admin.execute("VACUUM ANALYZE")
                erased.look("written")
                await files.erase(erased.key)
                erased.look("erased")
                admin.execute("VACUUM ANALYZE")
                admin.execute(NEXT_LOG_FILE)
                erased.look("vacuumed")
                await scrub.scrub(store.database)
                erased.look("scrubbed")
                yield erased


WRITTEN: Found = {
    "content": {"chunks", "log"},
    "long content": {"chunks, toasted", "log"},
    "metadata": {"chunks", "log"},
    "refused content": {"chunks", "dead_letters", "log"},
    "key": {"files", "files_collection_key_key", "log"},
    "idempotency key": {"idempotency_keys", "idempotency_keys_pkey", "log"},
    "version metadata": {"versions", "log"},
    "vector": {"embeddings", "log"},
    "vector, halved": {"search_1_1", "search_1_1_hnsw", "log"},
    "hash": {"chunks", "segments", "log"},
    "hash of the text": {"chunks", "log"},
    "hash of the source": {"sources", "log"},
    "cancelled content": set(),
}
"""Where each mark is while its file is there: in these tables and indexes and in the write-ahead log."""


async def test_while_a_file_is_there_its_bytes_are_in_its_tables_and_the_write_ahead_log_alone(
    erased: Erased,
) -> None:
    assert erased.found["written"] == WRITTEN


async def test_after_an_erasure_bytes_stay_where_they_were_and_come_nowhere_else(erased: Erased) -> None:
    for step in ("erased", "vacuumed"):
        for what, places in erased.found[step].items():
            assert places <= WRITTEN[what], (step, what)


async def test_a_vacuum_alone_leaves_bytes_in_pages_and_in_log_files_with_a_new_name(erased: Erased) -> None:
    assert {"chunks", "log"} <= erased.found["vacuumed"]["content"]


async def test_after_a_scrub_no_byte_of_what_was_erased_is_in_the_servers_folder(erased: Erased) -> None:
    assert {what: places for what, places in erased.found["scrubbed"].items() if places} == {}


async def test_the_servers_log_tells_of_a_statement_that_failed_and_not_of_its_values(erased: Erased) -> None:
    log = EmbeddedServer(erased.folder.path).log.read_text()
    assert "canceling statement due to user request" in log
    assert erased.folder.marks["cancelled content"].decode() not in log


async def test_a_scrubbed_store_is_whole_and_goes_on(erased: Erased) -> None:
    assert (await verify(erased.store)).broken == []
    await erased.files.append("later", [Chunk("other 3 3, again")])
    await EmbeddingConsumer(erased.store, MODEL).run(drain=True)
    await Projector(erased.store, MODEL.name).run(drain=True)
    hits = await erased.files.search(MODEL.embed(["other 3 3"])[0], k=101)
    assert len({hit.key for hit in hits}) == 21


async def test_a_scrub_waits_for_whoever_may_still_read_what_was_erased_and_names_him(
    erased: Erased, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "_PATIENCE_SECONDS", 0.5)
    await erased.files.append("read", [Chunk(f"say {erased.folder.mark('content that is read')}")])
    with psycopg.connect(erased.admin.info.dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT FROM chunkstore.models")  # holds no lock that would keep a scrub waiting
        await erased.files.erase("read")
        with pytest.raises(DatabaseError, match=f"process {reader.info.backend_pid}; end it"):
            await scrub.scrub(erased.store.database)
    await scrub.scrub(erased.store.database)
    assert erased.folder.find()["content that is read"] == set()


async def test_the_page_about_erasing_names_every_place(erased: Erased) -> None:
    table = PAGE.read_text().partition("## What stays on the disk")[2]
    for place in set[str]().union(*WRITTEN.values()) - {"log"}:
        assert f"`{place.partition(',')[0].replace('search_1_1', 'search_C_M')}`" in table
