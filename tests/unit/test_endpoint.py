"""An endpoint that means well and has limits: requests cut to size, tried again, paced, counted."""

import logging
import threading
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from chunkstore.errors import ChunkstoreError, EmbeddingFailed, ModelRefused, ModelUnavailable, TextsFailed
from chunkstore.models import EmbedsQueries, Spends, open_model
from chunkstore.models.endpoint import kept, sending
from chunkstore.models.endpoint import model as endpoint_model
from chunkstore.models.endpoint.model import EndpointModel
from chunkstore.models.endpoint.options import Options
from chunkstore.models.endpoint.pacing import Pacing, retry_after
from chunkstore.models.hashing import HashingModel
from chunkstore.models.truncation import cut_texts
from tests.fix_endpoint import (
    DIMENSIONS,
    KEY,
    Behaviour,
    Endpoint,
    Reply,
    Request,
    changed,
    failing,
    good,
    tokens_of,
    when,
)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of a second where the service names none."""
    monkeypatch.setattr(sending, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sending, "_LONGEST_PAUSE", 0.02)


def model_of(endpoint: Endpoint, **options: Any) -> EndpointModel:
    return EndpointModel(Options(model="m", url=endpoint.url, **({"dimensions": DIMENSIONS} | options)))


def numbered(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


# --- requests -----------------------------------------------------------------------------------


def test_a_batch_is_cut_into_requests_of_so_many_inputs_and_put_together_in_order(endpoint: Endpoint) -> None:
    texts = numbered(256)
    vectors = model_of(endpoint).embed(texts)
    np.testing.assert_array_equal(vectors, HashingModel(DIMENSIONS).embed(texts))
    assert vectors.dtype == np.float32
    assert [len(request.texts) for request in endpoint.requests] == [64] * 4
    assert sorted(endpoint.texts) == sorted(texts)


def test_a_request_has_at_most_so_many_tokens_and_a_text_of_more_goes_alone(endpoint: Endpoint) -> None:
    texts = ["x" * 30, "x" * 30, "x" * 60, "y" * 300, "x" * 30]
    model_of(endpoint, tokens=20, concurrency=1).embed(texts)
    assert [[len(text) for text in request.texts] for request in endpoint.requests] == [
        [30, 30], [60], [300], [30],
    ]  # fmt: skip


def test_requests_are_under_way_side_by_side_but_no_more_than_allowed(endpoint: Endpoint) -> None:
    gate = threading.Barrier(3)

    def together(request: Request) -> Reply:
        gate.wait(30)
        return good(request)

    endpoint.always = together
    model_of(endpoint, inputs=1, concurrency=3).embed(numbered(9))
    assert endpoint.most_at_once == 3


def test_a_request_says_what_is_wanted(endpoint: Endpoint) -> None:
    model_of(endpoint).embed(["one"])
    request = endpoint.requests[0]
    assert request.path == "/v1/embeddings"
    assert request.fields == {"model": "m", "input": ["one"], "encoding_format": "base64", "dimensions": 8}
    model_of(endpoint, dimensions=None).embed(["one"])
    assert "dimensions" not in endpoint.requests[-1].fields


@pytest.mark.parametrize("refused", [{"encoding_format"}, {"dimensions"}, {"encoding_format", "dimensions"}])
def test_an_option_that_the_service_does_not_take_is_left_out_from_then_on(
    endpoint: Endpoint, refused: set[str]
) -> None:
    def strict(request: Request) -> Reply:
        return (failing(422, "extra fields") if refused & set(request.fields) else good)(request)

    endpoint.always = strict
    model = model_of(endpoint)
    np.testing.assert_allclose(model.embed(["one"]), HashingModel(DIMENSIONS).embed(["one"]), rtol=1e-6)
    endpoint.requests.clear()
    model.embed(numbered(100))
    assert len(endpoint.requests) == 2
    assert not any(refused & set(request.fields) for request in endpoint.requests)


def test_a_service_that_takes_no_dimensions_and_has_others_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(ModelRefused, match="8 numbers, not 16"):
        endpoint.always = lambda request: (failing(400) if "dimensions" in request.fields else good)(request)
        model_of(endpoint, dimensions=16).embed(["one"])


def test_a_size_that_the_service_does_not_take_is_learnt(endpoint: Endpoint) -> None:
    endpoint.always = lambda request: (failing(413) if len(request.texts) > 10 else good)(request)
    model = model_of(endpoint)
    texts = numbered(64)
    np.testing.assert_array_equal(model.embed(texts), HashingModel(DIMENSIONS).embed(texts))
    endpoint.requests.clear()
    model.embed(texts)
    assert [len(request.texts) for request in endpoint.requests] == [8] * 8


def test_one_bad_text_does_not_make_later_requests_small(endpoint: Endpoint) -> None:
    endpoint.always = when("poison", failing(400))
    model = model_of(endpoint)
    with pytest.raises(TextsFailed):
        model.embed([*numbered(63), "poison"])
    endpoint.requests.clear()
    model.embed(numbered(64))
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [500, 501])
def test_a_bad_moment_does_not_make_later_requests_small(endpoint: Endpoint, status: int) -> None:
    model = model_of(endpoint)
    endpoint.then(good, *[failing(status)] * sending._SUSPICIOUS_TRIES)
    model.embed(["first"])
    model.embed(numbered(64))
    endpoint.requests.clear()
    model.embed(numbered(64))
    assert len(endpoint.requests) == 1


def test_among_256_texts_the_bad_one_is_found_in_few_requests(endpoint: Endpoint) -> None:
    endpoint.always = when("poison", failing(400, "no poison"))
    texts = numbered(256)
    texts[77] = "poison"
    with pytest.raises(TextsFailed, match="400: no poison") as caught:
        model_of(endpoint).embed(texts)
    assert list(caught.value.errors) == [77]
    vectors = np.asarray(caught.value.vectors)
    good_rows = [row for row in range(256) if row != 77]
    right = HashingModel(DIMENSIONS).embed([texts[row] for row in good_rows])
    np.testing.assert_array_equal(vectors[good_rows], right)
    assert len(endpoint.requests) <= 4 + 4 * 8


def test_no_texts_need_no_request(endpoint: Endpoint) -> None:
    assert model_of(endpoint).embed([]).shape == (0, DIMENSIONS)
    assert endpoint.requests == []


def test_half_a_character_is_the_fault_of_its_text(endpoint: Endpoint) -> None:
    with pytest.raises(TextsFailed, match="half a character") as caught:
        model_of(endpoint).embed(["one", "\ud800", "two"])
    assert list(caught.value.errors) == [1]
    assert endpoint.texts == ["one", "two"]


# --- queries and prefixes -----------------------------------------------------------------------


def test_documents_and_queries_have_prefixes_of_their_own(endpoint: Endpoint) -> None:
    model = model_of(endpoint, document_prefix="passage: ", query_prefix="query: ")
    assert isinstance(model, EmbedsQueries)
    assert model.embed_query("one").shape == (DIMENSIONS,)
    model.embed(["two"])
    assert endpoint.texts == ["query: one", "passage: two"]


def test_the_prefix_counts_among_the_tokens(endpoint: Endpoint) -> None:
    assert model_of(endpoint, document_prefix="x" * 30).count_tokens(["", "y" * 30]) == [10, 20]


def test_a_query_does_not_wait_as_long_as_a_consumer(endpoint: Endpoint) -> None:
    endpoint.always = failing(429, retry_after="30")
    start = monotonic()
    with pytest.raises(ModelUnavailable):
        model_of(endpoint).embed_query("one")
    assert monotonic() - start < 10
    assert len(endpoint.requests) == 1


def test_a_query_does_not_wait_for_a_service_that_is_silent(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(request: Request) -> Reply:
        endpoint.closing.wait(60)
        return good(request)

    monkeypatch.setattr(endpoint_model, "_QUERY_SECONDS", 0.3)
    endpoint.always = silent
    with pytest.raises(ModelUnavailable, match=r"did not answer within 0\.3 s"):
        model_of(endpoint).embed_query("one")


# --- tokens -------------------------------------------------------------------------------------


def words(tmp_path: Path) -> str:
    """A tokenizer that counts as the server does."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def test_a_text_of_more_tokens_than_the_model_reads_is_reported_and_not_sent(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    model = model_of(endpoint, max_tokens=3, tokenizer=words(tmp_path))
    texts = ["one two three", "one two three four", "one"]
    assert model.count_tokens(texts) == [3, 4, 1]
    with pytest.raises(TextsFailed, match="the text has 4 tokens, and the model reads 3") as caught:
        model.embed(texts)
    assert list(caught.value.errors) == [1]
    assert sorted(endpoint.texts) == ["one", "one two three"]


