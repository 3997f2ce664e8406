"""Model folders for these tests, made once a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.models.fix_folders import save

MadeFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeFolder:
    """Makes a small model with these options, or gives the one that was made before."""
    known: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = save(tmp_path_factory.mktemp("model") / "tiny", **options)
        return known[key]

    return make
