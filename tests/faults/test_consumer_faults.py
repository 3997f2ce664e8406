"""Models that fail: what one bad chunk, a provider that is away, or a slow model may and may not do.

All of it happens to the second version of a file, under the checker of searches: see `searched`.
"""

from typing import Any

import anyio
import numpy as np
import pytest

from chunkstore import hints
from chunkstore.collection import Collection
from chunkstore.errors import ModelHangs, NeverActive, UnknownDeadLetter
from chunkstore.store import ChunkStore
from consumers.embedding import MAX_ATTEMPTS, EmbeddingConsumer
from projections.projector import Projector
from tests.faults.asking import until, value, values
from tests.faults.fix_searched import EMBEDDED, EMBEDDED_EVENTS, TWO_LISTEN, UNFINISHED
from tests.faults.models import BAD, MODEL, Answer, Away, Counting, Held, HeldByBad, Tripping
from tests.faults.searching import Checker
from tests.faults.stamped import numbered

pytestmark = pytest.mark.usefixtures("searched")


def raises(vectors: Any, bad: list[int]) -> Any:
    raise RuntimeError(f"cannot tokenize {BAD}: \0 \ud800")


def fills(number: float) -> Answer:
    def filled(vectors: Any, bad: list[int]) -> Any:
        vectors[bad] = number
        return vectors

    return filled


async def drain(store: ChunkStore, model: Counting, *, batch: int = 256) -> EmbeddingConsumer:
    consumer = EmbeddingConsumer(store, model, batch=batch)
    with anyio.fail_after(30):
        await consumer.run(drain=True)
    return consumer


async def project(store: ChunkStore) -> None:
    await Projector(store, MODEL.name).run(drain=True)


# --- one bad chunk ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(raises, f"RuntimeError: cannot tokenize {BAD}: ? ?", id="raises"),
        pytest.param(fills(np.nan), "NaN", id="NaN"),
        pytest.param(fills(np.inf), "infinity", id="infinity"),
        pytest.param(fills(0), "zero", id="zero"),
        pytest.param(fills(1e30), "half precision", id="too large"),
        pytest.param(lambda vectors, _: vectors[:, :-1], "31", id="too short"),
        pytest.param(lambda vectors, _: np.hstack([vectors, vectors]), "64", id="too long"),
        pytest.param(lambda vectors, bad: np.delete(vectors, bad, axis=0), "0 × 32", id="too few rows"),
        pytest.param(lambda *_: None, "object", id="no array"),
        pytest.param(lambda *_: [[1.0], [1.0, 2.0]], "no array", id="ragged"),
    ],
)
async def test_a_bad_chunk_becomes_one_dead_letter_and_its_neighbours_are_embedded(
    store: ChunkStore, files: Collection, answer: Answer, reason: str
) -> None:
    await files.append("doc", numbered(20, bad=7))
    await drain(store, Tripping(answer))
    (letter,) = await files.dead_letters()
    assert (letter.key, letter.state, letter.attempts) == ("doc", "open", MAX_ATTEMPTS)
    assert reason in letter.error
    assert await value(store, EMBEDDED) == 19
    assert await value(store, f"SELECT count(*) FROM {UNFINISHED}") == 0


async def test_a_bad_chunk_among_256_costs_its_neighbours_a_bounded_number_of_calls(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(256, bad=100))
    model = Tripping(raises)
    await drain(store, model)
    assert await value(store, EMBEDDED) == 255
    assert len(await files.dead_letters()) == 1
    halvings = 8  # 256 to 1, two calls each, and the attempts at the single chunk
    assert len(model.calls) <= 2 * halvings + MAX_ATTEMPTS
    assert all(
        model.texts.count(f"text number {number}") <= halvings + 1 for number in range(256) if number != 100
    )


async def test_rows_that_are_good_are_kept_when_one_is_not(store: ChunkStore, files: Collection) -> None:
    await files.append("doc", numbered(64, bad=5))
    model = Tripping(fills(np.nan))
    await drain(store, model)
    paid = [text for text in model.texts if text != BAD]
    assert sorted(paid) == sorted({*paid}), "a good row was computed again"


async def test_no_vector_that_was_refused_is_stored_anywhere(store: ChunkStore, files: Collection) -> None:
    await files.append("doc", numbered(3, bad=1))
    await drain(store, Tripping(fills(np.nan)))
    bad = await value(store, f"SELECT chunk_id FROM chunks WHERE content = '{BAD}'")
    (table,) = await values(store, "SELECT search_table FROM collection_models")
    assert bad not in await values(store, "SELECT chunk_id FROM embeddings")
    assert bad not in await values(store, f'SELECT chunk_id FROM "{table}"')


async def test_an_error_text_lives_in_the_dead_letter_and_never_in_the_log(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(3, bad=1))
    await drain(store, Tripping(raises))
    assert BAD in (await files.dead_letters())[0].error
    logged = await values(store, "SELECT e::text FROM events e")
    assert any("embedding_failed" in event for event in logged)
    assert not any(BAD in event or "tokenize" in event for event in logged)


# --- dead letters, retried and discarded ----------------------------------------------------------


