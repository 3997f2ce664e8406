"""What an endpoint is sent: requests cut to what it takes, prefixes, and no text that it would cut."""

import threading
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from chunkstore.errors import EmbeddingFailed, ModelRefused, ModelUnavailable, TextsFailed
from chunkstore.models import EmbedsQueries
from chunkstore.models.endpoint import model as endpoint_model
from chunkstore.models.endpoint import sending
from chunkstore.models.hashing import HashingModel
from chunkstore.models.truncation import cut_texts
from tests.fix_endpoint import (
    DIMENSIONS,
    Endpoint,
    Reply,
    Request,
    changed,
    failing,
    good,
    model_of,
    when,
)

pytestmark = pytest.mark.usefixtures("quickly")


def numbered(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


# --- requests -------------------------------------------------------------------------------------


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


# --- queries and prefixes -------------------------------------------------------------------------


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


# --- tokens ---------------------------------------------------------------------------------------


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
