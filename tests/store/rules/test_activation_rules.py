"""Activation: rules 15 to 18."""

import pytest

from chunkstore import append as appending
from chunkstore import dead_letters, rows, versions
from chunkstore.chunks import prepare
from chunkstore.events import ModelAdded
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, ChunkId
from projections.collector import collect
from projections.projector import Projector
from tests.store.rules.fix_interleave import Session, World

# --- rule 15: under the file's lock, the target afresh, and only to what is complete ---------------

FILES_LOCKED = "PERFORM FROM files f WHERE f.file = ANY (_files) ORDER BY f.file FOR NO KEY UPDATE;"


async def a_switch_meets_an_erasure(world: World) -> None:
    """The file is erased and that is not committed when the projector comes to switch it."""
    await world.append("doc", "one")
    await world.drain()
    file = await world.file_of("doc")
    erasure, projector = await world.begun(), await world.begun()
    await erasure.value("SELECT erase_file(%(collection)s, 'doc')", collection=world.number)
    switching = await world.races(world.activate("doc", session=projector), against=erasure)
    await erasure.commit()
    await switching
    await projector.commit()
    assert await world.value("SELECT key IS NULL FROM files WHERE file = %(file)s", file=file)


async def test_rule_15_a_switch_that_waited_for_an_erasure_does_nothing(world: World) -> None:
    await a_switch_meets_an_erasure(world)
    assert await world.damage() == []


async def test_without_rule_15_an_erased_file_becomes_active(world: World) -> None:
    await world.without("activate", FILES_LOCKED)
    await a_switch_meets_an_erasure(world)
    assert "a member of an active version that is not" in await world.damage()


async def a_rollback_comes_before_the_event_of_a_commit_is_read(world: World) -> int | None:
    """Version 2 is complete and its events are still unread when the file is rolled back to version 1."""
    await world.append("doc", "one")
    await world.append("doc", "two", "three")
    await world.drain()
    await world.collection.rollback("doc", 1)
    await world.drain()
    await world.activate("doc")
    return await world.active_version("doc")


async def test_rule_15_the_switch_goes_to_the_target_as_it_is_now(world: World) -> None:
    assert await a_rollback_comes_before_the_event_of_a_commit_is_read(world) == 1


async def test_without_rule_15_a_rolled_back_version_becomes_active(world: World) -> None:
    named_by_the_event = (
        "(SELECT max(e.version) FROM events e WHERE e.file = f.file AND e.type = 'version_committed')"
    )
    await world.without(
        "switch_file",
        "v.version = f.target AND v.state = 'committed'",
        f"v.version = {named_by_the_event} AND v.state = 'committed'",
    )
    await world.without(
        "switch_file", "SELECT f.collection, f.target,", "SELECT f.collection, v.version AS target,"
    )
    assert await a_rollback_comes_before_the_event_of_a_commit_is_read(world) == 2


async def half_of_a_version_is_embedded(world: World) -> dict[str, str]:
    await world.append("doc", "one", "two")
    lease = await world.claimed(batch=1)
    async with world.store.database.transaction() as conn:
        session = Session(conn)
        await world.complete(session, lease, [await world.chunk("one")])
    return await world.activate("doc")


async def test_rule_15_a_version_that_is_half_embedded_is_not_active(world: World) -> None:
    assert await half_of_a_version_is_embedded(world) == {"doc": "waiting"}
    assert await world.searchable() == []


async def test_without_rule_15_a_search_sees_half_a_version(world: World) -> None:
    await world.without("switch_file", "_cursor < _target.chunks", "false")
    assert await half_of_a_version_is_embedded(world) == {"doc": "active"}
    assert await world.searchable() == ["one"]


