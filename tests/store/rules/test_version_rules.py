"""Versions: rules 5 to 9."""

from collections.abc import AsyncIterator

import anyio
import pytest

from chunkstore import append as appending
from chunkstore import catalog, dead_letters, embeddings, leases, reuse, versions
from chunkstore.errors import DatabaseError, IdempotencyKeyReused, StaleVersion, UnknownFile, VersionFenced
from chunkstore.model import Chunk, Version
from chunkstore.models import open_model
from projections.collector import collect
from tests.store.rules.fix_interleave import Session, World

BATCH = 600


@pytest.fixture(autouse=True)
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a short append be streamed."""
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", BATCH)


class Stream:
    """Chunks for a streamed append that stops before its last batch until the test lets it go on."""

    def __init__(self, name: str, *, held: bool = True) -> None:
        self._name = name
        self.reached = anyio.Event()
        self.go_on = anyio.Event()
        if not held:
            self.go_on.set()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for i in range(2 * BATCH):
            yield Chunk(f"{self._name} {i}")
        # The first two batches are asked for together; the version is open once the third is.
        self.reached.set()
        await self.go_on.wait()
        yield Chunk(f"{self._name} last")


async def streamed(world: World, stream: Stream, **options: object) -> Version:
    return await world.collection.append("doc", stream, **options)  # pyright: ignore[reportArgumentType]


# --- rule 5: every batch and the commit check that the version is still open -----------------------


async def abandoned_and_swept(world: World) -> None:
    """The open version passes its deadline and the collector comes by."""
    await world.value("UPDATE versions SET deadline = '-infinity' WHERE state = 'open' RETURNING 1")
    report = await collect(world.store)
    assert report.abandoned == 1


async def a_slow_writer_is_overtaken_by_the_collector(world: World) -> Version:
    stream = Stream("chunk")
    result: list[Version] = []

    async def write() -> None:
        result.append(await streamed(world, stream))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await stream.reached.wait()
        await abandoned_and_swept(world)
        stream.go_on.set()
    return result[0]


async def test_rule_05_a_slow_writer_whose_version_was_abandoned_is_fenced_off(world: World) -> None:
    with pytest.RaisesGroup(VersionFenced):
        await a_slow_writer_is_overtaken_by_the_collector(world)
    assert await world.values("SELECT state FROM versions") == ["abandoned"]
    assert await world.damage() == []


async def test_without_rule_05_a_slow_writer_commits_a_version_that_was_swept(world: World) -> None:
    # The rule stands twice: asked under the lock, and in the statements that extend and commit.
    world.without_sql(versions.VERSIONS, "is_open", "AND state = 'open'")
    world.without_sql(versions.VERSIONS, "extend", "AND state = 'open'")
    world.without_sql(versions.VERSIONS, "commit", "AND state = 'open'")
    version = await a_slow_writer_is_overtaken_by_the_collector(world)
    assert version.chunks == 2 * BATCH + 1
    assert "a version's manifest is not as long as it says" in await world.damage()


async def a_batch_meets_the_collectors_decision(world: World) -> None:
    """The collector has abandoned the version and not committed when its writer's batch comes."""
    await world.append("doc", "one")
    file = await world.file_of("doc")
    collector, writer = await world.begun(), await world.begun()
    version = await versions.open_version(writer.conn, file, b"{}")
    await writer.commit()
    await writer.begin()
    await collector.conn.execute(versions.VERSIONS.lock_known_file, {"file": file})
    await collector.conn.execute(versions.VERSIONS.abandon, {"file": file, "version": version})
    waiting = await world.races(versions.lock_open(writer.conn, file, version), against=collector)
    await collector.commit()
    await waiting


async def test_rule_05_a_batch_that_waited_for_the_collector_is_fenced_off(world: World) -> None:
    with pytest.raises(VersionFenced, match="version 2 is not open any more"):
        await a_batch_meets_the_collectors_decision(world)


async def test_without_rule_05_a_batch_that_takes_no_lock_is_let_through(world: World) -> None:
    world.without_sql(versions.VERSIONS, "lock_known_file", "FOR NO KEY UPDATE")
    await a_batch_meets_the_collectors_decision(world)


async def a_slow_writers_file_is_erased(world: World) -> None:
    stream = Stream("chunk")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(streamed, world, stream)
        await stream.reached.wait()
        await world.collection.erase("doc")
        stream.go_on.set()


