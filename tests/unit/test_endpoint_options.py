"""The spec of an endpoint, its address and its key: what is taken, what is refused, what is never shown."""

import pickle
from pathlib import Path

import pytest

from chunkstore.errors import InvalidInput, MissingExtra, ModelUnavailable, UnknownModel
from chunkstore.models import CountsTokens, Model, ModelDescription, describe, open_model, spec_of
from chunkstore.models import name_of as name_of_spec
from chunkstore.models.endpoint import client, key, tokens
from chunkstore.models.endpoint.options import Options, base_url, name_of, read
from tests.fix_endpoint import KEY, Endpoint


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no service."""
    for name in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# --- specs --------------------------------------------------------------------------------------


def test_a_spec_carries_every_option() -> None:
    options = read(
        "nomic-embed-text:latest,dimensions=512,url=http://127.0.0.1:8080/v1,query_prefix=query: ,"
        "document_prefix=text%2C ,timeout=2.5,price=0.02,requests_per_minute=3000"
    )
    assert options.model == "nomic-embed-text:latest"
    assert (options.dimensions, options.timeout, options.price) == (512, 2.5, 0.02)
    assert (options.query_prefix, options.document_prefix) == ("query: ", "text, ")
    assert (options.requests_per_minute, options.inputs) == (3000, 64)


@pytest.mark.parametrize(
    "model", ["m", "@cf/baai/bge-m3", "org/model:tag", "textembedding-gecko@003", "模型"]
)
def test_names_of_models_are_taken_as_services_write_them(model: str) -> None:
    assert read(model).model == model


REFUSED = [
    "",
    " ",
    ",dimensions=8",
    "two words",
    "m" * 151,
    "m,",
    "m,dimensions",
    "m,dimensions=",
    "m,dimensions=0",
    "m,dimensions=-1",
    "m,dimensions=16001",
    "m,dimensions=eight",
    "m,dimensions=8.5",
    "m,dimensions=8,dimensions=9",
    "m,model=n",
    "m,size=8",
    "m,inputs=0",
    "m,tokens=0",
    "m,concurrency=0",
    "m,concurrency=65",
    "m,timeout=0",
    "m,timeout=nan",
    "m,timeout=inf",
    "m,patience=-1",
    "m,price=-0.1",
    "m,price=nan",
    "m,requests_per_minute=0",
    "m,max_tokens=none at all",
    "m,key_env=A,key_file=B",
]


@pytest.mark.parametrize("argument", REFUSED)
def test_a_malformed_spec_is_refused(argument: str) -> None:
    for use in (open_model, describe):
        with pytest.raises(InvalidInput, match="model"):
            use(f"openai:{argument}")


def test_a_key_in_the_wrong_place_is_not_shown_by_the_error() -> None:
    for spec in (
        f"openai:m,key={KEY}",
        f"openai:m,dimensions={KEY}",
        f"openai:m,{KEY}=1",
        f"openai:m,url=http://u:{KEY}@h/v1",
    ):
        with pytest.raises(InvalidInput) as caught:
            open_model(spec)
        assert KEY not in str(caught.value), spec


def test_what_is_known_of_a_spec_is_said_without_asking_anybody() -> None:
    assert describe("openai:text-embedding-3-large").dimensions == 3072
    assert describe("openai:m,dimensions=8,url=http://nowhere.invalid") == ModelDescription(
        "openai:m,dimensions=8", 8, "cosine"
    )


def test_the_name_says_what_changes_the_vectors_and_opens_the_model_again() -> None:
    names = [
        name_of(read(argument))
        for argument in ("m", "m,dimensions=8", "m,dimensions=8,query_prefix=q: ", "m,document_prefix=d: ")
    ]
    assert len(set(names)) == 4
    assert name_of(read("m,url=http://h/v1,timeout=1,concurrency=9")) == names[0]
    assert name_of_spec("openai:m,url=http://nowhere.invalid/v1") == names[0]
    assert [spec_of(name) for name in names] == ["openai:m", "openai:m,dimensions=8", None, None]


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://h/v1", "http://h/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("https://h:8443/a/v1/embeddings", "https://h:8443/a/v1"),
        ("http://[::1]:80/v1/embeddings/", "http://[::1]:80/v1"),
        ("http://h", "http://h"),
    ],
)
def test_an_address_is_taken_with_or_without_its_last_part(given: str, meant: str) -> None:
    assert base_url(Options(model="m", url=given)) == meant


@pytest.mark.parametrize("url", ["", "h", "h:80/v1", "ftp://h/v1", "file:///etc/passwd", "http://", "http:///v1",
                                 "http://h:0/v1", "http://h:99999/v1", "http://h:port/v1", "http://[::1/v1",
                                 "http://h/v1?version=2", "http://h/v1#x", "http://a b/v1", "http://h/v1\n",
                                 "http://ünder/v1", "http://u:secret@h/v1", "http://u@h/v1"])  # fmt: skip
def test_what_is_no_address_of_a_service_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="url") as caught:
        read(f"m,dimensions=8,url={url}")
    assert "secret" not in str(caught.value)
    if url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(InvalidInput, match="OPENAI_BASE_URL"):
            open_model("openai:m,dimensions=8")


def test_the_address_comes_from_the_spec_else_the_environment_else_it_is_openais(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert base_url(Options(model="m")) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert base_url(Options(model="m")) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://environment/v1")
    assert base_url(Options(model="m")) == "http://environment/v1"
    assert base_url(Options(model="m", url="http://spec/v1")) == "http://spec/v1"


# --- keys ---------------------------------------------------------------------------------------


def sent_key(endpoint: Endpoint, spec: str = "openai:m,dimensions=8") -> str | None:
    """What a model of the spec proves itself with."""
    open_model(spec).embed(["one"])
    return endpoint.requests[-1].headers.get("authorization")


def test_the_key_comes_from_the_environment(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    assert sent_key(endpoint) is None
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert sent_key(endpoint) == f"Bearer {KEY}"
    monkeypatch.setenv("OTHER", "another-key")
    assert sent_key(endpoint, "openai:m,dimensions=8,key_env=OTHER") == "Bearer another-key"


def test_the_key_comes_from_a_file(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    assert sent_key(endpoint) == f"Bearer {KEY}"
    (tmp_path / "other").write_text("another-key")
    assert sent_key(endpoint, f"openai:m,dimensions=8,key_file={tmp_path / 'other'}") == "Bearer another-key"
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    assert sent_key(endpoint) == "Bearer of-the-environment"


def test_openais_key_is_not_sent_to_an_address_in_the_spec(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sent_key(endpoint, f"openai:m,dimensions=8,url={endpoint.url}") is None


def test_openai_itself_is_not_asked_without_a_key() -> None:
    with pytest.raises(InvalidInput, match=r"OPENAI_API_KEY: None .*OPENAI_API_KEY_FILE"):
        open_model("openai:text-embedding-3-small")


@pytest.mark.parametrize("value", ["two words", "line\nline", "schlüssel", "a\0b", "\x1b[31m", "k" * 10_001])
def test_what_cannot_be_a_key_is_refused_and_not_shown(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(value)
    if "\0" not in value:
        monkeypatch.setenv("OPENAI_API_KEY", value)
        with pytest.raises(InvalidInput, match="OPENAI_API_KEY: 'what it holds' is not allowed") as caught:
            open_model("openai:text-embedding-3-small")
        assert value[:5] not in str(caught.value)
    with pytest.raises(InvalidInput, match=r"key_file=.*: 'what it holds' is not allowed"):
        open_model(f"openai:m,dimensions=8,url=http://h/v1,key_file={tmp_path / 'key'}")


@pytest.mark.parametrize("where", ["missing", "folder", "empty", "binary"])
def test_a_file_that_holds_no_key_is_refused(where: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InvalidInput, match="key_file"):
        open_model(f"openai:m,dimensions=8,url=http://h/v1,key_file={tmp_path / where}")


def test_a_variable_that_is_not_set_is_refused() -> None:
    with pytest.raises(InvalidInput, match="key_env=NO_SUCH: 'nothing' is not allowed"):
        open_model("openai:m,dimensions=8,url=http://h/v1,key_env=NO_SUCH")


def test_a_key_shows_itself_nowhere() -> None:
    secret = key.ApiKey(KEY)
    assert KEY not in repr(secret) + str(secret) + f"{secret}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


# --- what opening comes to ----------------------------------------------------------------------


def test_dimensions_that_nobody_knows_are_asked_of_the_service(endpoint: Endpoint) -> None:
    spec = f"openai:m,url={endpoint.url}"
    assert describe(spec) == ModelDescription("openai:m", 8, "cosine")
    model = open_model(spec)
    assert isinstance(model, Model)
    assert model.embed(["one", "two"]).shape == (2, 8)
    assert [request.texts for request in endpoint.requests] == [["a"], ["a"], ["one", "two"]]
    endpoint.stop()
    with pytest.raises(ModelUnavailable):
        describe(spec)


def test_a_model_says_its_limit_only_where_it_is_known() -> None:
    assert not isinstance(open_model("openai:m,dimensions=8,url=http://h/v1"), CountsTokens)
    given = open_model("openai:m,dimensions=8,url=http://h/v1,max_tokens=512")
    assert isinstance(given, CountsTokens)
    assert given.max_tokens == 512


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'chunkstore\[endpoint\]'"):
        open_model("openai:m,url=http://h/v1")
    assert describe("openai:m,dimensions=8").dimensions == 8


# --- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a", 1), ("four", 2), ("検索", 2), ("\ud800", 1)])
def test_without_a_tokenizer_three_bytes_are_held_to_be_a_token(text: str, count: int) -> None:
    assert tokens.counter(None)([text]) == [count]


def test_a_named_tokenizer_counts_all_and_cuts_nothing(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_truncation(3)
    made.enable_padding(length=7)
    made.save(str(tmp_path / "tokenizer.json"))
    assert tokens.counter(str(tmp_path / "tokenizer.json"))(["one", "a b c d e", ""]) == [1, 5, 0]


def test_tiktoken_counts_by_its_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken
    from tiktoken import registry

    bytes_only = tiktoken.Encoding(
        "bytes", pat_str=r"\S+|\s+", mergeable_ranks={bytes([b]): b for b in range(256)},
        special_tokens={"<|end|>": 256},
    )  # fmt: skip
    monkeypatch.setitem(registry.ENCODINGS, "bytes", bytes_only)
    assert tokens.counter("tiktoken:bytes")(["four", "検", "<|end|>"]) == [4, 3, 7]


@pytest.mark.parametrize(
    ("tokenizer", "error"),
    [("tiktoken:nothing", UnknownModel), ("/nowhere/tokenizer.json", InvalidInput), ("", InvalidInput)],
)
def test_a_tokenizer_that_is_not_there_is_refused(tokenizer: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="tokenizer"):
        tokens.counter(tokenizer)


def test_without_tiktoken_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'chunkstore\[tiktoken\]'"):
        tokens.counter("tiktoken:cl100k_base")