async def a_commit_meets_a_switch(world: World) -> int | None:
    """Version 2 is being committed when the projector, that heard of version 1, comes."""
    await world.append("doc", "one")
    await world.drain()
    file = await world.file_of("doc")
    writer, projector = await world.begun(), await world.begun()
    await writer.conn.execute(versions.VERSIONS.lock_known_file, {"file": file})
    await versions.insert_committed(writer.conn, file, versions.NOTHING_STORED, digest=b"2", metadata=b"{}")
    switching = await world.waits(world.activate("doc", session=projector), on=writer)
    await writer.commit()
    await switching
    await projector.commit()
    return await world.active_version("doc")


async def test_rule_15_a_switch_that_waited_for_a_commit_goes_to_what_was_committed(world: World) -> None:
    assert await a_commit_meets_a_switch(world) == 2


# --- rule 16: complete is decided from state, incrementally ----------------------------------------


async def the_target_changes_halfway(world: World) -> dict[str, str]:
    """The cursor has passed the first chunk of version 1; version 2 has a new first chunk."""
    await world.append("doc", "one", "two")
    lease = await world.claimed(batch=1)
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), lease, [await world.chunk("one")])
    assert await world.activate("doc") == {"doc": "waiting"}
    await world.append("doc", "new", "one")
    return await world.activate("doc")


async def test_rule_16_the_cursor_begins_anew_where_the_target_changed(world: World) -> None:
    assert await the_target_changes_halfway(world) == {"doc": "waiting"}


async def test_without_rule_16_a_version_becomes_active_without_its_first_chunk(world: World) -> None:
    await world.without(
        "switch_file",
        "CASE WHEN _now.target = _target.target THEN _now.cursor ELSE 0 END",
        "coalesce(_now.cursor, 0)",
    )
    assert await the_target_changes_halfway(world) == {"doc": "active"}
    assert await world.searchable() == ["one"]


async def embeddings_come_in_any_order(world: World) -> list[str]:
    """The last chunk first, one twice, and a look after each; the outcomes in their order."""
    await world.append("doc", "one", "two", "three")
    lease = await world.claimed()
    outcomes: list[str] = []
    for content in ("three", "one", "one", "two"):
        async with world.store.database.transaction() as conn:
            await world.complete(Session(conn), lease, [await world.chunk(content)], finished=False)
        outcomes.append((await world.activate("doc"))["doc"])
    return outcomes


async def test_rule_16_order_and_repeats_cannot_miscount(world: World) -> None:
    assert await embeddings_come_in_any_order(world) == ["waiting", "waiting", "waiting", "active"]


async def test_without_rule_16_a_count_of_embedded_events_activates_early(world: World) -> None:
    # Counted from the events of complete(), which says 'new' of every chunk that it is given.
    await world.without("complete", "_new FROM stored;", "_new FROM stored; _new := _existing;")
    await world.without(
        "switch_file",
        "_cursor < _target.chunks",
        "(SELECT count(*) FROM events e CROSS JOIN unnest(e.chunks) WHERE e.type = 'chunks_embedded')"
        " < _target.chunks",
    )
    assert await embeddings_come_in_any_order(world) == ["waiting", "waiting", "active", "none"]


async def a_chunk_is_given_up(world: World, content: str = "bad") -> ChunkId:
    await world.append("doc", "good", content)
    chunk = await world.chunk(content)
    lease = await world.claimed()
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), lease, [await world.chunk("good")], finished=False)
        await dead_letters.give_up(conn, lease, world.model, chunk, attempts=3, error="no")
    return chunk


async def test_rule_16_a_discarded_dead_letter_counts_as_done_and_the_version_says_so(world: World) -> None:
    chunk = await a_chunk_is_given_up(world)
    assert await world.activate("doc") == {"doc": "waiting"}
    await world.collection.discard(chunk)
    assert await world.activate("doc") == {"doc": "active"}
    assert await world.searchable() == ["good"]
    assert [version.discarded for version in await world.collection.history("doc")] == [1]


