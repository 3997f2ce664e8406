"""What child processes are given of the environment."""

import pytest

from chunkstore import environment

SECRETS = (
    "CHUNKSTORE_DSN",
    "PGPASSWORD",
    "OPENAI_API_KEY",
)
ANYBODYS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_URL", "smtp_password", "GOOGLE_CREDENTIALS")
HARMLESS = ("PATH", "HOME", "MONKEY", "KEYBOARD", "LD_LIBRARY_PATH", "TOKENIZERS_PARALLELISM")


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, *ANYBODYS, *HARMLESS):
        monkeypatch.setenv(name, "x")


def test_a_parser_is_given_nothing_of_this_systems() -> None:
    given = environment.of_parsers()
    assert not set(SECRETS) & set(given)
    assert set(ANYBODYS) | set(HARMLESS) <= set(given)


def test_a_server_is_given_no_secret_of_anybodys() -> None:
    given = environment.of_servers()
    assert not {*SECRETS, *ANYBODYS} & set(given)
    assert set(HARMLESS) <= set(given)
