"""An endpoint that answers wrongly: each way with its error, and never a vector under another text."""

import base64
import gzip
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chunkstore.errors import ModelRefused, ModelUnavailable, TextsFailed
from chunkstore.models.checks import checked_vectors
from chunkstore.models.endpoint import sending
from chunkstore.models.hashing import HashingModel
from tests.fix_endpoint import (
    DIMENSIONS,
    Behaviour,
    Endpoint,
    Reply,
    Request,
    answer,
    changed,
    good,
    model_of,
    saying,
    when,
)

TEXTS = ["one", "two words", "three more words", "the bad one"]
RIGHT = HashingModel(DIMENSIONS).embed(TEXTS)
BAD = 3


pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(autouse=True)
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_TRIES", 3)
    monkeypatch.setattr(sending, "_SUSPICIOUS_TRIES", 2)


# --- what is done to a right answer -------------------------------------------------------------


def with_item(at: int, **fields: object) -> Behaviour:
    """The right answer, but for fields of one of its items."""

    def change(body: dict[str, Any]) -> None:
        body["data"][at % len(body["data"])].update(fields)

    return changed(change)


def with_vectors(change: Callable[[list[float]], object]) -> Behaviour:
    """The right answer, each vector a list that was changed."""

    def reply(request: Request) -> Reply:
        body = answer(Request(request.path, request.headers, request.fields | {"encoding_format": "float"}))
        for item in body["data"]:
            item["embedding"] = change(item["embedding"])
        return Reply(body=json.dumps(body).encode())

    return reply


def with_base64(change: Callable[[bytes], bytes | str]) -> Behaviour:
    """The right answer, each vector in base64 that was changed: its bytes, or the text itself."""

    def reply(request: Request) -> Reply:
        body = answer(Request(request.path, request.headers, request.fields | {"encoding_format": "base64"}))
        for item in body["data"]:
            done = change(base64.b64decode(item["embedding"]))
            item["embedding"] = done if isinstance(done, str) else base64.b64encode(done).decode()
        return Reply(body=json.dumps(body).encode())

    return reply


def without(*fields: str) -> Behaviour:
    """The right answer, its items without these fields."""

    def change(body: dict[str, Any]) -> None:
        for item in body["data"]:
            for field in fields:
                item.pop(field)

    return changed(change)