async def test_rule_05_a_slow_writer_whose_file_was_erased_is_fenced_off(world: World) -> None:
    with pytest.RaisesGroup(VersionFenced):
        await a_slow_writers_file_is_erased(world)
    assert await world.damage() == []


async def test_without_rule_05_a_writer_of_an_erased_file_gets_no_clear_error(world: World) -> None:
    world.without_sql(versions.VERSIONS, "is_open", "SELECT EXISTS", "SELECT true OR EXISTS")
    # Kept a second time: the row to extend is gone, so nothing is written, and nothing is explained.
    with pytest.RaisesGroup(AssertionError):
        await a_slow_writers_file_is_erased(world)
    assert await world.damage() == []


# --- rule 6: the counter survives abandonment, the row survives erasure ----------------------------


async def an_append_after_an_abandoned_version(world: World) -> int:
    stream = Stream("chunk")
    with pytest.RaisesGroup(VersionFenced):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(streamed, world, stream)
            await stream.reached.wait()
            await abandoned_and_swept(world)
            stream.go_on.set()
    return await world.append("doc", "one")


async def test_rule_06_an_abandoned_number_is_never_used_again(world: World) -> None:
    assert await an_append_after_an_abandoned_version(world) == 2


async def test_without_rule_06_a_number_comes_back(world: World) -> None:
    world.without_sql(
        versions.VERSIONS,
        "insert_committed",
        "SET last_version = last_version + 1, latest = last_version + 1, target = last_version + 1",
        "SET last_version = latest + 1, latest = latest + 1, target = latest + 1",
    )
    with pytest.raises(DatabaseError, match="versions_pkey"):
        await an_append_after_an_abandoned_version(world)


LOCK_BY_KEY = """
        SELECT file INTO _file
        FROM files
        WHERE collection = _collection AND key = _key
        FOR NO KEY UPDATE;
"""
LOCK_BY_NUMBER = """
        SELECT file INTO _file FROM files WHERE collection = _collection AND key = _key;
        PERFORM FROM files WHERE file = _file FOR NO KEY UPDATE;
"""


async def an_append_waits_for_an_erasure(world: World) -> None:
    """The file is erased and not yet committed when a writer comes."""
    await world.append("doc", "one")
    erasure = await world.begun()
    await erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    waiting = await world.waits(world.append("doc", "two"), on=erasure)
    await erasure.commit()
    assert await waiting in (1, 2)


async def test_rule_06_an_append_that_waited_for_an_erasure_makes_a_new_file(world: World) -> None:
    await an_append_waits_for_an_erasure(world)
    assert [version.number for version in await world.collection.history("doc")] == [1]
    assert await world.value("SELECT count(*) FROM files") == 2
    assert await world.damage() == []


async def test_without_rule_06_an_append_is_lost_in_an_erased_file(world: World) -> None:
    await world.without("lock_file", LOCK_BY_KEY, LOCK_BY_NUMBER)
    await an_append_waits_for_an_erasure(world)
    with pytest.raises(UnknownFile):
        await world.collection.history("doc")
    assert await world.value("SELECT count(*) FROM chunks WHERE content = 'two'") == 1


async def an_append_after_an_erasure(world: World) -> list[int]:
    await world.append("doc", "one")
    await world.collection.erase("doc")
    await world.append("doc", "one")
    return await world.values("SELECT file FROM events WHERE type = 'version_committed' ORDER BY recorded_at")


async def test_rule_06_an_append_after_an_erasure_makes_a_new_file(world: World) -> None:
    first, second = await an_append_after_an_erasure(world)
    assert second != first
    assert await world.values("SELECT key FROM files ORDER BY file") == [None, "doc"]


async def test_without_rule_06_an_erased_file_keeps_its_name(world: World) -> None:
    await world.without("erase_file", "key = NULL, ")
    first, second = await an_append_after_an_erasure(world)
    assert second == first, "old events and new ones name one file, whose version 1 was two things"


# --- rule 7: expected_version and the idempotency key, at open and again at commit -----------------

CHECK_EXPECTED = "versions.check_expected(state, write.expected_version)"


async def a_stream_is_overtaken(world: World, expected_version: int) -> Version:
    """Version 2 is still streaming when version 3 is committed."""
    await world.append("doc", "one")
    stream = Stream("chunk")
    result: list[Version] = []

    async def write() -> None:
        result.append(await streamed(world, stream, expected_version=expected_version))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await stream.reached.wait()
        assert await world.append("doc", "newer") == 3
        stream.go_on.set()
    return result[0]


