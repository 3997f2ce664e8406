"""The consumer with a model behind a real endpoint: outages, bad texts, limits, refusals, cost."""

import logging
from typing import Any

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.errors import ModelRefused, ModelUnavailable
from chunkstore.model import Chunk
from chunkstore.models.endpoint.model import EndpointModel
from chunkstore.store import ChunkStore
from consumers import breaker
from consumers.embedding import ConsumeReport, EmbeddingConsumer
from projections.projector import Projector
from tests.faults.asking import value, values
from tests.fix_endpoint import KEY, Endpoint, failing, good, model_of, saying, tokens_of, when
from tests.store.fix_store import store

__all__ = ["store"]

POISON = "the poisonous text"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, quickly: None) -> None:
    """Pauses of hundredths of a second between claims too."""
    monkeypatch.setattr(breaker, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(breaker, "_LONGEST_PAUSE", 0.1)


def impatient(endpoint: Endpoint, **options: Any) -> EndpointModel:
    return model_of(endpoint, **({"patience": 0.1} | options))


def texts(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


async def filled(store: ChunkStore, model: EndpointModel, *contents: str) -> Collection:
    """A collection with the contents in one file, so that they are one range."""
    async with store.database.transaction() as conn:
        await conn.execute("SELECT set_partitions(1)")
    docs = await store.collection("docs", model=model)
    await docs.append("a", [Chunk(content) for content in contents])
    return docs


async def drain(store: ChunkStore, model: EndpointModel) -> ConsumeReport:
    with anyio.fail_after(60):
        return await EmbeddingConsumer(store, model).run(drain=True)


async def test_a_server_that_comes_back_finds_every_chunk_waiting_and_no_attempt_counted(
    store: ChunkStore,
) -> None:
    away = Endpoint()
    away.stop()
    model = impatient(away)
    await filled(store, model, *texts(300))
    outages: list[ModelUnavailable] = []
    enough = anyio.Event()

    def heard(error: ModelUnavailable) -> None:
        outages.append(error)
        if len(outages) >= 3:
            enough.set()

    consumer = EmbeddingConsumer(store, model, on_outage=heard)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:

            async def consume() -> None:
                await consumer.run(drain=True)

            tasks.start_soon(consume)
            await enough.wait()
            assert await value(store, "SELECT count(*) FROM embeddings") == 0
            back = Endpoint(away.port)
            back.start()
    back.stop()
    assert "cannot be reached" in str(outages[0])
    assert await value(store, "SELECT count(*) FROM embeddings") == 300
    report = consumer.report
    assert (report.embedded, report.halved, report.retried, report.dead_letters) == (300, 0, 0, 0)
    assert sorted(back.texts) == sorted(texts(300))


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_server_that_fails_for_a_while_costs_no_attempts(
    store: ChunkStore, endpoint: Endpoint, status: int
) -> None:
    model = impatient(endpoint)
    await filled(store, model, *texts(100))
    endpoint.then(*[failing(status)] * 60)
    report = await drain(store, model)
    assert (report.embedded, report.halved, report.retried, report.dead_letters) == (100, 0, 0, 0)
    assert len(endpoint.requests) > 60


@pytest.mark.parametrize("answer", ["400", "500", "not JSON", "short"])
async def test_of_256_texts_only_the_poisonous_one_becomes_a_dead_letter(
    store: ChunkStore, endpoint: Endpoint, answer: str
) -> None:
    behaviour, reason = {
        "400": (failing(400, "no poison"), "answered 400: no poison"),
        "500": (failing(500, "no poison"), "answered 500: no poison"),
        "not JSON": (saying(b'{"data": [{'), "gave no answer that can be used: it is broken off"),
        "short": (saying(b'{"data": [{"index": 0, "embedding": [1.0]}]}'), "gave no answer that can be used"),
    }[answer]
    endpoint.always = when(POISON, behaviour)
    model = impatient(endpoint)
    contents = texts(256)
    contents[100] = POISON
    docs = await filled(store, model, *contents)
    report = await drain(store, model)
    assert (report.embedded, report.dead_letters) == (255, 1)
    letters = await docs.dead_letters()
    blamed = "SELECT content FROM dead_letters JOIN chunks USING (chunk_id)"
    assert await values(store, blamed) == [POISON]
    assert reason in letters[0].error
    assert await value(store, "SELECT count(*) FROM embeddings") == 255
    good_ones = [text for text in endpoint.texts if POISON not in text and text != "a"]
    assert len(good_ones) <= 255 + 64 * 6  # the request of the poison is halved; no other is sent again


async def test_the_cured_service_takes_the_dead_letter_back(store: ChunkStore, endpoint: Endpoint) -> None:
    endpoint.always = when(POISON, failing(400))
    model = impatient(endpoint)
    docs = await filled(store, model, "one", POISON)
    await drain(store, model)
    endpoint.always = good
    for letter in await docs.dead_letters():
        await docs.retry(letter.chunk_id)
    await drain(store, model)
    await Projector(store, model.name).run(drain=True)
    assert [hit.content for hit in await docs.search(POISON, k=1)] == [POISON]


async def test_a_limit_that_is_stricter_than_a_batch_slows_down_and_starves_nobody(
    store: ChunkStore, endpoint: Endpoint
) -> None:
    allowed = 3

    def limited(request: Any) -> Any:
        nonlocal allowed
        allowed -= 1
        if allowed >= 0:
            return good(request)
        allowed = 3
        return failing(429, retry_after="0.05")(request)

    endpoint.always = limited
    model = impatient(endpoint, inputs=8, concurrency=2, patience=0.01)
    await filled(store, model, *texts(256))
    report = await drain(store, model)
    assert (report.stored, report.halved, report.retried, report.dead_letters) == (256, 0, 0, 0)
    answered = report.spent
    assert answered is not None
    assert answered.tokens == sum(map(tokens_of, texts(256)))  # nothing was paid for twice


@pytest.mark.parametrize("status", [301, 401, 402, 403, 404, 405, 400])
async def test_a_refusal_ends_the_consumer_and_gives_back_what_it_held(
    store: ChunkStore, endpoint: Endpoint, status: int
) -> None:
    endpoint.always = failing(status)
    model = impatient(endpoint)
    await filled(store, model, *texts(300))
    with pytest.raises(ModelRefused, match=f"answered {status}"):
        await drain(store, model)
    assert await value(store, "SELECT count(*) FROM leases WHERE owner IS NOT NULL") == 0
    assert set(await values(store, "SELECT attempts FROM leases")) <= {0}
    endpoint.always = good
    report = await drain(store, model)
    assert (report.stored, report.halved, report.retried, report.dead_letters) == (300, 0, 0, 0)


async def test_the_report_says_what_the_run_cost(store: ChunkStore, endpoint: Endpoint) -> None:
    model = impatient(endpoint, price=2.0)
    model.embed(["before the run"])
    await filled(store, model, *texts(100))
    spent = (await drain(store, model)).spent
    assert spent is not None
    total = sum(map(tokens_of, texts(100)))
    assert (spent.requests, spent.tokens) == (2, total)
    assert spent.cost == pytest.approx(total * 2e-6)


async def test_the_key_is_in_no_log_and_no_dead_letter(
    store: ChunkStore,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ANY_KEY", KEY)
    endpoint.always = when(POISON, failing(400, f"with the key {KEY}"))
    model = impatient(endpoint, key_env="ANY_KEY")
    docs = await filled(store, model, "one", POISON)
    await drain(store, model)
    assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert [letter.error.endswith("with the key …") for letter in await docs.dead_letters()] == [True]
    assert caplog.text
    assert KEY not in caplog.text


async def test_queries_have_a_prefix_of_their_own_and_are_asked_once(
    store: ChunkStore, endpoint: Endpoint
) -> None:
    model = impatient(endpoint, document_prefix="passage: ", query_prefix="query: ")
    docs = await filled(store, model, "one", "two")
    await drain(store, model)
    await Projector(store, model.name).run(drain=True)
    endpoint.requests.clear()
    for _ in range(2):
        assert len(await docs.search("one", k=2)) == 2
    assert endpoint.texts == ["query: one"]
