"""`models`: what can be opened here, and what the others need."""

import os
from pathlib import Path

import pytest

from chunkstore.errors import InvalidInput, UnknownModel
from chunkstore.models import describe, open_model
from chunkstore.models.kinds import KINDS, Kind
from tests.cli.fix_cli import Called, Cli


def without(folder: Path, *modules: str) -> Called:
    """The command in a process in which these modules are not installed."""
    hiding = folder / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n")
    cli = Cli(folder)
    cli.environment["PYTHONPATH"] = os.pathsep.join([str(hiding), cli.environment["PYTHONPATH"]])
    return cli.anew


def test_every_kind_is_listed_with_what_it_is_and_what_runs_it(called: Called) -> None:
    shown = called("models").out
    for kind in KINDS:
        assert f"{kind.spec}  {kind.what}" in shown
    listed = called("models", "--json").json
    assert [model["spec"] for model in listed] == [kind.spec for kind in KINDS]
    assert listed[-1]["usable"] is True


def test_what_is_not_installed_says_the_command_that_brings_it(tmp_path: Path) -> None:
    cli = without(tmp_path, "openvino", "httpx2", "torch")
    models = {model["spec"].partition(":")[0]: model for model in cli("models", "--json").json}
    usable = {name for name, model in models.items() if model["usable"]}
    assert usable == {"hashing"}
    assert "openvino" in models["minilm"]["back_ends"][0]["missing"]
    shown = cli("models")
    assert "pip install 'chunkstore[endpoint]'" in shown.out
    assert "pip install 'chunkstore[fast]'" in shown.out
    assert "1 of 4 kinds of models run here" in shown.err


def test_one_thing_that_runs_a_model_is_enough(tmp_path: Path) -> None:
    cli = without(tmp_path, "torch")
    minilm = cli("models", "--json").json[0]
    assert [end["installed"] for end in minilm["back_ends"]] == [True, False]
    assert minilm["usable"] is True


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_that_is_listed_is_one_that_a_spec_can_name(kind: Kind) -> None:
    if kind.spec == kind.name:
        assert describe(kind.name).dimensions == 384
        return
    with pytest.raises((InvalidInput, UnknownModel)) as caught:
        open_model(f"{kind.name}:,")
    assert "no model answers" not in str(caught.value)
