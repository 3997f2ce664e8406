"""An endpoint with limits: requests tried again in time, paced and counted; the key and texts kept secret."""

import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic

import numpy as np
import pytest

from chunkstore.errors import ChunkstoreError, EmbeddingFailed, ModelRefused, ModelUnavailable
from chunkstore.models import Spends, open_model
from chunkstore.models.endpoint import kept, sending
from chunkstore.models.endpoint.options import Options
from chunkstore.models.endpoint.pacing import Pacing, retry_after
from chunkstore.models.hashing import HashingModel
from tests.fix_endpoint import (
    DIMENSIONS,
    KEY,
    Behaviour,
    Endpoint,
    Reply,
    Request,
    failing,
    good,
    model_of,
    tokens_of,
    when,
)

pytestmark = pytest.mark.usefixtures("quickly")


def numbered(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


# --- trying again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.then(failing(status), failing(status))
    np.testing.assert_array_equal(model_of(endpoint).embed(["one"]), HashingModel(DIMENSIONS).embed(["one"]))
    assert len(endpoint.requests) == 3


def stamped(endpoint: Endpoint) -> list[float]:
    """When each request came, from now on."""
    times: list[float] = []
    inner = endpoint.always

    def reply(request: Request) -> Reply:
        times.append(monotonic())
        return inner(request)

    endpoint.always = reply
    return times


@pytest.mark.parametrize("header", [{"retry_after": "0.3"}, {"retry_after_ms": "300"}])
def test_the_seconds_that_a_service_asks_for_are_waited(endpoint: Endpoint, header: dict[str, str]) -> None:
    endpoint.then(failing(429, **header))
    start = monotonic()
    model_of(endpoint).embed(["one"])
    assert monotonic() - start >= 0.3
    assert len(endpoint.requests) == 2


def test_the_date_that_a_service_names_is_waited_for(endpoint: Endpoint) -> None:
    named: list[datetime] = []

    def until_later(request: Request) -> Reply:
        named.append((datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0))
        return failing(503, retry_after=format_datetime(named[0], usegmt=True))(request)

    endpoint.then(until_later)
    model_of(endpoint).embed(["one"])
    assert datetime.now(UTC) >= named[0]
    assert len(endpoint.requests) == 2


def test_a_service_that_asks_for_more_patience_than_there_is_counts_as_down_until_then(
    endpoint: Endpoint,
) -> None:
    endpoint.then(failing(429, retry_after="30"))
    model = model_of(endpoint, patience=5)
    with pytest.raises(ModelUnavailable, match="answered 429"):
        model.embed(["one"])
    with pytest.raises(ModelUnavailable, match=r"takes no requests for (30|29) s"):
        model.embed(["one"])
    assert len(endpoint.requests) == 1


def test_all_requests_wait_while_the_service_asks_one_of_them_to(endpoint: Endpoint) -> None:
    endpoint.then(failing(429, retry_after="0.4"))
    times = stamped(endpoint)
    start = monotonic()
    model_of(endpoint, inputs=1, concurrency=1).embed(numbered(3))
    assert min(times) - start >= 0.4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 41 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 9),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "yesterday"}, 0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7),
    ],
)
def test_a_wait_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_to_come_is_so_many_seconds_away() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=90)
    for written in (format_datetime(moment, usegmt=True), moment.strftime("%a, %d %b %Y %H:%M:%S -0000")):
        found = retry_after({"retry-after": written})
        assert found is not None
        assert 85 < found <= 90


def test_trying_again_comes_to_an_end(endpoint: Endpoint) -> None:
    endpoint.always = failing(503)
    with pytest.raises(ModelUnavailable, match="answered 503"):
        model_of(endpoint).embed(["one"])
    assert len(endpoint.requests) == sending._TRIES
    endpoint.requests.clear()
    with pytest.raises(ModelUnavailable, match="answered 503"):
        model_of(endpoint, patience=0.001).embed(["one"])
    assert len(endpoint.requests) == 1


