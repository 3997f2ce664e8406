"""The views say to people with psql what the API says to programs."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg.rows import dict_row

from chunkstore import Chunk, Place
from tests.store.fix_lived import REFUSED, Lived, PickyModel, lived
from tests.store.fix_store import store

__all__ = ["lived", "store"]


async def read(of: Lived, statement: str, **params: Any) -> list[dict[str, Any]]:
    """The rows, read as psql reads them: without the store's schema in the search path."""
    async with of.store.database.connection() as conn:
        await conn.execute("SET search_path = public")
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.format(schema=f'"{of.store.database.schema}"').encode(), params)
            return await cursor.fetchall()


async def state_of(of: Lived, key: str) -> dict[str, Any]:
    (row,) = await read(of, "SELECT * FROM {schema}.file_states WHERE key = %(key)s", key=key)
    return row


@pytest.fixture
async def young(store: Any) -> Lived:
    """A store of its own, with an empty collection."""
    model = PickyModel(8)
    return Lived(store, await store.collection("docs", model=model), model)


# --- active_chunks ------------------------------------------------------------------------------


async def test_active_chunks_are_what_the_api_reads_of_the_active_version(lived: Lived) -> None:
    for key, version in (("changed", 4), ("rolled_back", 1), ("long", 1)):
        seen = await read(
            lived,
            "SELECT * FROM {schema}.active_chunks WHERE key = %(key)s ORDER BY ordinal",
            key=key,
        )
        assert {(row["collection"], row["version"], row["model"]) for row in seen} == {
            ("docs", version, "hashing-8")
        }
        assert [
            (row["chunk_id"], row["ordinal"], row["content"], row["metadata"], _place(row)) for row in seen
        ] == [
            (chunk.chunk_id, chunk.ordinal, chunk.content, chunk.metadata, chunk.place)
            async for chunk in lived.collection.chunks(key, version)
        ]


def _place(row: dict[str, Any]) -> Place:
    return Place(row["start"], row["end"], row["page"], row["line"])


async def test_active_chunks_hold_nothing_of_files_that_are_deleted_erased_or_not_yet_complete(
    lived: Lived,
) -> None:
    keys = await read(lived, "SELECT DISTINCT key FROM {schema}.active_chunks ORDER BY key")
    assert [row["key"] for row in keys] == [
        "changed", "discarded", "elsewhere", "long", "pinned", "rolled_back"
    ]  # fmt: skip


async def test_active_chunks_without_places_have_none(young: Lived) -> None:
    await young.collection.append("plain", [Chunk("text", {"page": "meta"})])
    await young.drain()
    (row,) = await read(young, "SELECT * FROM {schema}.active_chunks")
    assert (row["content"], row["metadata"], _place(row)) == ("text", {"page": "meta"}, Place())


# --- file_states --------------------------------------------------------------------------------


async def test_file_states_name_the_state_of_every_file_that_is_not_erased(lived: Lived) -> None:
    seen = await read(lived, "SELECT key, state FROM {schema}.file_states WHERE collection = 'docs'")
    assert {row["key"]: row["state"] for row in seen} == {
        "long": "active",
        "changed": "active",
        "pinned": "active",
        "rolled_back": "active",
        "discarded": "active",
        "deleted": "deleted",
        "failed": "failed",
    }


async def test_file_states_tell_a_rollback(lived: Lived) -> None:
    row = await state_of(lived, "rolled_back")
    assert (row["latest"], row["target"], row["active"], row["rolled_back"]) == (2, 1, 1, True)
    row = await state_of(lived, "changed")
    assert (row["latest"], row["target"], row["active"], row["rolled_back"]) == (4, 4, 4, False)
    assert (row["model"], row["chunks"]) == ("hashing-8", 4)


async def test_a_file_goes_from_open_to_waiting_to_active_to_deleted(young: Lived) -> None:
    collection = young.collection
    seen: list[str] = []

    async def look() -> None:
        seen.append((await state_of(young, "a"))["state"])

    await young.open_version("a")
    await look()
    for step in (young.append("a", "text"), young.drain(), collection.delete("a"), young.drain()):
        await step
        await look()
    assert seen == ["open", "waiting", "active", "waiting", "deleted"]


