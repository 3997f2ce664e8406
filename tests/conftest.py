"""What every test shares; the fixtures stand in `fix_*.py`, named for what they give."""

import pytest

pytest_plugins = [
    "tests.fix_server",
    "tests.fix_endpoint",
    "tests.store.fix_store",
    "tests.store.rules.fix_interleave",
]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that psycopg supports."""
    return "asyncio"
