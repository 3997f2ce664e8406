"""Encoders without torch give the vectors of sentence-transformers, and count what they would cut."""

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkstore.errors import InvalidInput, UnknownModel
from chunkstore.models import CountsTokens, EmbedsQueries, Model, ModelDescription, describe, open_model
from chunkstore.models.counting import token_counter
from chunkstore.models.encoder import EncoderModel
from chunkstore.models.folder import read_folder
from chunkstore.models.local import minilm, minilm_path
from chunkstore.models.sentence_transformers import open_with_torch
from tests.unit.models.conftest import MadeFolder
from tests.unit.models.fix_folders import WORDS

TEXTS = [" ".join(random.Random(i).choices(WORDS, k=i)) for i in range(40)]
REAL = [
    "A cat sleeps.",
    "The stock market fell sharply today because of rising interest rates.",
    "Kittens nap.",
    "",
    "\n\n  ÜBER-straße 検索は正確である ☃ <tag> & 3.14\t",
    "def f(x):\n    return x ** 2",
    "word " * 400,
]


def similarities(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "roberta"},
        {"pooling": "cls", "normalise": False},
        {"lowercase": True, "prompts": {"query": "query : ", "document": "passage : "}},
        {"max_tokens": None},
        {"half": True},
        {"shape": {"hidden_act": "gelu_new"}},
        {"shape": {"hidden_act": "relu", "layer_norm_eps": 0.01}},
    ],
    ids=str,
)
def test_the_vectors_are_those_of_sentence_transformers(options: dict[str, Any], made: MadeFolder) -> None:
    folder = made(**options)
    light = EncoderModel(read_folder(folder), "light", precision="f32", threads=2)
    general = open_with_torch(folder, "general", device="cpu")
    vectors = light.embed(TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (40, 32))
    assert similarities(vectors, general.embed(TEXTS)).min() > 0.9999
    assert similarities(vectors[3:4], vectors[9:10]).max() < 0.9999  # no model in which all texts are alike
    for text in TEXTS[5:8]:
        assert float(light.embed_query(text) @ general.embed_query(text)) > 0.9999
    assert isinstance(general, CountsTokens)
    assert light.max_tokens == general.max_tokens
    assert light.count_tokens(TEXTS) == general.count_tokens(TEXTS)


def test_prompts_for_queries_and_chunks_are_put_before_them_and_counted(made: MadeFolder) -> None:
    plain = open_model(f"sentence-transformers:{made()}", device="cpu")
    folder = made(prompts={"query": "query : ", "document": "passage : "})
    prompted = open_model(f"sentence-transformers:{folder}", device="cpu")
    assert isinstance(prompted, EncoderModel)
    assert isinstance(plain, EncoderModel)
    np.testing.assert_allclose(prompted.embed(["a cat"]), plain.embed(["passage : a cat"]), atol=1e-5)
    np.testing.assert_allclose(prompted.embed_query("a cat"), plain.embed(["query : a cat"])[0], atol=1e-5)
    assert prompted.count_tokens(["a cat"]) == plain.count_tokens(["passage : a cat"]) == [6]


# --- MiniLM -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> EncoderModel:
    opened = open_model("minilm", device="cpu")
    assert isinstance(opened, EncoderModel)
    return opened


@pytest.fixture(scope="module")
def general() -> Model:
    return open_with_torch(minilm().path, minilm().name, device="cpu")


def test_minilm_is_what_describe_says_without_loading_it(model: EncoderModel, general: Model) -> None:
    described = ModelDescription("all-MiniLM-L6-v2", 384, "cosine")
    assert describe(model) == describe(general) == describe("minilm") == described
    assert isinstance(model, CountsTokens)
    assert isinstance(model, EmbedsQueries)


def test_either_back_end_of_minilm_gives_the_same_vectors_under_the_same_name(general: Model) -> None:
    exact = EncoderModel(read_folder(minilm_path()), minilm().name, precision="f32")
    assert exact.name == general.name
    assert similarities(exact.embed(REAL), general.embed(REAL)).min() > 0.99999


def test_minilm_finds_meaning_and_keeps_the_order_of_the_texts(model: EncoderModel) -> None:
    vectors = model.embed(REAL[:3] * 20)
    assert vectors.shape == (60, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-3)
    np.testing.assert_allclose(vectors[:3], vectors[57:], atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1] + 0.3
    assert model.embed([]).shape == (0, 384)


def test_a_tail_beyond_the_models_limit_changes_nothing_and_one_within_it_does(model: EncoderModel) -> None:
    """MiniLM's own tokenizer.json would cut at 128 tokens, where the model reads 256."""
    words = "harbour " * 300
    texts = [
        "word " * 253 + words,
        "word " * 254 + words,
        "word " * 200 + words,
        "word " * 200,
        "word " * 254,
    ]
    vectors = model.embed(texts)
    assert model.max_tokens == 256
    assert model.count_tokens(["", "word " * 254, "word " * 255]) == [2, 256, 257]
    assert vectors[1] @ vectors[4] > 0.9999
    assert vectors[0] @ vectors[4] < 0.9999
    assert vectors[2] @ vectors[3] < 0.99