async def test_rule_07_the_expected_version_is_checked_again_at_the_commit(world: World) -> None:
    with pytest.RaisesGroup(StaleVersion):
        await a_stream_is_overtaken(world, expected_version=1)
    assert await world.values("SELECT state FROM versions ORDER BY version") == [
        "committed",
        "abandoned",
        "committed",
    ]


async def test_without_rule_07_a_stale_stream_commits(world: World) -> None:
    world.without_python(appending, "_settled", CHECK_EXPECTED)
    assert (await a_stream_is_overtaken(world, expected_version=1)).number == 2


async def test_rule_07_the_expected_version_is_checked_before_anything_is_streamed(world: World) -> None:
    await world.append("doc", "one")
    with pytest.raises(StaleVersion):
        await streamed(world, Stream("chunk", held=False), expected_version=7)
    assert await world.value("SELECT count(*) FROM versions") == 1


async def test_without_rule_07_a_stale_stream_is_written_whole_before_it_is_refused(world: World) -> None:
    world.without_python(appending, "_append_streamed", CHECK_EXPECTED)
    await world.append("doc", "one")
    with pytest.raises(StaleVersion):
        await streamed(world, Stream("chunk", held=False), expected_version=7)
    assert await world.value("SELECT count(*) FROM versions") == 2


async def one_append_is_sent_twice_at_once(world: World) -> tuple[Version, int]:
    """Both tries are open, neither knows of the other; another version comes between their commits."""
    first, second = Stream("chunk"), Stream("chunk")
    result: list[Version] = []

    async def write(stream: Stream) -> None:
        result.append(await streamed(world, stream, idempotency_key="once"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, second)
        await second.reached.wait()
        async with anyio.create_task_group() as earlier:
            earlier.start_soon(write, first)
            first.go_on.set()
        newer = await world.append("doc", "newer")
        second.go_on.set()
    return result[-1], newer


async def test_rule_07_the_second_try_finds_the_first_at_its_commit(world: World) -> None:
    retried, newer = await one_append_is_sent_twice_at_once(world)
    assert (retried.number, retried.unchanged, newer) == (2, True, 3)
    assert [version.target for version in await world.collection.history("doc")] == [False, False, True]


async def test_without_rule_07_the_second_try_violates_a_constraint(world: World) -> None:
    world.without_python(
        appending, "_settled", "earlier = versions.check_idempotency(state, digest)", "earlier = None"
    )
    with pytest.RaisesGroup(pytest.RaisesExc(DatabaseError, match="idempotency_keys_pkey")):
        await one_append_is_sent_twice_at_once(world)


OPEN_VERSION = "version = await versions.open_version(conn, state.file, write.encoded_metadata)"
OPEN_AND_RECORD = (
    OPEN_VERSION + "; await versions.record_idempotency_key("
    "conn, state.file, write.idempotency_key, version, versions.Segmenter().digest(b'{}'))"
)


async def a_try_is_cut_off_and_sent_again(world: World) -> Version:
    """The first try's process dies in the middle; the second is a retry with the same key."""
    stream = Stream("chunk")
    with anyio.CancelScope() as process:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: streamed(world, stream, idempotency_key="once"))
            await stream.reached.wait()
            process.cancel()
    return await streamed(world, Stream("chunk", held=False), idempotency_key="once")


async def test_rule_07_a_try_that_was_cut_off_leaves_no_key(world: World) -> None:
    retried = await a_try_is_cut_off_and_sent_again(world)
    assert (retried.number, retried.unchanged) == (2, False)
    assert await world.values("SELECT version FROM idempotency_keys") == [2]


async def test_without_rule_07_a_key_recorded_at_the_opening_names_what_never_was(world: World) -> None:
    world.monkeypatch.setattr(versions, "Segmenter", appending.Segmenter, raising=False)
    world.without_python(appending, "_append_streamed", OPEN_VERSION, OPEN_AND_RECORD)
    with pytest.raises(IdempotencyKeyReused, match="used for version 1"):
        await a_try_is_cut_off_and_sent_again(world)


async def two_tries_meet_at_the_files_lock(world: World) -> tuple[Version, Version]:
    """The first try has written and not committed when the second comes."""
    await world.append("doc", "zero")
    file = await world.file_of("doc")
    a = await world.begun()
    await a.conn.execute(versions.VERSIONS.lock_known_file, {"file": file})
    both = await world.waits(_twice(world), on=a, count=1)
    await a.commit()
    first, second = await both
    return first, second