async def test_a_file_is_not_failed_by_a_dead_letter_of_a_version_that_is_not_its_target(
    young: Lived,
) -> None:
    await young.append("a", f"bad: {REFUSED}")
    await young.drain()
    assert (await state_of(young, "a"))["state"] == "failed"
    await young.append("a", "good")
    assert (await state_of(young, "a"))["state"] == "waiting"
    await young.drain()
    assert (await state_of(young, "a"))["state"] == "active"


# --- waiting ------------------------------------------------------------------------------------


async def test_waiting_counts_what_the_target_lacks_and_says_since_when(young: Lived) -> None:
    await young.append("a", "same", "old")
    await young.drain()
    assert await read(young, "SELECT * FROM {schema}.waiting") == []
    first = await young.collection.append("a", [Chunk("same"), Chunk("new"), Chunk("newer")])
    await young.collection.append("a", [Chunk("same"), Chunk("newest")])
    (row,) = await read(young, "SELECT * FROM {schema}.waiting")
    assert (row["key"], row["model"], row["target"], row["active"]) == ("a", "hashing-8", 3, 1)
    assert (row["chunks"], row["lacking"]) == (2, 1)
    assert row["since"] == first.committed_at


async def test_a_file_that_waits_for_the_projector_alone_lacks_nothing(young: Lived) -> None:
    await young.append("a", "text")
    await young.drain()
    await young.collection.delete("a")
    (row,) = await read(young, "SELECT * FROM {schema}.waiting")
    assert (row["target"], row["active"], row["chunks"], row["lacking"]) == (2, 1, 0, 0)


async def test_a_rolled_back_file_waits_since_the_rollback(young: Lived) -> None:
    for text in ("one", "two"):
        await young.append("a", text)
        await young.drain()
    await young.collection.rollback("a", 1)
    (row,) = await read(
        young,
        "SELECT w.*, e.recorded_at FROM {schema}.waiting w"
        " JOIN {schema}.events e ON e.file = w.file AND e.type = 'target_changed'",
    )
    assert (row["target"], row["active"], row["since"]) == (1, 2, row["recorded_at"])


async def test_a_file_waits_for_every_model_that_lacks_it(young: Lived) -> None:
    await young.append("a", "one", "two")
    await young.drain()
    await young.collection.add_model("hashing:16")
    (row,) = await read(young, "SELECT * FROM {schema}.waiting")
    assert (row["model"], row["lacking"], row["active"]) == ("hashing-16", 2, None)


# --- failed -------------------------------------------------------------------------------------


async def test_failed_says_where_the_chunk_stands_and_why_without_its_content(lived: Lived) -> None:
    seen = await read(lived, "SELECT * FROM {schema}.failed ORDER BY key")
    assert [
        (row["collection"], row["key"], row["version"], row["ordinal"], row["model"], row["state"])
        for row in seen
    ] == [
        ("docs", "discarded", 1, 1, "hashing-8", "discarded"),
        ("docs", "failed", 1, 1, "hashing-8", "open"),
    ]
    assert {row["error"] for row in seen} == {"ValueError: I do not embed that"}
    assert {row["attempts"] for row in seen} == {3}
    assert not any(REFUSED in str(value) for row in seen for value in row.values())


async def test_a_failed_chunk_that_moved_is_shown_where_the_highest_version_has_it(young: Lived) -> None:
    bad = f"bad: {REFUSED}"
    await young.append("a", bad)
    await young.drain()
    await young.append("a", "good", "before", bad)
    (row,) = await read(young, "SELECT version, ordinal FROM {schema}.failed")
    assert (row["version"], row["ordinal"]) == (2, 2)


# --- the views themselves -----------------------------------------------------------------------


async def test_every_view_is_described(young: Lived) -> None:
    seen = await read(
        young,
        "SELECT c.relname, obj_description(c.oid, 'pg_class') AS comment FROM pg_class c"
        " WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'v'",
    )
    assert {row["relname"] for row in seen} == {"active_chunks", "file_states", "waiting", "failed"}
    assert all(row["comment"] for row in seen)


async def test_a_file_whose_only_version_was_given_up_has_no_state(
    young: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkstore.batches.BATCH_CHUNKS", 1)
    seen: list[list[str]] = []

    async def broken() -> AsyncIterator[Chunk]:
        for content in ("one", "two", "three"):
            yield Chunk(content)
        seen.append([row["state"] for row in await read(young, "SELECT state FROM {schema}.file_states")])
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        await young.collection.append("stream", broken())
    assert seen == [["open"]]
    assert await read(young, "SELECT * FROM {schema}.file_states") == []
