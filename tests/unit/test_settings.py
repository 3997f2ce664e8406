"""Which setting wins."""

from pathlib import Path

import platformdirs
import pytest

from chunkstore.errors import InvalidInput
from chunkstore.settings import read


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHUNKSTORE_DSN", "CHUNKSTORE_SCHEMA", "CHUNKSTORE_DATA"):
        monkeypatch.delenv(name, raising=False)


def test_without_settings_the_store_is_embedded_in_the_users_data_folder() -> None:
    settings = read()
    assert settings.dsn is None
    assert settings.schema == "chunkstore"
    assert settings.data == platformdirs.user_data_path("chunkstore", appauthor=False)


def test_the_environment_beats_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", "host=environment")
    monkeypatch.setenv("CHUNKSTORE_SCHEMA", "environment")
    monkeypatch.setenv("CHUNKSTORE_DATA", str(tmp_path))
    settings = read()
    assert settings.dsn is not None
    assert (settings.dsn.server, settings.schema, settings.data) == (
        "environment:5432",
        "environment",
        tmp_path,
    )


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", "host=environment")
    monkeypatch.setenv("CHUNKSTORE_SCHEMA", "environment")
    settings = read("host=argument", schema="argument")
    assert settings.dsn is not None
    assert (settings.dsn.server, settings.schema) == ("argument:5432", "argument")


def test_a_data_folder_given_as_an_argument_beats_the_environments_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", "host=environment")
    settings = read(data=tmp_path)
    assert settings.dsn is None
    assert settings.data == tmp_path


def test_a_server_and_a_data_folder_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not both"):
        read("host=argument", data=tmp_path)


def test_an_empty_data_folder_is_not_taken_for_the_current_one() -> None:
    with pytest.raises(InvalidInput, match="data: ''"):
        read(data="")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHUNKSTORE_DSN", "")
    monkeypatch.setenv("CHUNKSTORE_SCHEMA", "")
    settings = read()
    assert settings.dsn is None
    assert settings.schema == "chunkstore"