def cutting(request: Request) -> Reply:
    """Reads ten tokens of each text and says nothing of it, as some servers do."""
    cut = [" ".join(text.split()[:10]) for text in request.texts]
    return good(Request(request.path, request.headers, request.fields | {"input": cut}))


def test_without_a_tokenizer_a_cut_is_seen_by_what_the_service_counts(endpoint: Endpoint) -> None:
    endpoint.always = cutting
    long = "word " * 11
    with pytest.raises(TextsFailed, match="read 10 tokens, all that the model takes") as caught:
        model_of(endpoint, max_tokens=10).embed(["short", long, "shorter"])
    assert list(caught.value.errors) == [1]
    with pytest.raises(EmbeddingFailed, match="the rest was cut"):
        model_of(endpoint, max_tokens=10).embed_query(long)


def test_a_text_that_may_have_been_cut_by_a_service_that_does_not_count_is_reported(
    endpoint: Endpoint,
) -> None:
    endpoint.always = changed(lambda body: body | {"usage": None})
    with pytest.raises(TextsFailed, match=r"may have 11 tokens .an estimate.*name a tokenizer") as caught:
        model_of(endpoint, max_tokens=10).embed(["x" * 30, "x" * 31])
    assert list(caught.value.errors) == [1]


def test_no_vector_of_a_cut_text_is_given_so_none_is_counted_as_cut(endpoint: Endpoint) -> None:
    model = model_of(endpoint, max_tokens=10)
    assert model.count_tokens(["one word of thirty-two letters.."]) == [11]
    assert cut_texts(model, ["one word of thirty-two letters.."]) == []
    assert model.embed(["one word of thirty-two letters.."]).shape == (1, DIMENSIONS)


# --- trying again -------------------------------------------------------------------------------


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
    assert len(endpoint.requests) < 5


# --- limits -------------------------------------------------------------------------------------


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


# --- counting -----------------------------------------------------------------------------------


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


# --- the key ------------------------------------------------------------------------------------


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
