"""`delete`, `rollback`, `pin`, `unpin`, `erase`."""

from pathlib import Path

import pytest

from tests.cli.fix_cli import Cli

KEY = "docs/tea.md"


def test_a_deleted_file_is_lost_to_searches(filled: Cli) -> None:
    assert filled("delete", KEY, "--json").json["tombstone"] is True
    assert "is deleted already" not in filled("delete", KEY).err
    filled("project", "--drain")
    hits = filled("search", "spring tea", "--json").json["hits"]
    assert KEY not in {hit["key"] for hit in hits}


def test_a_rollback_brings_an_earlier_version_back(filled: Cli, docs: Path) -> None:
    (docs / "tea.md").write_text("# Tea\n\nTea is picked in autumn.\n")
    filled("ingest", docs, "--wait")
    assert filled("rollback", KEY, "1", "--json").json["number"] == 1
    filled("project", "--drain")
    hit = filled("search", "tea is picked", "-k", "1", "--json").json["hits"][0]
    assert (hit["version"], "spring" in hit["content"]) == (1, True)


def test_a_pin_is_set_and_taken_back(filled: Cli) -> None:
    assert filled("pin", KEY, "1", "--json").json["pinned"] is True
    assert filled("unpin", KEY, "1", "--json").json["pinned"] is False
    assert "version 1 of docs/tea.md is pinned" in filled("pin", KEY, "1").err


@pytest.mark.parametrize(
    "arguments", [("delete", "no"), ("rollback", "no", "1"), ("pin", KEY, "7"), ("erase", "no", "--yes")]
)
def test_what_is_not_there_is_bad_input(filled: Cli, arguments: tuple[str, ...]) -> None:
    ended = filled(*arguments, expect=2)
    assert ended.err.startswith("chunkstore: ")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_an_erased_file_is_gone(filled: Cli) -> None:
    erased = filled("erase", KEY, "--yes", "--json").json
    assert erased == {"collection": "default", "key": KEY, "versions": 1}
    filled("pin", KEY, "1", expect=2)
    assert filled("status", "--json").json["collections"][0]["files"] == 2


def test_after_an_erasure_the_tables_are_written_anew_and_the_rest_is_found(filled: Cli) -> None:
    filled("erase", KEY, "--yes")
    assert "tables are written anew; the write-ahead log is not cleared" in filled("scrub").err
    assert {"chunks", "embeddings", "files", "search_1_1"} <= {*filled("scrub", "--json").json["tables"]}
    filled("verify")
    assert filled("search", "tea", "--json").json


def test_an_erasure_that_nobody_confirms_is_refused(filled: Cli) -> None:
    assert "give --yes" in filled("erase", KEY, expect=2).err
    filled("pin", KEY, "1")


def test_an_erasure_is_asked_for_with_its_number_of_versions(filled: Cli) -> None:
    ended = filled.at_terminal("erase", KEY, prompt="[y/N]", answer="n\n")
    assert "Erase docs/tea.md with 1 version from default" in ended.out
    assert ended.code == 1
    filled("pin", KEY, "1")