def cut_short(request: Request) -> Reply:
    whole = good(request).body
    assert isinstance(whole, bytes)
    return Reply(body=whole[: len(whole) // 2])


def without_end(request: Request) -> Reply:
    return Reply(body=itertools.repeat(b" " * 65_536, 1_000))


def zipped_without_end(request: Request) -> Reply:
    return Reply(body=gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"})


def doubled(body: dict[str, Any]) -> None:
    body["data"].append(body["data"][0])


def first_only(body: dict[str, Any]) -> None:
    del body["data"][1:]


def all_of_index_0(body: dict[str, Any]) -> None:
    for item in body["data"]:
        item["index"] = 0


ANSWERS: dict[str, tuple[Behaviour, str]] = {
    "an empty body": (saying(b""), "broken off, or no JSON"),
    "an HTML page": (saying(b"<!doctype html><p>Welcome"), "HTML page"),
    "not JSON": (saying(b"vectors: none"), "no JSON"),
    "bytes": (saying(bytes(range(256))), "no JSON"),
    "cut short": (cut_short, "broken off"),
    "null": (saying(b"null"), "not an answer of /v1/embeddings"),
    "a list": (saying(b"[]"), "not an answer of /v1/embeddings"),
    "a number": (saying(b"7"), "not an answer of /v1/embeddings"),
    "nested without end": (saying(b"[" * 100_000), "no JSON|RecursionError|not an answer"),
    "an error with status 200": (saying(b'{"error": {"message": "no"}}'), "missing required field `data`"),
    "no data": (changed(lambda body: {"usage": body["usage"]}), "missing required field `data`"),
    "data is null": (changed(lambda body: body | {"data": None}), "not an answer"),
    "data is empty": (changed(lambda body: body | {"data": []}), "0 vectors for"),
    "no index": (without("index"), "missing required field `index`"),
    "no embedding": (without("embedding"), "missing required field `embedding`"),
    "an index that is text": (with_item(0, index="0"), "not an answer"),
    "an index that is a fraction": (with_item(0, index=0.5), "not an answer"),
    "an index that is true": (with_item(0, index=True), "not an answer"),
    "an index below 0": (with_item(0, index=-1), "index"),
    "an index out of range": (with_item(0, index=99), "index"),
    "a vector twice": (changed(doubled), "vectors for"),
    "an embedding that is null": (with_item(0, embedding=None), "not an answer"),
    "an embedding that is a number": (with_item(0, embedding=1.5), "not an answer"),
    "embeddings in another list": (with_vectors(lambda vector: [vector]), "not an answer"),
    "embeddings of text": (with_vectors(lambda vector: [str(x) for x in vector]), "not an answer"),
    "shorter vectors": (with_vectors(lambda vector: vector[:-1]), "7 numbers, not 8"),
    "longer vectors": (with_vectors(lambda vector: [*vector, 0.0]), "9 numbers, not 8"),
    "empty vectors": (with_vectors(lambda _: []), "0 numbers, not 8"),
    "base64 of another alphabet": (with_base64(lambda _: "-_-_" * 8), "no base64"),
    "base64 with a line's end": (with_base64(lambda raw: base64.encodebytes(raw).decode()), "no base64"),
    "base64 without its padding": (
        with_base64(lambda raw: base64.b64encode(raw).decode().rstrip("=")),
        "no base64",
    ),
    "base64 of doubles": (with_base64(lambda raw: raw + raw), "16 numbers, not 8"),
    "base64 of half a number": (with_base64(lambda raw: raw[:-2]), "30 bytes, not 4 for each"),
    "base64 of a text that is no ASCII": (with_base64(lambda _: "é" * 32), "no base64"),
    "more than there can be": (without_end, "more than .* bytes"),
    "more than there can be, packed": (zipped_without_end, "more than .* bytes"),
    "packed, and it is not": (saying(b"plain", Content_Encoding="gzip"), "cannot be unpacked"),
    "nothing, with success": (lambda _: Reply(204), "answered 204"),
    "accepted, for later": (saying(b"{}", 202), "answered 202"),
}


@pytest.mark.parametrize("behaviour", ANSWERS, ids=ANSWERS)
def test_a_service_that_never_answered_rightly_is_none(endpoint: Endpoint, behaviour: str) -> None:
    endpoint.always, match = ANSWERS[behaviour]
    with pytest.raises(ModelRefused, match=match):
        model_of(endpoint).embed(TEXTS)


@pytest.mark.parametrize("behaviour", ANSWERS, ids=ANSWERS)
def test_a_text_that_the_service_answers_wrongly_fails_alone(endpoint: Endpoint, behaviour: str) -> None:
    wrong, match = ANSWERS[behaviour]
    endpoint.always = when("bad", wrong)
    with pytest.raises(TextsFailed, match=match) as caught:
        model_of(endpoint).embed(TEXTS)
    assert list(caught.value.errors) == [BAD]
    np.testing.assert_array_equal(np.asarray(caught.value.vectors)[:BAD], RIGHT[:BAD])
    assert np.isnan(np.asarray(caught.value.vectors)[BAD]).all()


@pytest.mark.parametrize("behaviour", ANSWERS, ids=ANSWERS)
def test_a_service_that_went_wrong_for_all_is_down_and_no_text_is_at_fault(
    endpoint: Endpoint, behaviour: str
) -> None:
    model = model_of(endpoint)
    model.embed(["first"])
    endpoint.always, match = ANSWERS[behaviour]
    with pytest.raises(ModelUnavailable, match=match):
        model.embed(TEXTS)


@pytest.mark.parametrize("behaviour", ANSWERS, ids=ANSWERS)
def test_a_wrong_answer_that_is_followed_by_a_right_one_does_no_harm(
    endpoint: Endpoint, behaviour: str
) -> None:
    endpoint.then(ANSWERS[behaviour][0])
    np.testing.assert_array_equal(model_of(endpoint).embed(TEXTS), RIGHT)


@pytest.mark.parametrize("change", [first_only, all_of_index_0])
def test_a_service_that_answers_one_text_at_a_time_is_asked_so(
    endpoint: Endpoint, change: Callable[[dict[str, Any]], None]
) -> None:
    endpoint.always = changed(change)
    model = model_of(endpoint)
    np.testing.assert_array_equal(model.embed(TEXTS), RIGHT)
    endpoint.requests.clear()
    np.testing.assert_array_equal(model.embed(TEXTS), RIGHT)
    assert [len(request.texts) for request in endpoint.requests] == [1, 1, 1, 1]


# --- single vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "infinity"),
        (float("-inf"), "infinity"),
        (1e300, "infinity"),
        (None, "NaN"),
    ],
)
def test_a_number_that_is_none_is_the_fault_of_its_text_alone(
    endpoint: Endpoint, number: float | None, reason: str
) -> None:
    endpoint.always = when("bad", with_item(BAD, embedding=[number] * DIMENSIONS))
    model = model_of(endpoint)
    vectors, bad = checked_vectors(model, model.embed(TEXTS), len(TEXTS))
    assert [row for row, _ in bad] == [BAD]
    assert reason in bad[0][1]
    np.testing.assert_array_equal(vectors[:BAD], RIGHT[:BAD])


def test_nan_in_base64_is_found_too(endpoint: Endpoint) -> None:
    endpoint.always = with_base64(lambda raw: b"\x00\x00\xc0\x7f" + raw[4:])
    model = model_of(endpoint)
    assert len(checked_vectors(model, model.embed(TEXTS), len(TEXTS))[1]) == len(TEXTS)


def test_one_vector_of_another_length_fails_alone_and_at_no_further_request(endpoint: Endpoint) -> None:
    endpoint.always = when("bad", with_item(BAD, embedding=[1.0] * 7))
    with pytest.raises(TextsFailed, match="7 numbers, not 8") as caught:
        model_of(endpoint).embed(TEXTS)
    assert list(caught.value.errors) == [BAD]
    assert len(endpoint.requests) == 1


def test_vectors_go_by_their_index_whatever_their_order(endpoint: Endpoint) -> None:
    endpoint.always = changed(lambda body: body | {"data": body["data"][::-1]})
    np.testing.assert_array_equal(model_of(endpoint).embed(TEXTS), RIGHT)


@pytest.mark.parametrize("usage", [None, 7, "many", {}, {"total_tokens": "7"}, {"total_tokens": -1},
                                   {"total_tokens": 2**80}, {"total_tokens": True}])  # fmt: skip
def test_an_answer_that_does_not_say_its_cost_is_as_good(endpoint: Endpoint, usage: object) -> None:
    endpoint.always = changed(lambda body: body | {"usage": usage})
    model = model_of(endpoint, price=1.0)
    np.testing.assert_array_equal(model.embed(TEXTS), RIGHT)
    assert (model.spent.requests, model.spent.tokens, model.spent.cost) == (1, 0, 0.0)


def test_floats_are_taken_where_base64_was_asked_for(endpoint: Endpoint) -> None:
    endpoint.always = with_vectors(lambda vector: vector)
    np.testing.assert_allclose(model_of(endpoint).embed(TEXTS), RIGHT, rtol=1e-6)