async def test_without_rule_16_a_discarded_chunk_holds_its_version_for_ever(world: World) -> None:
    await world.without("first_incomplete", "d.state = 'discarded'", "d.state = 'never'")
    await world.collection.discard(await a_chunk_is_given_up(world))
    assert await world.activate("doc") == {"doc": "waiting"}


async def a_discarded_chunk_is_taken_back(world: World) -> dict[str, str]:
    """The cursor has passed a discarded chunk when it is retried; the last chunk is embedded then."""
    await world.append("doc", "bad", "good")
    chunk = await world.chunk("bad")
    lease = await world.claimed()
    async with world.store.database.transaction() as conn:
        await dead_letters.give_up(conn, lease, world.model, chunk, attempts=3, error="no")
    await world.collection.discard(chunk)
    assert await world.activate("doc") == {"doc": "waiting"}
    await world.collection.retry(chunk)
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), lease, [await world.chunk("good")])
    return await world.activate("doc")


async def test_rule_16_a_chunk_that_is_taken_back_is_waited_for_again(world: World) -> None:
    assert await a_discarded_chunk_is_taken_back(world) == {"doc": "waiting"}


async def test_without_rule_16_a_version_becomes_active_without_what_was_taken_back(world: World) -> None:
    world.without_python(
        dead_letters, "retry", 'await conn.execute(DEAD_LETTERS.reset_cursor, {"file": file, "model": model})'
    )
    assert await a_discarded_chunk_is_taken_back(world) == {"doc": "active"}
    assert [version.discarded for version in await world.collection.history("doc")] == [0]


SKIP_SHARED = "AND t.segment <> ALL (_shared)"


async def one_chunk_of_many_is_changed(world: World) -> int:
    """How many embeddings the switch looks up when one chunk of 3,000 has changed."""
    chunks = [Chunk(f"chunk {i}") for i in range(3000)]
    await world.collection.append("doc", chunks)
    await world.drain()
    assert await world.activate("doc") == {"doc": "active"}
    await world.collection.append("doc", [Chunk("changed"), *chunks[1:]])
    await world.drain()
    session = await world.begun()
    assert await world.activate("doc", session=session) == {"doc": "active"}
    looked_up = await session.value(
        "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables"
        " WHERE relname = 'embeddings' AND schemaname = current_schema()"
    )
    await session.commit()
    return int(looked_up)


async def test_rule_16_the_cost_of_a_switch_follows_what_changed(world: World) -> None:
    looked_up = await one_chunk_of_many_is_changed(world)
    segments = await world.values("SELECT cardinality(chunks) FROM segments ORDER BY segment")
    assert len(segments) >= 3
    assert looked_up <= 2 * segments[-1]


async def test_without_rule_16_a_switch_probes_the_whole_manifest(world: World) -> None:
    await world.without("first_incomplete", SKIP_SHARED)
    assert await one_chunk_of_many_is_changed(world) >= 3000


# --- rule 17: the switch inserts the search rows that are missing ----------------------------------

INSERT_MISSING = "PERFORM stage_search_rows(_model, _missing);"


async def a_rollback_to_what_was_cleared_away(world: World) -> None:
    """Version 1's search rows went when version 2 became active; then the file is rolled back."""
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    await world.append("doc", "two")
    await world.drain()
    await world.activate("doc")
    await removed(world, await world.chunk("one"))
    await world.collection.rollback("doc", 1)
    assert await world.activate("doc") == {"doc": "active"}


async def removed(world: World, chunk: ChunkId, session: Session | None = None) -> int:
    """Clears the chunk's search row away if nothing needs it; how many went."""
    params = {"model": world.model, "file": await world.file_of("doc"), "chunks": [chunk]}
    statement = "SELECT remove_superseded(%(model)s, %(file)s, %(chunks)s::bigint[])"
    if session is not None:
        return await session.value(statement, **params)
    async with world.store.database.transaction() as conn:
        return await rows.fetch_value(conn, statement.encode(), params)