async def test_a_version_waits_on_its_dead_letter_until_that_is_retried(
    store: ChunkStore, files: Collection
) -> None:
    version = await files.append("doc", numbered(5, bad=2))
    model = Tripping(raises)
    await drain(store, model)
    await project(store)
    with pytest.raises(NeverActive, match="dead letter"):
        await files.wait_until_active(version, timeout=5)
    model.cured = True
    await files.retry((await files.dead_letters())[0].chunk_id)
    await drain(store, model)
    await project(store)
    await files.wait_until_active(version, timeout=5)
    assert await files.dead_letters() == []
    assert len(await files.search("text", k=10)) == 5


async def test_a_retried_chunk_that_fails_again_is_a_dead_letter_again(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(5, bad=2))
    model = Tripping(raises)
    await drain(store, model)
    (first,) = await files.dead_letters()
    await files.retry(first.chunk_id)
    assert await files.dead_letters() == []
    await drain(store, model)
    (second,) = await files.dead_letters()
    assert (second.chunk_id, second.state, second.attempts) == (first.chunk_id, "open", MAX_ATTEMPTS)


async def test_discarding_lets_the_version_activate_without_the_chunk(
    store: ChunkStore, files: Collection, searched: Checker
) -> None:
    searched.unsealed.add("doc")
    version = await files.append("doc", numbered(5, bad=2))
    await drain(store, Tripping(raises))
    await files.discard((await files.dead_letters())[0].chunk_id)
    await project(store)
    await files.wait_until_active(version, timeout=5)
    assert sorted(hit.ordinal for hit in await files.search("text", k=10)) == [0, 1, 3, 4]
    assert (await files.history("doc"))[-1].discarded == 1


async def test_a_discarded_chunk_that_is_taken_back_is_searchable_again(
    store: ChunkStore, files: Collection, searched: Checker
) -> None:
    searched.unsealed.add("doc")
    await files.append("doc", numbered(5, bad=2))
    model = Tripping(raises)
    await drain(store, model)
    (letter,) = await files.dead_letters()
    await files.discard(letter.chunk_id)
    await project(store)
    model.cured = True
    await files.retry(letter.chunk_id)
    await drain(store, model)
    await project(store)
    assert sorted(hit.ordinal for hit in await files.search("text", k=10)) == [0, 1, 2, 3, 4]


async def test_an_unchanged_append_retries_an_open_dead_letter_and_no_discarded_one(
    store: ChunkStore, files: Collection, searched: Checker
) -> None:
    searched.unsealed.add("discarded")
    model = Tripping(raises)
    for key in ("open", "discarded"):
        await files.append(key, numbered(3, bad=1))
        await drain(store, model)
    paid = model.texts.count(BAD)
    letters = {letter.key: letter.chunk_id for letter in await files.dead_letters()}
    await files.discard(letters["discarded"])
    model.cured = True
    for key in letters:
        assert (await files.append(key, numbered(3, bad=1))).unchanged
    await drain(store, model)
    assert [letter.key for letter in await files.dead_letters()] == ["discarded"]
    assert model.texts.count(BAD) == paid + 1


async def test_a_chunk_that_is_discarded_after_it_was_logged_again_is_not_paid_for(
    store: ChunkStore, files: Collection, searched: Checker
) -> None:
    searched.unsealed.add("doc")
    model = Tripping(raises)
    await files.append("doc", numbered(3, bad=1))
    await drain(store, model)
    paid = len(model.texts)
    assert (await files.append("doc", numbered(3, bad=1))).unchanged
    await files.discard((await files.dead_letters())[0].chunk_id)
    await drain(store, model)
    assert len(model.texts) == paid


async def test_a_chunk_without_a_dead_letter_cannot_be_retried_or_discarded(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(1))
    await drain(store, Counting())
    chunk = await value(store, "SELECT chunk_id FROM chunks")
    with pytest.raises(UnknownDeadLetter):
        await files.retry(chunk)
    with pytest.raises(UnknownDeadLetter):
        await files.discard(chunk)


# --- a provider that is away ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 20])
async def test_a_provider_that_is_away_consumes_no_attempts(
    store: ChunkStore, files: Collection, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.breaker._FIRST_PAUSE", 0.02)
    await files.append("doc", numbered(n))
    model = Away(times=MAX_ATTEMPTS + 2)
    consumer = await drain(store, model)
    assert await files.dead_letters() == []
    report = consumer.report
    assert (report.embedded, report.halved, report.retried, report.dead_letters) == (n, 0, 0, 0)
    assert await value(store, "SELECT max(attempts) FROM leases") == 0


async def test_while_a_provider_is_away_it_is_asked_once_a_pause_and_holds_no_range(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(40))
    model = Away(times=1000)
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        consumer = EmbeddingConsumer(store, model, batch=10)
        tasks.start_soon(lambda: consumer.run(stop=stop))
        await until(store, f"SELECT count(*) > 0 AND bool_and(owner IS NULL) FROM {UNFINISHED}")
        asked = len(model.calls)
        stop.set()
    assert asked == 1
    assert await value(store, EMBEDDED) == 0


# --- a slow model ---------------------------------------------------------------------------------


async def test_renewal_keeps_the_range_of_a_model_that_is_slower_than_its_lease(
    store: ChunkStore, files: Collection
) -> None:
    version = await files.append("doc", numbered(5))
    model, idle = Held(), Counting()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, model, lease_seconds=1.5).run(drain=True))
        await until(store, f"SELECT count(*) = 1 FROM {UNFINISHED}")
        first = await value(store, f"SELECT expires FROM {UNFINISHED}")
        tasks.start_soon(lambda: EmbeddingConsumer(store, idle).run(drain=True))
        await until(store, f"SELECT clock_timestamp() > timestamptz '{first}' + interval '0.5 s'")
        model.go.set()
    assert (len(model.calls), idle.calls) == (1, [])
    assert await values(store, "SELECT DISTINCT (epoch, attempts)::text FROM leases") == ["(1,0)"]
    assert await value(store, EMBEDDED) == version.chunks