def test_what_was_answered_before_a_call_failed_is_not_paid_for_again(endpoint: Endpoint) -> None:
    endpoint.always = when("away", failing(503))
    model = model_of(endpoint, inputs=4, concurrency=1, patience=0.001)
    texts = [*numbered(8), "away"]
    with pytest.raises(ModelUnavailable):
        model.embed(texts)
    endpoint.requests.clear()
    endpoint.always = good
    np.testing.assert_array_equal(model.embed(texts), HashingModel(DIMENSIONS).embed(texts))
    assert endpoint.texts == ["away"]
    model.embed(texts)
    assert len(endpoint.texts) == 1 + 9


def test_only_so_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST_BYTES", 100)
    held = kept.Kept()
    held.put({name * 10: np.ones(8, np.float32) for name in "abcd"})
    assert list(held.take(dict(enumerate(name * 10 for name in "abcd")))) == [2, 3]
    assert held.take({0: "c" * 10}) == {}


def test_after_a_failure_no_further_request_is_sent(endpoint: Endpoint) -> None:
    endpoint.always = failing(401)
    with pytest.raises(ModelRefused, match="401"):
        model_of(endpoint, inputs=1, concurrency=1).embed(numbered(50))
    assert len(endpoint.requests) < 5, "the first text, and the harmless ones that prove it innocent"


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"requests_per_minute": 600}, {"tokens_per_minute": 12_000}])
def test_requests_come_no_faster_than_the_limit(endpoint: Endpoint, limit: dict[str, int]) -> None:
    times = stamped(endpoint)
    model = model_of(endpoint, inputs=1, concurrency=4, **limit)
    start = monotonic()
    model.embed(["x" * 60] * 6)  # 20 tokens each by the estimate
    assert len(times) == 6
    assert monotonic() - start >= 0.5


def test_a_request_has_no_more_tokens_than_a_minute_allows(endpoint: Endpoint) -> None:
    cut = model_of(endpoint, tokens_per_minute=60_000)._requests(range(4), ["x" * 90_000] * 4)
    assert [len(request) for request in cut] == [2, 2]


def test_turns_are_as_far_apart_as_the_limits_say() -> None:
    by_tokens = Pacing(Options(model="m", tokens_per_minute=1_200))
    assert [round(by_tokens.turn(20)) for _ in range(3)] == [0, 1, 2]
    by_requests = Pacing(Options(model="m", requests_per_minute=30, tokens_per_minute=1_000_000))
    assert [round(by_requests.turn(20)) for _ in range(3)] == [0, 2, 4]


# --- counting -------------------------------------------------------------------------------------


def test_tokens_and_cost_are_what_the_service_counted(endpoint: Endpoint) -> None:
    model = model_of(endpoint, price=0.5, inputs=10)
    assert isinstance(model, Spends)
    assert (model.spent.requests, model.spent.tokens, model.spent.cost) == (0, 0, 0)
    texts = numbered(25)
    model.embed(texts)
    total = sum(map(tokens_of, texts))
    assert (model.spent.requests, model.spent.tokens) == (3, total)
    assert model.spent.cost == pytest.approx(total * 0.5 / 1e6)
    assert model_of(endpoint).spent.cost is None


# --- the key --------------------------------------------------------------------------------------


def test_the_key_and_the_texts_are_in_no_log_repr_or_error(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    secret = "the patient's name is in this text"
    model = open_model(f"openai:m,dimensions={DIMENSIONS},patience=0.01")
    seen = [repr(model), str(model)]

    def echoing(status: int) -> Behaviour:
        return lambda request: failing(status, f"Incorrect API key {KEY} for {request.texts[0]}")(request)

    for status in (301, 400, 401, 403, 404, 429, 500, 503):
        endpoint.always = echoing(status)
        with pytest.raises(ChunkstoreError) as caught:
            model.embed([secret])
        error = caught.value
        assert not isinstance(error, EmbeddingFailed)
        seen += ["".join(traceback.format_exception(error)), repr(error.__cause__), repr(vars(error))]
    endpoint.stop()
    with pytest.raises(ModelUnavailable) as caught:
        model.embed([secret])
    seen += ["".join(traceback.format_exception(caught.value))]
    assert any("answered 400: Incorrect API key … for a" in text for text in seen)
    shown = "\n".join([*seen, caplog.text])
    assert KEY not in shown
    assert "httpcore2" in caplog.text
    lines = [line for line in shown.splitlines() if secret in line]
    assert lines == []