async def test_rule_17_a_rollback_brings_back_the_search_rows_of_its_version(world: World) -> None:
    await a_rollback_to_what_was_cleared_away(world)
    assert await world.searchable() == ["one"]
    assert await world.damage() == []


async def test_without_rule_17_an_active_version_cannot_be_found(world: World) -> None:
    await world.without("switch_file", INSERT_MISSING)
    await a_rollback_to_what_was_cleared_away(world)
    assert await world.searchable() == []
    assert "an active chunk that no search can find" in await world.damage()


async def a_rollback_to_a_long_version(world: World) -> list[int]:
    """How many search rows each transaction of the projector inserts when 2,500 are missing."""
    await world.collection.append("doc", [Chunk(f"chunk {i}") for i in range(2500)])
    await world.append("doc", "short")
    await world.drain()
    await world.collection.rollback("doc", 1)
    await world.drain()
    observer = await world.observer()
    await observer.conn.execute(f"DELETE FROM {world.search_table}".encode())
    await Projector(world.store, "hashing-8").run(drain=True)
    assert await world.active_version("doc") == 1
    return await world.values(f"SELECT count(*) FROM {world.search_table} GROUP BY xmin::text ORDER BY 1")


async def test_rule_17_many_missing_search_rows_are_staged_in_batches_first(world: World) -> None:
    assert await a_rollback_to_a_long_version(world) == [500, 1000, 1000]


async def test_without_rule_17_one_transaction_inserts_them_all(world: World) -> None:
    await world.without("switch_file", "cardinality(_missing) > 1000", "false")
    assert await a_rollback_to_a_long_version(world) == [2500]


# --- rule 18: superseded search rows are removed under the file's lock -----------------------------

FILE_LOCKED = "PERFORM FROM files f WHERE f.file = _file FOR NO KEY UPDATE;"


async def a_removal_meets_an_append_that_brings_the_chunk_back(world: World) -> None:
    """A removal of the first version's search row has looked and stops at the gate, the row itself.

    Meanwhile a third version, that has the chunk again, is appended and becomes active.
    """
    await world.append("doc", "one")
    await world.drain()
    await world.activate("doc")
    await world.append("doc", "two")
    await world.drain()
    await world.activate("doc")
    remover, gate = await world.begun(), await world.begun()
    chunk = await world.chunk("one")
    await gate.value(f"SELECT 1 FROM {world.search_table} WHERE chunk_id = %(chunk)s FOR UPDATE", chunk=chunk)
    removing = await world.waits(removed(world, chunk, remover), on=gate)

    async def bring_back() -> None:
        await world.append("doc", "one")
        await world.activate("doc")

    bringing = await world.races(bring_back(), against=remover)
    await gate.rollback()
    await removing
    await remover.commit()
    await bringing


async def test_rule_18_a_removal_keeps_appends_of_its_file_waiting(world: World) -> None:
    await a_removal_meets_an_append_that_brings_the_chunk_back(world)
    assert await world.searchable() == ["one"]


async def test_without_rule_18_an_active_chunk_loses_its_search_row(world: World) -> None:
    await world.without("remove_superseded", FILE_LOCKED)
    await a_removal_meets_an_append_that_brings_the_chunk_back(world)
    assert await world.searchable() == []
    assert "an active chunk that no search can find" in await world.damage()


KEPT = {
    "active": "needed_segments(_file) || coalesce(v.segments, '{}')",
    "target": "v.state = 'open' OR v.version = f.target",
    "open": "v.state = 'open' OR v.version = f.target",
}


async def a_removal_of_what_is_still(world: World, state: str) -> int:
    """How many search rows go that stand for the active version, the target, or an open version."""
    if state == "active":
        await world.append("doc", "kept")
        await world.drain()
        await world.activate("doc")
        await world.append("doc", "next")
    elif state == "target":
        await world.append("doc", "kept")
        await world.drain()
    else:
        await world.append("doc", "kept")
        await world.drain()
        observer = await world.observer()
        await observer.conn.execute(
            b"UPDATE versions SET state = 'open', deadline = clock_timestamp() + '1 hour';"
            b"UPDATE files SET target = 0"
        )
    return await removed(world, await world.chunk("kept"))