async def _twice(world: World) -> list[Version]:
    found: list[Version] = []

    async def write() -> None:
        found.append(await world.collection.append("doc", [Chunk("one")], idempotency_key="once"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        tasks.start_soon(write)
    return found


async def test_rule_07_two_tries_at_once_are_one_version(world: World) -> None:
    first, second = await two_tries_meet_at_the_files_lock(world)
    assert first.number == second.number == 2
    assert {first.unchanged, second.unchanged} == {False, True}


# --- rule 8: every chunk of the manifest that has no embedding is logged ---------------------------

LOOK_UP = """missing = set(
        await chunks.unembedded(
            conn,
            state.file,
            segments=stored.shared,
            chunks=stored.carried,
            found_in=stored.carried_from,
            models=state.models,
        )
    )"""


async def a_chunk_is_skipped_and_comes_back(world: World) -> list[str]:
    """Version 2 drops a chunk before it was embedded; version 3 has it again."""
    await world.append("doc", "one")
    await world.append("doc", "two")
    await world.drain()
    await world.append("doc", "one")
    await world.drain()
    return await embedded(world)


async def embedded(world: World) -> list[str]:
    return await world.values("SELECT content FROM chunks JOIN embeddings USING (chunk_id) ORDER BY 1")


async def test_rule_08_an_append_logs_a_reused_chunk_that_was_never_embedded(world: World) -> None:
    assert await a_chunk_is_skipped_and_comes_back(world) == ["one", "two"]


async def test_without_rule_08_a_reused_chunk_is_never_embedded(world: World) -> None:
    world.without_python(versions, "log_version", LOOK_UP, "missing = set()")
    assert await a_chunk_is_skipped_and_comes_back(world) == ["two"]


async def a_skipped_version_is_rolled_back_to(world: World) -> list[str]:
    await world.append("doc", "one")
    await world.append("doc", "two")
    await world.drain()
    await world.collection.rollback("doc", 1)
    await world.drain()
    return await embedded(world)


async def test_rule_08_a_rollback_logs_what_was_never_embedded(world: World) -> None:
    assert await a_skipped_version_is_rolled_back_to(world) == ["one", "two"]


async def test_without_rule_08_a_rollback_waits_for_ever(world: World) -> None:
    world.without_python(versions, "log_version", LOOK_UP, "missing = set()")
    assert await a_skipped_version_is_rolled_back_to(world) == ["two"]


UNCHANGED_LOGS = "await versions.log_latest(conn, write.collection, state)"


async def an_unchanged_append_of_a_dead_letter(world: World) -> list[str]:
    await world.append("doc", "one")
    await given_up(world, "one")
    version = await world.collection.append("doc", [Chunk("one")])
    assert version.unchanged
    await world.drain()
    return await embedded(world)


async def given_up(world: World, content: str) -> None:
    """A consumer gives the one chunk up."""
    lease = await world.claimed()
    async with world.store.database.transaction() as conn:
        chunk = await world.chunk(content)
        assert await dead_letters.give_up(conn, lease, world.model, chunk, attempts=3, error="no")


async def test_rule_08_an_unchanged_append_retries_a_dead_letter(world: World) -> None:
    assert await an_unchanged_append_of_a_dead_letter(world) == ["one"]


async def test_without_rule_08_an_unchanged_append_leaves_a_dead_letter(world: World) -> None:
    world.without_python(appending, "_settled", UNCHANGED_LOGS)
    assert await an_unchanged_append_of_a_dead_letter(world) == []


async def a_chunk_is_given_up_in_what_is_active(world: World) -> None:
    """A chunk was discarded, its version became active, the chunk was taken back and given up again."""
    await world.append("doc", "bad", "good")
    lease = await world.claimed()
    bad, good = await world.chunk("bad"), await world.chunk("good")
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), lease, [good], finished=False)
        await dead_letters.give_up(conn, lease, world.model, bad, attempts=3, error="no")
    await world.collection.discard(bad)
    assert await world.activate("doc") == {"doc": "active"}
    await world.collection.retry(bad)
    await given_up(world, "bad")


