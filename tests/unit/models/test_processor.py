"""What a process may use of its machine, told without a library that runs models."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from chunkstore.models import processor

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("quota", "most"),
    [("50000 100000", 1), ("100000 100000", 1), ("100001 100000", 2), ("9999900000 100000", ALLOWED),
     ("max 100000", ALLOWED), ("", ALLOWED), ("nonsense", ALLOWED)],
)  # fmt: skip
def test_a_containers_quota_cuts_the_processors(
    quota: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(processor, "_QUOTA", tmp_path / "cpu.max")
    assert processor.cpus() == min(most, ALLOWED)


def test_without_a_quota_all_that_the_process_may_use_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "_QUOTA", tmp_path / "nowhere")
    assert processor.cpus() == ALLOWED


@pytest.mark.parametrize(
    ("system", "machine", "driver", "torch", "expected"),
    [
        ("linux", "x86_64", False, True, False),
        ("linux", "x86_64", True, True, True),
        ("linux", "x86_64", True, False, False),
        ("darwin", "arm64", False, True, True),
        ("darwin", "x86_64", False, True, False),
    ],
)
def test_an_accelerator_is_looked_for_where_torch_could_use_one(
    system: str,
    machine: str,
    driver: bool,
    torch: bool,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if driver:
        (tmp_path / "driver").touch()
    monkeypatch.setattr(processor, "_ACCELERATORS", (tmp_path / "driver",))
    monkeypatch.setattr(processor.sys, "platform", system)
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    installed = {"torch": find_spec("json")} if torch else {}
    monkeypatch.setattr(processor, "find_spec", installed.get)
    assert processor.may_have_accelerator() is expected