@pytest.mark.parametrize("state", KEPT)
async def test_rule_18_search_rows_of_what_is_active_target_or_open_stay(world: World, state: str) -> None:
    assert await a_removal_of_what_is_still(world, state) == 0


@pytest.mark.parametrize("state", KEPT)
async def test_without_rule_18_search_rows_go_that_are_needed(world: World, state: str) -> None:
    if state == "active":
        await world.without("remove_superseded", KEPT[state], "needed_segments(_file)")
    else:
        left = "v.state = 'open'" if state == "target" else "v.version = f.target"
        await world.without("needed_segments", KEPT[state], left)
    assert await a_removal_of_what_is_still(world, state) == 1


async def a_version_is_superseded_while_it_is_embedded(world: World) -> list[str]:
    """The model has version 1's chunk in hand when version 2 replaces it and becomes active.

    Returns the contents that have a search row in the end.
    """
    projector = Projector(world.store, "hashing-8")
    await world.append("doc", "one")
    slow = await world.claimed()
    await world.append("doc", "two")
    await world.drain()
    await projector.run(drain=True)
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), slow, [await world.chunk("one")])
    await projector.run(drain=True)
    return await world.values(f"SELECT content FROM {world.search_table} JOIN chunks USING (chunk_id)")


async def test_rule_18_a_chunk_that_was_embedded_for_nothing_leaves_the_search_table(world: World) -> None:
    assert await a_version_is_superseded_while_it_is_embedded(world) == ["two"]


async def test_without_rule_18_the_search_table_keeps_what_no_version_needs(world: World) -> None:
    world.without_python(Projector, "_handle", "isinstance(event, ChunksEmbedded)", "False")
    assert sorted(await a_version_is_superseded_while_it_is_embedded(world)) == ["one", "two"]


async def a_version_is_superseded_at_its_birth(world: World) -> list[str]:
    """A streamed version is embedded while it is open, and a later one is committed and active before it is.

    Returns the contents that have a search row in the end.
    """
    projector = Projector(world.store, "hashing-8")
    write = world.collection._write("doc", None, None, None)
    database = world.store.database
    async with database.transaction() as conn:
        state = await versions.lock(conn, write.collection, "doc")
        version = await versions.open_version(conn, state.file, b"{}")
    segmenter = Segmenter()
    assert not list(segmenter.feed([prepare(Chunk("streamed"), write.hashing, position=0)]))
    await appending._add_batch(database, write, state.file, version, list(segmenter.finish()))
    await world.append("doc", "newer")
    await world.drain()
    await projector.run(drain=True)
    await appending._commit(database, write, state.file, version, segmenter)
    await projector.run(drain=True)
    return await world.values(f"SELECT content FROM {world.search_table} JOIN chunks USING (chunk_id)")


async def test_rule_18_a_version_that_is_superseded_at_birth_leaves_the_search_table(world: World) -> None:
    assert await a_version_is_superseded_at_its_birth(world) == ["newer"]


async def test_without_rule_18_what_was_never_active_stays_in_the_search_table(world: World) -> None:
    world.without_python(Projector, "_clear", "target=False", "target=None")
    assert sorted(await a_version_is_superseded_at_its_birth(world)) == ["newer", "streamed"]


async def a_rollback_before_the_switch(world: World) -> list[str]:
    """Version 2 is half embedded when the file is rolled back to version 1, which is still active.

    Returns the contents that have a search row in the end.
    """
    projector = Projector(world.store, "hashing-8")
    await world.append("doc", "one")
    await world.drain()
    await projector.run(drain=True)
    await world.append("doc", "two", "more")
    lease = await world.claimed()
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), lease, [await world.chunk("two")], finished=False)
    await projector.run(drain=True)
    await world.collection.rollback("doc", 1)
    await projector.run(drain=True)
    return await world.values(f"SELECT content FROM {world.search_table} JOIN chunks USING (chunk_id)")