def test_counts_do_not_depend_on_what_was_read_or_counted_before(model: EncoderModel) -> None:
    texts = [*REAL, *TEXTS, "word " * 254, "word " * 255]
    counter = token_counter(model)
    assert counter is not None
    expected = counter.count_tokens(texts)
    assert model.count_tokens(texts) == expected
    for first in range(0, len(texts), 5):
        model.embed(texts[first : first + 3])
        assert model.count_tokens(texts[first : first + 5]) == expected[first : first + 5]
        assert model.count_tokens(texts[first : first + 5] * 2) == expected[first : first + 5] * 2


@pytest.mark.slow
def test_calls_from_several_threads_do_not_mix(model: EncoderModel) -> None:
    alone = [model.embed([text] * 3)[0] for text in REAL]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: model.embed([text] * 3 + REAL)[0], REAL * 4))
    for vector, expected in zip(together, alone * 4, strict=True):
        assert vector @ expected > 0.9999  # in bfloat16 a vector depends a little on its neighbours


def test_neither_opening_nor_embedding_imports_torch() -> None:
    code = (
        "import sys; from chunkstore.models import open_model; m = open_model('minilm', device='cpu');"
        "m.embed(['a']); m.embed_query('b'); m.count_tokens(['c']);"
        "print({'torch', 'transformers', 'sentence_transformers', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


def test_nobody_is_told_over_the_network_that_a_model_was_opened(tmp_path: Path) -> None:
    """OpenVINO's conversion tools report that they are imported, and leave a number at home."""
    code = (
        "import sys; from chunkstore.models import open_model;"
        "open_model('minilm', device='cpu').embed(['a']);"
        "print([name for name in sys.modules if 'telemetry' in name or 'ovc' in name])"
    )
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=home
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


# --- folders that are none ----------------------------------------------------------------------


@pytest.fixture
def copied(made: MadeFolder, tmp_path: Path) -> Path:
    """A copy of a model, to be broken."""
    folder = tmp_path / "broken"
    for part in made().rglob("*"):
        if part.is_file():
            copy = folder / part.relative_to(made())
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(part.read_bytes())
    return folder


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_size", 64), ("num_hidden_layers", 3), ("vocab_size", 301)]
)
def test_weights_that_do_not_fit_the_configuration_are_refused(field: str, value: int, copied: Path) -> None:
    edit(copied / "config.json", **{field: value})
    with pytest.raises(UnknownModel, match=r"model\.safetensors: "):
        EncoderModel(read_folder(copied), "broken")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_weights_cut_short_are_refused(keep: int, copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(UnknownModel, match=r"model\.safetensors: (not a file|.* bytes long)"):
        open_model(f"sentence-transformers:{copied}")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_refused(content: str, copied: Path) -> None:
    (copied / "tokenizer.json").write_text(content)
    with pytest.raises(UnknownModel, match=r"tokenizer\.json: not a tokenizer"):
        open_model(f"sentence-transformers:{copied}", device="cpu")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", "{"),
        ("modules.json", "{}"),
        ("modules.json", '[{"path": ""}]'),
        ("config.json", "no json"),
        ("config.json", "[]"),
        ("1_Pooling/config.json", "\x00"),
        ("config_sentence_transformers.json", '{"prompts": 5}'),
        ("sentence_bert_config.json", "7"),
    ],
)
def test_a_broken_configuration_is_named(file: str, content: str, copied: Path) -> None:
    (copied / file).write_text(content)
    for use in (open_model, describe):
        with pytest.raises(UnknownModel, match=f"{file}: cannot be read"):
            use(f"sentence-transformers:{copied}")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dense": True}, "modules are Transformer, Pooling, Dense"),
        ({"pooling": "max"}, "pooling is max"),
        ({"shape": {"hidden_act": "silu"}}, "activation is 'silu'"),
    ],
)
def test_another_kind_of_model_says_why_it_needs_the_general_back_end(
    options: dict[str, Any], reason: str, made: MadeFolder
) -> None:
    read = read_folder(made(**options))
    assert read.encoder is None
    assert reason in read.reason
    with pytest.raises(InvalidInput, match=reason):
        EncoderModel(read, "other")
    general = open_model(f"sentence-transformers:{made(**options)}", device="cpu")
    assert describe(f"sentence-transformers:{made(**options)}") == describe(general)
    np.testing.assert_allclose(np.linalg.norm(general.embed(TEXTS), axis=1), 1, rtol=1e-5)
