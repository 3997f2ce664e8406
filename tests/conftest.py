"""What every test shares; the fixtures stand in `fix_*.py`, named for what they give."""

import os

import hypothesis
import pytest

# Tests start hundreds of processes, which would each compile the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

hypothesis.settings.register_profile("short", max_examples=25)
hypothesis.settings.register_profile("long")
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

pytest_plugins = [
    "tests.fix_server",
    "tests.fix_endpoint",
    "tests.store.fix_store",
    "tests.store.fix_roles",
    "tests.store.rules.fix_interleave",
]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that psycopg supports."""
    return "asyncio"