async def test_rule_18_what_a_rollback_overtook_leaves_the_search_table(world: World) -> None:
    assert await a_rollback_before_the_switch(world) == ["one"]


async def test_without_rule_18_what_a_rollback_overtook_stays(world: World) -> None:
    world.without_python(Projector, "_clear", "case TargetChanged(", "case ModelAdded(")
    world.monkeypatch.setattr("projections.projector.ModelAdded", ModelAdded, raising=False)
    assert sorted(await a_rollback_before_the_switch(world)) == ["one", "two"]


async def a_commit_replaces_a_target_that_was_rolled_back_to(world: World) -> list[str]:
    """Version 1, never embedded in its time, is half embedded as the target of a rollback when 3 replaces it.

    Returns the contents that have a search row in the end.
    """
    projector = Projector(world.store, "hashing-8")
    await world.append("doc", "one", "more")
    await world.append("doc", "two")
    await world.drain()
    await projector.run(drain=True)
    await world.collection.rollback("doc", 1)
    lease = await world.claimed()
    async with world.store.database.transaction() as conn:
        await world.complete(Session(conn), lease, [await world.chunk("one")], finished=False)
    await projector.run(drain=True)
    await world.append("doc", "three")
    await world.expire(lease)
    await world.drain()
    await projector.run(drain=True)
    return await world.values(f"SELECT content FROM {world.search_table} JOIN chunks USING (chunk_id)")


async def test_rule_18_what_was_the_target_of_a_rollback_leaves_the_search_table(world: World) -> None:
    assert await a_commit_replaces_a_target_that_was_rolled_back_to(world) == ["three"]


async def test_without_rule_18_what_was_the_target_of_a_rollback_stays(world: World) -> None:
    world.without_python(versions, "committed_event", "replaced=state.rolled_back_to", "replaced=None")
    assert sorted(await a_commit_replaces_a_target_that_was_rolled_back_to(world)) == ["one", "three"]


SWEPT = {
    "chunk": ("PERFORM remove_superseded(cm.model, _file, _reachable)", "PERFORM"),
    "segment": ("PERFORM remove_superseded(cm.model, _file, departed(", "PERFORM cardinality(departed("),
}
"""What a swept version shares with one that stays, and the line that clears it."""


async def a_version_is_swept_before_its_switch_is_read(world: World, shares: str) -> list[str]:
    """The collector sweeps what is active no more before the projector reads of the switch.

    Version 2 shares a chunk, or its whole segment, with version 1, which is pinned.
    Returns the contents that have a search row in the end.
    """
    projector = Projector(world.store, "hashing-8")
    await world.append("doc", "shared")
    await world.collection.pin("doc", 1)
    more = ["two"] if shares == "chunk" else []
    await world.append("doc", "shared", *more, metadata={"edition": 2})
    await world.drain()
    await projector.run(drain=True)
    for content in ("three", "four", "five"):
        await world.append("doc", content)
    await world.drain()
    await world.activate("doc")
    assert (await collect(world.store)).collected == 1
    await projector.run(drain=True)
    return await world.values(f"SELECT content FROM {world.search_table} JOIN chunks USING (chunk_id)")


@pytest.mark.parametrize("shares", SWEPT)
async def test_rule_18_what_a_swept_version_shares_leaves_the_search_table(world: World, shares: str) -> None:
    assert await a_version_is_swept_before_its_switch_is_read(world, shares) == ["five"]


@pytest.mark.parametrize("shares", SWEPT)
async def test_without_rule_18_what_a_swept_version_shared_stays(world: World, shares: str) -> None:
    await world.without("sweep_segments", *SWEPT[shares])
    assert sorted(await a_version_is_swept_before_its_switch_is_read(world, shares)) == ["five", "shared"]
