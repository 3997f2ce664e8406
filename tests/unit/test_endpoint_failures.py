"""An endpoint that fails: which statuses and connections blame a text, and which the service."""

from collections.abc import Callable

import numpy as np
import pytest

from chunkstore.errors import ModelRefused, ModelUnavailable, TextsFailed
from chunkstore.models.endpoint import sending
from chunkstore.models.endpoint.model import EndpointModel
from chunkstore.models.endpoint.options import Options
from chunkstore.models.hashing import HashingModel
from tests.fix_endpoint import (
    DIMENSIONS,
    Behaviour,
    Endpoint,
    Reply,
    Request,
    failing,
    good,
    model_of,
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


def broken_off(request: Request) -> Reply:
    whole = good(request).body
    assert isinstance(whole, bytes)
    return Reply(body=[whole[: len(whole) // 2]], length=len(whole))


STATUSES: dict[int, tuple[type[Exception], str]] = {
    **dict.fromkeys((301, 302, 303, 307, 308), (ModelRefused, "sends on to another address")),
    **dict.fromkeys((401, 402, 404, 405, 407, 410), (ModelRefused, "answered 4..: for a reason")),
    **dict.fromkeys(
        (400, 403, 411, 413, 415, 418, 422, 431, 451), (ModelRefused, "for a reason .*so to any")
    ),
    **dict.fromkeys((408, 409, 425, 429), (ModelUnavailable, "answered 4..: for a reason")),
    **dict.fromkeys((500, 501, 502, 503, 504, 507, 520, 529, 599), (ModelUnavailable, "answered 5..: for a")),
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_that_meets_every_request_is_no_texts_fault(endpoint: Endpoint, status: int) -> None:
    error, match = STATUSES[status]
    endpoint.always = failing(status, "for a reason", Location="http://127.0.0.1:1/elsewhere")
    with pytest.raises(error, match=match):
        model_of(endpoint).embed(TEXTS)
    model = model_of(endpoint)
    endpoint.then(good)
    model.embed(["first"])
    with pytest.raises(error, match=match):
        model.embed(TEXTS)


@pytest.mark.parametrize("status", [400, 403, 413, 415, 418, 422, 451, 500, 501])
def test_a_status_that_meets_one_text_is_that_texts_fault(endpoint: Endpoint, status: int) -> None:
    endpoint.always = when("bad", failing(status, "for a reason"))
    with pytest.raises(TextsFailed, match=f"answered {status}: for a reason") as caught:
        model_of(endpoint).embed(TEXTS)
    assert list(caught.value.errors) == [BAD]
    np.testing.assert_array_equal(np.asarray(caught.value.vectors)[:BAD], RIGHT[:BAD])


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 529])
def test_a_status_that_says_nothing_of_the_text_is_never_its_fault(endpoint: Endpoint, status: int) -> None:
    endpoint.always = when("bad", failing(status))
    with pytest.raises(ModelUnavailable):
        model_of(endpoint).embed(TEXTS)


def silent(endpoint: Endpoint) -> Behaviour:
    """No answer for as long as the test runs."""

    def reply(request: Request) -> Reply:
        endpoint.closing.wait(60)
        return good(request)

    return reply


def slow(endpoint: Endpoint) -> Behaviour:
    """The right answer, a byte at a time."""

    def reply(request: Request) -> Reply:
        whole = good(request).body
        assert isinstance(whole, bytes)
        return Reply(body=endpoint.trickle(whole, 0.05), length=len(whole))

    return reply


def slow_to_fail(endpoint: Endpoint) -> Behaviour:
    return lambda _: Reply(500, endpoint.trickle(b" " * 1000, 0.05), length=1000)


def dropped(request: Request) -> Reply:
    raise ConnectionResetError


CONNECTIONS: dict[str, tuple[Callable[[Endpoint], Behaviour], str]] = {
    "silent": (silent, "did not answer within 0.5 s"),
    "a byte at a time": (slow, "did not answer within 0.5 s"),
    "an error, a byte at a time": (slow_to_fail, "did not answer within 0.5 s"),
    "broken off": (lambda _: broken_off, "broke off"),
    "dropped without a word": (lambda _: dropped, "broke off"),
}


@pytest.mark.parametrize("behaviour", CONNECTIONS, ids=CONNECTIONS)
def test_a_connection_that_gives_no_whole_answer_means_that_the_service_is_down(
    endpoint: Endpoint, behaviour: str
) -> None:
    made, match = CONNECTIONS[behaviour]
    endpoint.always = made(endpoint)
    with pytest.raises(ModelUnavailable, match=match):
        model_of(endpoint, timeout=0.5).embed(TEXTS)


@pytest.mark.parametrize("behaviour", ["broken off", "dropped without a word"])
def test_a_text_that_breaks_the_connection_fails_alone(endpoint: Endpoint, behaviour: str) -> None:
    endpoint.always = when("bad", CONNECTIONS[behaviour][0](endpoint))
    with pytest.raises(TextsFailed, match="broke off") as caught:
        model_of(endpoint).embed(TEXTS)
    assert list(caught.value.errors) == [BAD]


def test_no_server_is_a_service_that_is_down(endpoint: Endpoint) -> None:
    model = model_of(endpoint)
    endpoint.stop()
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        model.embed(TEXTS)
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        model.embed_query("one")


def test_a_host_that_does_not_exist_is_a_service_that_is_down() -> None:
    model = EndpointModel(Options(model="m", url="http://nowhere.invalid/v1", dimensions=8, patience=0.2))
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        model.embed(TEXTS)


def test_a_server_without_tls_behind_https_is_a_service_that_is_down(endpoint: Endpoint) -> None:
    url = endpoint.url.replace("http:", "https:")
    model = EndpointModel(Options(model="m", url=url, dimensions=8, patience=0.2))
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        model.embed(TEXTS)
