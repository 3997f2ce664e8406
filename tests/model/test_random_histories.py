"""Random histories: every step of the protocol in any order, judged after each by what must always hold.

Each step is one transaction of some writer, consumer, projector or collector; ranges stay in hand over other
steps, leases run out, and who lost one comes back. A history is named by its seed.
"""

import random
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from chunkstore import append as appending
from chunkstore import embeddings, leases, manifests, versions
from chunkstore.chunks import prepare
from chunkstore.embeddings import Owed
from chunkstore.errors import LeaseLost, UnknownDeadLetter, UnknownFile, UnknownVersion, VersionFenced
from chunkstore.leases import Lease
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, FileId
from chunkstore.store import ChunkStore
from projections import active, collector, rebuild
from projections.collector import COLLECTOR
from projections.projector import Projector
from projections.verify import verify
from tests.store.rules.fix_interleave import World, vectors_for

STEPS = 150
KEYS = ("a", "b")
TEXTS = [f"text {i}" for i in range(9)]


class Stream:
    """A version that somebody streams, batch by batch."""

    def __init__(self, key: str, file: FileId, version: int) -> None:
        self.key, self.file, self.version = key, file, version
        self.segmenter = Segmenter()


class History:
    """One random history over two files, with what its actors have in hand."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.database = world.store.database
        self.told: list[str] = []
        self.streams: list[Stream] = []
        self.in_hand: list[tuple[Lease, list[Owed]]] = []
        self.contents: dict[tuple[int, int], list[str]] = {}
        self.projector = Projector(world.store, "hashing-8")
        self.collector = collector._Run(world.store, collector.CollectReport(), collector._silent)
        self.steps: dict[Callable[[], Awaitable[object]], float] = {
            self.append: 4,
            self.delete: 1,
            self.roll_back: 4,
            self.pin: 1,
            self.open_stream: 2,
            self.add_batch: 3,
            self.commit_stream: 2,
            self.abandon_overdue: 1,
            self.claim: 16,
            self.finish: 16,
            self.fail: 2,
            self.expire: 3,
            self.give_up: 3,
            self.retry: 2,
            self.discard: 3,
            self.project: 20,
            self.decide: 1.5,
            self.sweep: 3,
            self.erase: 0.5,
            self.rebuild: 0.5,
        }

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            (step,) = self.dice.choices(list(self.steps), list(self.steps.values()))
            self.told.append(step.__name__)
            await step()
            await self.judge()
        await self.drain()
        await self.judge()
        report = await verify(self.world.store)
        assert report.ok, report.broken
        await self.judge_drained()

    # --- writers --------------------------------------------------------------------------------

    def _key(self) -> str:
        return self.dice.choices(KEYS, [4, 1])[0]

    def _texts(self) -> list[str]:
        first = self.dice.randrange(len(TEXTS))
        texts = [*TEXTS[first : first + self.dice.randrange(1, 6)]]
        if self.dice.random() < 0.2:
            texts.insert(self.dice.randrange(len(texts) + 1), f"own {self.dice.randrange(1000)}")
        if self.dice.random() < 0.2:
            texts += texts[:2]
        return texts

    async def append(self) -> None:
        key, texts = self._key(), self._texts()
        version = await self.world.append(key, *texts)
        self.contents.setdefault((await self.world.file_of(key), version), texts)

    async def delete(self) -> None:
        key = self._key()
        try:
            version = await self.world.collection.delete(key)
        except UnknownFile:
            return
        self.contents[await self.world.file_of(key), version.number] = []

    async def roll_back(self) -> None:
        await self._with_version(self.world.collection.rollback)

    async def pin(self) -> None:
        await self._with_version(self.dice.choice([self.world.collection.pin, self.world.collection.unpin]))

    async def _with_version(self, act: Callable[[str, int], Awaitable[object]]) -> None:
        key = self._key()
        numbers = await self.world.values(
            "SELECT version FROM versions JOIN files USING (file) WHERE key = %(key)s ORDER BY version",
            key=key,
        )
        try:
            await act(key, self.dice.choice(numbers or [1]))
        except (UnknownFile, UnknownVersion):
            return

    async def erase(self) -> None:
        try:
            await self.world.collection.erase(self._key())
        except UnknownFile:
            return

    async def open_stream(self) -> None:
        key = self._key()
        async with self.database.transaction() as conn:
            state = await versions.lock(conn, self.world.collection.row.collection, key)
            version = await versions.open_version(conn, state.file, b"{}")
        self.streams.append(Stream(key, state.file, version))
        self.contents[state.file, version] = []

    async def add_batch(self) -> None:
        if not self.streams:
            return
        stream, texts = self.dice.choice(self.streams), self._texts()
        self.contents[stream.file, stream.version] += texts
        chunks = [prepare(Chunk(text), headings=True, position=0) for text in texts]
        drafts = list(stream.segmenter.feed(chunks))
        try:
            await appending._add_batch(
                self.database, self._write(stream), stream.file, stream.version, drafts
            )
        except VersionFenced:
            self.streams.remove(stream)

    async def commit_stream(self) -> None:
        if not self.streams:
            return
        stream = self.dice.choice(self.streams)
        self.streams.remove(stream)
        try:
            await appending._commit(
                self.database, self._write(stream), stream.file, stream.version, stream.segmenter
            )
        except VersionFenced:
            return

    def _write(self, stream: Stream) -> appending.Write:
        return self.world.collection._write(stream.key, None, None, None)

    # --- consumers ------------------------------------------------------------------------------

    async def claim(self) -> None:
        group = leases.embedding_group(self.world.model)
        async with self.database.transaction() as conn:
            batch = self.dice.choice([1, 2, 8])
            lease = await leases.claim(conn, group, batch=batch, seconds=60, owner="test")
            if lease is not None:
                self.in_hand.append((lease, await embeddings.owed(conn, lease, self.world.model)))

    async def finish(self) -> None:
        if self.in_hand:
            await self._finish(*self.in_hand.pop(self.dice.randrange(len(self.in_hand))))

    async def _finish(self, lease: Lease, owed: list[Owed]) -> None:
        chunks = [chunk.chunk_id for chunk in owed]
        try:
            async with self.database.transaction() as conn:
                await embeddings.complete(conn, lease, self.world.model, chunks, vectors_for(chunks))
        except LeaseLost:
            return

    async def fail(self) -> None:
        """The model refuses the range: it is halved, or the attempt of its one chunk is counted."""
        if not self.in_hand:
            return
        lease, _ = self.in_hand.pop(self.dice.randrange(len(self.in_hand)))
        try:
            async with self.database.transaction() as conn:
                if lease.is_single:
                    await leases.count_attempt(conn, lease, delay=0)
                else:
                    await leases.halve(conn, lease)
        except LeaseLost:
            return

    async def expire(self) -> None:
        """A lease's time is over; its consumer still has the range in hand and will come back."""
        if self.in_hand:
            await self.world.expire(self.dice.choice(self.in_hand)[0])

    async def give_up(self) -> None:
        single = [held for held in self.in_hand if held[0].is_single and held[1]]
        if not single:
            return
        self.in_hand.remove(held := self.dice.choice(single))
        lease, owed = held
        try:
            async with self.database.transaction() as conn:
                await embeddings.dead_letter(
                    conn, lease, self.world.model, owed[0].chunk_id, attempts=3, error="no"
                )
        except LeaseLost:
            return

    async def retry(self) -> None:
        await self._with_dead_letter(self.world.collection.retry)

    async def discard(self) -> None:
        await self._with_dead_letter(self.world.collection.discard)

    async def _with_dead_letter(self, act: Callable[..., Awaitable[object]]) -> None:
        letters = await self.world.collection.dead_letters()
        if letters:
            try:
                await act(self.dice.choice(letters).chunk_id)
            except UnknownDeadLetter:
                return

    # --- projector, collector -------------------------------------------------------------------

    async def project(self) -> None:
        """A batch of events of one partition; sometimes the projector dies before it moves its checkpoint."""
        async with self.database.transaction() as conn:
            behind = await leases.partitions_behind(conn, leases.projector_group(self.world.model))
        if not behind:
            return
        group, partition = leases.projector_group(self.world.model), self.dice.choice(behind)
        if self.dice.random() < 0.8:
            await self.projector._project(group, self.world.model, partition)
            return
        held = await self.world.checkpoint(partition)
        files = await self.world.values(
            "SELECT file FROM files WHERE partition = %(partition)s", partition=partition
        )
        await active.activate(self.database, held, self.world.model, files)
        async with self.database.transaction() as conn:
            await leases.release_checkpoint(conn, held, position=held.position)

    async def _is_there(self, key: str) -> bool:
        return bool(await self.world.value("SELECT count(*) FROM files WHERE key = %(key)s", key=key))

    async def abandon_overdue(self) -> None:
        open_ = await self.world.values(
            "SELECT file FROM versions WHERE state = 'open' ORDER BY file, version"
        )
        if open_:
            await self.world.value(
                "UPDATE versions SET deadline = '-infinity'"
                " WHERE state = 'open' AND file = %(file)s RETURNING 1",
                file=self.dice.choice(open_),
            )
            await self.collector.abandon_overdue()

    async def decide(self) -> None:
        await self.collector.decide(None)

    async def sweep(self) -> None:
        """One segment of one file, so that sweeps stay unfinished over other steps."""
        files = await self.world.values(
            "SELECT DISTINCT file FROM versions"
            " WHERE state IN ('abandoned', 'collected') AND segments <> '{}' ORDER BY file"
        )
        if files:
            async with self.database.transaction() as conn:
                params = {"file": self.dice.choice(files), "segments": 1, "limit": 1000}
                await conn.execute(COLLECTOR.sweep_segments, params)

    async def rebuild(self) -> None:
        await rebuild.rebuild(self.world.store, "docs")

    # --- what must hold -------------------------------------------------------------------------

    async def judge(self) -> None:
        assert await self.world.damage() == []
        await self.judge_searches()
        await self.judge_manifests()

    async def judge_searches(self) -> None:
        """A search sees, of every file, exactly the version that is active, but for what was discarded."""
        hits = await self.world.collection.search(np.ones(8), k=1000)
        seen = {(hit.key, hit.version) for hit in hits}
        assert len({key for key, _ in seen}) == len(seen), "one version of a file"
        for key, version in seen:
            file = await self.world.file_of(key)
            assert version == await self.world.active_version(key)
            found = {hit.content for hit in hits if hit.key == key}
            missing = set(self.contents[file, version]) - found
            assert found <= set(self.contents[file, version])
            assert missing <= await self._unembedded(file)

    async def _unembedded(self, file: int) -> set[str]:
        """Contents that were discarded once: they have a dead letter now, or were taken back."""
        return set(
            await self.world.values(
                "SELECT content FROM chunks c WHERE file = %(file)s"
                " AND NOT EXISTS (SELECT FROM embeddings e WHERE e.chunk_id = c.chunk_id)",
                file=file,
            )
        )

    async def judge_manifests(self) -> None:
        """Every committed version that is not collected reads as it was written."""
        for key in KEYS:
            if not await self._is_there(key):
                continue
            file = await self.world.file_of(key)
            numbers = await self.world.values(
                "SELECT version FROM versions WHERE file = %(file)s AND state = 'committed'", file=file
            )
            if numbers:
                number = self.dice.choice(numbers)
                chunks = self.world.collection.chunks(key, number)
                assert [chunk.content async for chunk in chunks] == self.contents[file, number]

    async def drain(self) -> None:
        """Everybody finishes: streams are committed, ranges embedded, events projected, garbage collected."""
        while self.streams:
            await self.commit_stream()
        await self.world.value("UPDATE leases SET expires = '-infinity' RETURNING 1")
        await self.world.drain()
        await self.projector.run(drain=True)
        await self.collector.abandon_overdue()
        await self.collector.decide(None)
        await self.collector.sweep()
        await self.projector.run(drain=True)

    async def judge_drained(self) -> None:
        """The active version is the target unless it waits on a dead letter; nothing superseded is staged."""
        for key in KEYS:
            if not await self._is_there(key):
                continue
            file = await self.world.file_of(key)
            target = await self.world.value("SELECT target FROM files WHERE file = %(file)s", file=file)
            waits = await self.world.value(
                "SELECT count(*) FROM dead_letters WHERE file = %(file)s AND state = 'open'", file=file
            )
            if target and not waits:
                assert await self.world.active_version(key) == target


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets short versions have many segments."""
    monkeypatch.setattr(manifests, "SEGMENT_MIN", 2)
    monkeypatch.setattr(manifests, "SEGMENT_MAX", 5)
    monkeypatch.setattr(manifests, "_BOUNDARY_MASK", 1)


@pytest.mark.parametrize("seed", range(5))
async def test_a_random_history_breaks_nothing(world: World, store: ChunkStore, seed: int) -> None:
    history = History(world, seed)
    try:
        await history.run(STEPS)
    except BaseException as error:
        error.add_note(f"seed {seed}, after: {' '.join(history.told)}")
        raise


REACHABLE = "SELECT unnest(_named) EXCEPT SELECT unnest(named_by(_file, _live, _named))"


async def test_a_random_history_finds_a_sweep_that_takes_too_much(world: World) -> None:
    await world.without("sweep_segments", REACHABLE, "SELECT unnest(_named)")
    with pytest.raises(AssertionError, match="a manifest names a chunk that is gone"):
        await History(world, seed=0).run(STEPS)
