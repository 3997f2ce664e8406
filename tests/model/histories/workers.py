"""The steps of consumers, projectors and the collector, also of those who come too late."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, consumes, multiple, precondition, rule

from chunkstore import dead_letters, embeddings, leases, rows
from chunkstore.embeddings import Owed
from chunkstore.errors import LeaseLost
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, FileId
from projections import active, projector
from projections.collector import COLLECTOR
from projections.projector import Projector
from projections.rebuild import rebuild
from tests.model.histories.arena import PARTITIONS, Arena
from tests.model.histories.writers import Writers
from tests.store.rules.fix_interleave import vectors_for

_LEASE_SECONDS = 3600
_SOME_EVENTS = 3
"""What a projector reads that stops on the way."""

numbers = st.integers(0, 7)
partitions = st.sampled_from([0, 0, *range(PARTITIONS)])
outcomes = st.sampled_from(["complete"] * 4 + ["fail", "fail after some", "give up"])


class InHand:
    """A range that a consumer has in hand; `lost` once somebody else claimed it."""

    def __init__(self, lease: Lease, owed: list[Owed]) -> None:
        self.lease = lease
        self.chunks: list[ChunkId] = [chunk.chunk_id for chunk in owed]
        self.lost = False


class Workers(Writers):
    """Consumers with ranges in hand, projectors and a collector."""

    in_hand: Bundle[InHand] = Bundle("in_hand")
    zombies: Bundle[InHand] = Bundle("zombies")

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.claimed: list[InHand] = []

    # --- consumers ------------------------------------------------------------------------------

    @rule(target=in_hand, batch=st.sampled_from([1, 1, 2, 8]))
    def claim(self, batch: int) -> InHand | MultipleResults[InHand]:
        held = self._claim(batch)
        return multiple() if held is None else held

    def _claim(self, batch: int) -> InHand | None:
        async def claim() -> InHand | None:
            group = leases.embedding_group(self.world.model)
            async with self.database.transaction() as conn:
                lease = await leases.claim(conn, group, batch=batch, seconds=_LEASE_SECONDS, owner="test")
                if lease is None:
                    return None
                return InHand(lease, await embeddings.owed(conn, lease, self.world.model))

        held = self.call(claim)
        if held is not None:
            self._check_owed(held)
            for other in self.claimed:
                other.lost |= (other.lease.partition, other.lease.lo) == (held.lease.partition, held.lease.lo)
            self.claimed.append(held)
        return held

    def _check_owed(self, held: InHand) -> None:
        """Nobody is given what is gone, embedded or discarded: it would be paid for in vain."""
        for chunk in held.chunks:
            file = self.expected.holder(chunk)
            assert file is not None
            assert chunk not in file.embedded
            assert file.letters.get(chunk) != "discarded"

    @rule(held=consumes(in_hand), how=outcomes)
    def finish(self, held: InHand, how: str) -> None:
        self._finish(held, how)

    @rule(target=zombies, held=consumes(in_hand), how=st.sampled_from(["taken over", "not yet"]))
    def lose_lease(self, held: InHand, how: str) -> InHand:
        """Its lease runs out and somebody else does the work, or has not claimed it yet."""
        self.call(self.world.expire, held.lease)
        if how == "taken over":
            other = self._claim(8)
            assert other is not None
            self._finish(other, "complete")
        return held

    @rule(held=consumes(zombies), how=outcomes)
    def come_back(self, held: InHand, how: str) -> None:
        """Who lost a lease does not know it, and finishes."""
        self._finish(held, how)

    @rule()
    def give_one_up(self) -> None:
        held = self._claim(1)
        if held is not None:
            self._finish(held, "give up")

    def _finish(self, held: InHand, how: str) -> None:
        """Stores the vectors; or the model refuses the range, perhaps after some of them."""
        if how == "complete":
            self._store(held, held.chunks, finished=True)
        elif how == "give up" and held.lease.is_single and held.chunks:
            self._give_up(held, held.chunks[0])
        else:
            if how == "fail after some":
                self._store(held, held.chunks[: len(held.chunks) // 2], finished=False)
            self.both(lambda: self._if_held(held), self._hand_back, held)

    def _store(self, held: InHand, chunks: list[ChunkId], *, finished: bool) -> None:
        async def complete() -> list[ChunkId]:
            async with self.database.transaction() as conn:
                vectors = vectors_for(chunks)
                return await embeddings.complete(
                    conn, held.lease, self.world.model, chunks, vectors, finished=finished
                )

        answers = self.both(lambda: self._if_held(held).embed(chunks), complete)
        assert answers is None or answers[0] == answers[1], "the chunks that were new"

    def _if_held(self, held: InHand) -> Any:
        if held.lost:
            raise LeaseLost
        return self.expected

    async def _hand_back(self, held: InHand) -> None:
        """The range is halved, or the attempt of its one chunk counted."""
        async with self.database.transaction() as conn:
            if held.lease.is_single:
                await leases.count_attempt(conn, held.lease, delay=0)
            else:
                await leases.halve(conn, held.lease)

    def _give_up(self, held: InHand, chunk: ChunkId) -> None:
        async def give_up() -> bool:
            async with self.database.transaction() as conn:
                return await dead_letters.give_up(
                    conn, held.lease, self.world.model, chunk, attempts=3, error="no"
                )

        answers = self.both(lambda: self._if_held(held).give_up(chunk), give_up)
        assert answers is None or answers[0] == answers[1]

    def embed_all(self) -> None:
        """A consumer works until nothing is left to claim."""
        while held := self._claim(8):
            self._finish(held, "complete")

    @precondition(lambda self: self.expected.letters())
    @rule(number=numbers, how=st.sampled_from(["retry", "discard"]))
    def settle_letter(self, number: int, how: str) -> None:
        letters = self.expected.letters()
        chunk = letters[number % len(letters)]
        if how == "retry":
            self.both(lambda: self.expected.retry(chunk), self.world.collection.retry, chunk)
        else:
            self.both(lambda: self.expected.discard(chunk), self.world.collection.discard, chunk)

    # --- projectors -----------------------------------------------------------------------------

    @rule(
        partition=partitions,
        how=st.sampled_from(["whole"] * 4 + ["a part", "dies", "too late"]),
    )
    def project(self, partition: int, how: str) -> None:
        """To the head, or a few events; or it switches and dies, perhaps under a lost lease."""
        if how == "whole":
            self.project_whole(partition)
        elif how == "a part":
            self.call(self._project, partition, _SOME_EVENTS)
            self.expected.activate(partition, whole=False)
        else:
            late = how == "too late"
            self.both(lambda: self._expect_death(partition, late), self._project_and_die, partition, late)

    def project_whole(self, partition: int) -> None:
        while self.call(self._project, partition, projector._EVENTS):
            pass
        self.expected.activate(partition)

    async def _project(self, partition: int, events: int) -> bool:
        group = leases.projector_group(self.world.model)
        with self.world.monkeypatch.context() as patched:
            patched.setattr(projector, "_EVENTS", events)
            return await Projector(self.world.store, "hashing-8")._project(group, self.world.model, partition)

    def _expect_death(self, partition: int, late: bool) -> None:
        self.expected.activate(partition)
        if late:
            raise LeaseLost

    async def _project_and_die(self, partition: int, late: bool) -> None:
        """It switches what is complete and dies before its checkpoint moves; or it is too late for that."""
        held = await self.world.checkpoint(partition)
        if late:
            await self.world.value(
                "UPDATE progress SET expires = '-infinity'"
                " WHERE consumer_group = %(group)s AND partition = %(partition)s RETURNING 1",
                group=held.group,
                partition=partition,
            )
            while await self._project(partition, projector._EVENTS):
                pass
        files: list[FileId] = await self.world.values(
            "SELECT file FROM files WHERE partition = %(partition)s ORDER BY file", partition=partition
        )
        await active.activate(self.database, held, self.world.model, files)
        async with self.database.transaction() as conn:
            await leases.release_checkpoint(conn, held, position=held.position)

    # --- collector, rebuild ---------------------------------------------------------------------

    @rule(
        number=numbers,
        how=st.sampled_from(["decide", "decide", "sweep some", "sweep some", "collect", "rebuild"]),
    )
    def tidy(self, number: int, how: str) -> None:
        """Decides on versions, sweeps a segment of a file, does all of that, or rebuilds the projections."""
        match how:
            case "decide":
                self._decide()
            case "sweep some":
                self.call(self._sweep_some, number)
                self.swept = True
            case "collect":
                self.collect()
            case _:
                self.call(rebuild, self.world.store, self.world.collection.name)

    def _decide(self) -> None:
        self.call(self.collector.decide, self.world.number)
        self.expected.collect()

    async def _sweep_some(self, number: int) -> None:
        async with self.database.transaction() as conn:
            files = await rows.fetch_values(conn, COLLECTOR.to_sweep, {"collection": None, "after": 0})
            if files:
                params = {"file": files[number % len(files)], "segments": 1, "limit": 1000}
                await conn.execute(COLLECTOR.sweep_segments, params)

    def collect(self) -> None:
        """All that the collector does; nothing is left then that no live version names."""
        self._decide()
        self.call(self.collector.sweep, None)
        self.swept = True
        self.compare()
        for file in self.expected.files.values():
            assert file.contents.keys() == file.named(), f"file {file.key}: chunks are left over"