async def a_dead_letter_in_what_is_active(world: World) -> list[str]:
    """Returns what an append of the same content, and the model's recovery, embed."""
    await a_chunk_is_given_up_in_what_is_active(world)
    assert (await world.collection.append("doc", [Chunk("bad"), Chunk("good")])).unchanged
    await world.drain()
    return await embedded(world)


async def test_rule_08_an_unchanged_append_retries_a_dead_letter_of_what_is_active(world: World) -> None:
    assert await a_dead_letter_in_what_is_active(world) == ["bad", "good"]


async def test_without_rule_08_a_dead_letter_of_what_is_active_stays(world: World) -> None:
    await world.without("unembedded", "d.state = 'open'", "false")
    assert await a_dead_letter_in_what_is_active(world) == ["good"]


async def a_carried_chunk_given_up_in_what_is_active(world: World) -> list[str]:
    """The append adds a chunk: the one given up is carried from a segment that is active."""
    await a_chunk_is_given_up_in_what_is_active(world)
    await world.append("doc", "bad", "good", "new")
    await world.drain()
    return await embedded(world)


async def test_rule_08_a_carried_dead_letter_of_what_is_active_is_retried(world: World) -> None:
    assert await a_carried_chunk_given_up_in_what_is_active(world) == ["bad", "good", "new"]


async def test_without_rule_08_a_carried_dead_letter_stays(world: World) -> None:
    await world.without(
        "unembedded",
        "SELECT unnest(given_up.chunks) INTERSECT SELECT unnest(_chunks)",
        "SELECT 0 WHERE false",
    )
    assert await a_carried_chunk_given_up_in_what_is_active(world) == ["good", "new"]


async def a_skipped_chunk_is_carried_from_the_latest(world: World) -> list[str]:
    """A rollback supersedes the latest before it is embedded; the next append carries its chunk on."""
    await world.append("doc", "one")
    await world.drain()
    assert await world.activate("doc") == {"doc": "active"}
    await world.append("doc", "one", "two")
    await world.collection.rollback("doc", 1)
    await world.drain()
    await world.append("doc", "one", "two", "three")
    await world.drain()
    return await embedded(world)


async def test_rule_08_a_chunk_carried_from_a_latest_that_is_not_active_is_looked_up(world: World) -> None:
    assert await a_skipped_chunk_is_carried_from_the_latest(world) == ["one", "three", "two"]


async def test_without_rule_08_a_chunk_carried_from_a_latest_is_never_embedded(world: World) -> None:
    await world.without(
        "unembedded", "EXISTS (SELECT unnest(_found_in) EXCEPT SELECT unnest(active.segments))", "false"
    )
    assert await a_skipped_chunk_is_carried_from_the_latest(world) == ["one", "three"]


async def a_skipped_chunk_is_found_by_its_hash(world: World) -> list[str]:
    """Version 2 is active without a chunk that was never embedded; version 3 takes it back."""
    world.monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 4096)  # at once, not streamed
    long = [f"line {i}" for i in range(3000)]
    await world.append("doc", *long, "two")
    await world.append("doc", *long)
    await world.drain()
    assert await world.activate("doc") == {"doc": "active"}
    await world.append("doc", *long, "two", "three")
    await world.drain()
    return [content for content in await embedded(world) if not content.startswith("line")]


async def test_rule_08_a_chunk_found_by_its_hash_is_looked_up(world: World) -> None:
    assert await a_skipped_chunk_is_found_by_its_hash(world) == ["three", "two"]


async def test_without_rule_08_a_chunk_found_by_its_hash_is_taken_for_active(world: World) -> None:
    world.without_python(reuse, "_match", "set() if by_hash else looked_in", "looked_in")
    assert await a_skipped_chunk_is_found_by_its_hash(world) == ["three"]


async def logged_beside_what_is_carried(world: World) -> int:
    """How many chunks an append logs whose segment holds two more, of the active version."""
    await world.append("doc", "one", "two")
    await world.drain()
    assert await world.activate("doc") == {"doc": "active"}
    observer = await world.observer()
    await observer.conn.execute(b"DELETE FROM embeddings")  # so that a look would find them lacking
    await world.append("doc", "one", "two", "three")
    runs = "SELECT sum(n) FROM events WHERE type = 'chunks_appended' AND version = 2"
    return await world.value(runs)


async def test_rule_16_what_is_carried_from_the_active_version_is_not_looked_up(world: World) -> None:
    assert await logged_beside_what_is_carried(world) == 1