async def test_without_renewal_the_range_is_taken_over_and_the_late_answer_changes_nothing(
    store: ChunkStore, files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one who lost the range is not to take it over itself, by a poll or by a hint that comes late.
    monkeypatch.setattr(hints, "FIRST_POLL", 60.0)
    monkeypatch.setattr(hints, "LONGEST_POLL", 60.0)
    with monkeypatch.context() as unheard:
        unheard.setattr(store.hints, "give", lambda: None)
        await files.append("doc", numbered(5))
    await store.hints.close()
    slow, quick, stop = Held(), Held(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as zombie:
            zombie.start_soon(lambda: EmbeddingConsumer(store, slow).run(stop=stop))
            await until(store, f"SELECT count(*) = 1 FROM {UNFINISHED}")
            await value(store, "UPDATE leases SET expires = '-infinity' RETURNING 1")
            tasks.start_soon(lambda: EmbeddingConsumer(store, quick).run(drain=True))
            await until(store, f"SELECT epoch = 2 FROM {UNFINISHED}")
            slow.go.set()
            stop.set()
        assert await value(store, EMBEDDED) == 0
        assert await value(store, f"SELECT count(*) FROM {UNFINISHED}") == 1
        quick.go.set()
    assert await value(store, EMBEDDED) == 5
    assert await value(store, EMBEDDED_EVENTS) == 1


# --- a model that hangs ---------------------------------------------------------------------------


async def hangs(store: ChunkStore, model: Held, batch: int = 256) -> None:
    """Returns when a consumer has given the model up; both its times are short."""
    model.began.clear()
    consumer = EmbeddingConsumer(store, model, batch=batch, lease_seconds=0.5, model_seconds=0.2)
    with anyio.fail_after(30), pytest.raises(ModelHangs):
        await consumer.run()
    assert model.began.is_set()


async def test_a_model_that_hangs_ends_its_consumer_and_its_range_is_taken_over(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(5))
    model = Held()
    await hangs(store, model)
    assert await value(store, f"SELECT owner IS NOT NULL FROM {UNFINISHED}"), "it was given back"
    assert (await drain(store, Counting())).report.embedded == 5
    assert await value(store, "SELECT (epoch, attempts)::text FROM leases ORDER BY epoch DESC") == "(2,1)"
    model.go.set()


async def test_a_chunk_that_hangs_its_model_is_a_dead_letter_after_its_attempts(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(2, bad=0))
    model = HeldByBad()
    for _ in range(MAX_ATTEMPTS):
        await hangs(store, model, batch=1)
    await drain(store, Counting())
    (letter,) = await files.dead_letters()
    assert (letter.key, letter.attempts) == ("doc", MAX_ATTEMPTS)
    assert await value(store, EMBEDDED) == 1
    model.go.set()


async def test_a_consumer_that_waits_for_work_is_not_taken_for_one_whose_model_hangs(
    store: ChunkStore, files: Collection
) -> None:
    await files.append("doc", numbered(5))
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, Counting(), model_seconds=0.2).run(stop=stop))
        await until(store, EMBEDDED)
        idle = await value(store, "SELECT clock_timestamp()")
        await until(store, f"SELECT clock_timestamp() > timestamptz '{idle}' + interval '0.5 s'")
        await files.append("doc", numbered(6))
        await until(store, f"SELECT ({EMBEDDED}) > 5")
        stop.set()


# --- wake-up --------------------------------------------------------------------------------------


async def test_a_hint_wakes_a_consumer_that_would_not_look_for_a_minute(
    store: ChunkStore, files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "FIRST_POLL", 60.0)
    monkeypatch.setattr(hints, "LONGEST_POLL", 60.0)
    await woken(store, files)


async def test_a_lost_hint_is_made_up_for_by_polling(
    store: ChunkStore, files: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints.Hints, "give", lambda _: None)
    await woken(store, files)


async def woken(store: ChunkStore, files: Collection) -> None:
    """Appends when a consumer waits already, and returns when it has embedded."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: EmbeddingConsumer(store, Counting()).run(stop=stop))
        await until(store, TWO_LISTEN)
        await files.append("doc", numbered(1))
        await until(store, EMBEDDED, seconds=15)
        stop.set()
