"""Opening a model by its spec, and describing one without opening it."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chunkstore.errors import InvalidInput, UnknownModel
from chunkstore.models import Model, ModelDescription, describe, open_model, spec_of
from chunkstore.models.protocol import Distance


class Lengths:
    """The example of the protocol's docstring."""

    name = "lengths"
    dimensions = 2
    distance: Distance = "l2"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [(len(text), text.count(" ")) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(rows), 2)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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
        assert describe(spec).name == describe(name).name == name


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
        with pytest.raises(UnknownModel, match="known is one of: minilm") as caught:
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