async def test_without_rule_16_what_is_carried_is_looked_up(world: World) -> None:
    await world.without("unembedded", "_found_in = '{}' OR", "true OR")
    assert await logged_beside_what_is_carried(world) == 3


async def test_rule_08_an_unchanged_append_does_not_retry_what_was_discarded(world: World) -> None:
    await world.append("doc", "one")
    await given_up(world, "one")
    await world.collection.discard(await world.chunk("one"))
    logged = await world.logged("chunks_appended")
    assert (await world.collection.append("doc", [Chunk("one")])).unchanged
    assert await world.logged("chunks_appended") == logged


async def test_without_rule_08_what_was_discarded_comes_back_with_every_append(world: World) -> None:
    await world.without("unembedded", "d.state = 'discarded'", "d.state = 'never'")
    await world.append("doc", "one")
    await given_up(world, "one")
    await world.collection.discard(await world.chunk("one"))
    logged = await world.logged("chunks_appended")
    await world.append("doc", "one")
    assert await world.logged("chunks_appended") == logged + 1


async def the_latest_is_appended_after_a_rollback(world: World) -> Version:
    await world.append("doc", "one")
    await world.append("doc", "two")
    await world.collection.rollback("doc", 1)
    return await world.collection.append("doc", [Chunk("two")])


async def test_rule_08_after_a_rollback_the_latest_content_is_a_new_version(world: World) -> None:
    version = await the_latest_is_appended_after_a_rollback(world)
    assert (version.number, version.unchanged, version.replaced_rollback_to) == (3, False, 1)


async def test_without_rule_08_an_append_after_a_rollback_is_lost(world: World) -> None:
    world.without_python(versions, "is_unchanged", "and state.target == state.latest", "")
    version = await the_latest_is_appended_after_a_rollback(world)
    assert version.unchanged
    assert await world.value("SELECT target FROM files") == 1, "searches go on showing what was replaced"


# --- rule 9: the list of models is read again under the partition's lock ---------------------------

READ_AGAIN = "    WHERE collection = _collection AND model <> ALL (_models);\n"
NOT_READ = "    WHERE false;\n"


async def a_model_is_added_under_a_writer(world: World, write: str) -> list[int]:
    """A model is added between a writer's look at the models and its log, and its adder dies there and then.

    Returns the chunks that are logged for it: the back-fill, which would find them too, never comes.
    """
    for contents in (["one"], ["two"], ["one", "two"]):
        await world.append("doc", *contents)
        await world.drain()
    adder = await world.begun()
    known = await catalog._known_model(adder.conn, open_model("hashing:16"))
    await adder.conn.execute(catalog.COLLECTIONS.lock_all_partitions)
    await catalog._add_tables(adder.conn, world.collection.row.collection, known, backfilled=0)
    before = await world.value("SELECT count(*) FROM events")
    step = world.collection.rollback("doc", 1) if write == "rollback" else world.append("doc", "two", "one")
    waiting = await world.waits(step, on=adder)  # pyright: ignore[reportArgumentType]
    await adder.commit()
    await waiting
    assert await world.value("SELECT count(*) FROM events") > before
    async with world.store.database.transaction() as conn:
        group = leases.embedding_group(known.model)
        # The group is new to the store and replays the log; only what is logged from here on counts.
        await conn.execute(
            b"UPDATE progress SET position = (SELECT coalesce(max(last_offset) + 1, 0) FROM events e"
            b" WHERE e.partition = progress.partition AND e.recorded_at < %(since)s)"
            b" WHERE consumer_group = %(group)s",
            {"group": group, "since": await adder.value("SELECT max(added_at) FROM collection_models")},
        )
        lease = await leases.claim(conn, group, batch=256, seconds=60, owner="test")
        if lease is None:
            return []
        return [chunk.chunk_id for chunk in await embeddings.owed(conn, lease, known.model)]


@pytest.mark.parametrize("write", ["append", "rollback"])
async def test_rule_09_a_writer_logs_what_a_model_lacks_that_came_meanwhile(world: World, write: str) -> None:
    owed = await a_model_is_added_under_a_writer(world, write)
    assert len(owed) == (2 if write == "append" else 1)


@pytest.mark.parametrize("write", ["append", "rollback"])
async def test_without_rule_09_a_new_model_never_hears_of_the_version(world: World, write: str) -> None:
    await world.without("append_unless_late", READ_AGAIN, NOT_READ)
    assert await a_model_is_added_under_a_writer(world, write) == []
