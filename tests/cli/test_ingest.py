"""`ingest`: what it counts, what it asks, and what it does with what it cannot read."""

from pathlib import Path

import pytest

from tests.cli.fix_cli import MODEL, Cli


def test_the_collection_is_created_and_that_is_said(cli: Cli, docs: Path) -> None:
    first = cli("ingest", docs, "--model", MODEL, "--collection", "notes")
    assert "creating the collection 'notes' with the model 'hashing-64'" in first.err
    assert "creating" not in cli("ingest", docs, "--collection", "notes").err


def test_files_and_chunks_are_counted(cli: Cli, docs: Path) -> None:
    first = cli("ingest", docs, "--model", MODEL, "--json").json
    assert (first["added"], first["chunks_added"], first["embedded"], first["waiting"]) == (3, 3, 0, 3)
    (docs / "tea.md").write_text("# Tea\n\nTea is picked in autumn.\n")
    second = cli("ingest", docs, "--json").json
    assert (second["added"], second["updated"], second["unchanged"]) == (0, 1, 2)
    assert (second["chunks_added"], second["chunks_reused"]) == (1, 2)


def test_what_waits_is_said_with_the_command_that_embeds_it(cli: Cli, docs: Path) -> None:
    ended = cli("ingest", docs, "--model", MODEL)
    assert "files added" in ended.out
    assert "3 chunks wait to be embedded: run `chunkstore up`" in ended.err


def test_waiting_embeds_and_activates(cli: Cli, docs: Path) -> None:
    report = cli("ingest", docs, "--model", MODEL, "--wait", "--json").json
    assert (report["embedded"], report["waiting"]) == (3, 0)
    assert cli("search", "spring tea", "-k", "1", "--json").json["hits"][0]["key"] == "docs/tea.md"
    (docs / "new.txt").write_text("Only this is new.\n")
    assert cli("ingest", docs, "--wait", "--json").json["embedded"] == 1


def test_what_cannot_be_read_is_listed_and_the_rest_goes_in(cli: Cli, docs: Path) -> None:
    (docs / "broken.md").write_bytes(b"\x00\x01\x02\xff" * 50)
    ended = cli("ingest", docs, "nowhere", "--model", MODEL, "--json", expect=1)
    assert ended.json["added"] == 3
    assert {Path(failed["path"]).name for failed in ended.json["failed"]} == {"broken.md", "nowhere"}
    shown = cli("ingest", docs, "nowhere", expect=1)
    assert "broken.md: " in shown.err
    assert "nowhere: no such file or folder" in shown.err


def test_a_glob_is_understood(cli: Cli, docs: Path) -> None:
    assert cli("ingest", "docs/*.txt", "--model", MODEL, "--json").json["added"] == 2


# --- prune --------------------------------------------------------------------------------------


def test_prune_deletes_what_has_gone(filled: Cli, docs: Path) -> None:
    (docs / "tea.md").unlink()
    ended = filled("ingest", docs, "--prune", "--yes", "--json")
    assert (ended.json["deleted"], ended.json["unchanged"]) == (1, 2)
    assert "1 file of 'default' gone from the folders given" in ended.err
    assert "docs/tea.md" in ended.err


def test_prune_without_anybody_to_ask_is_refused_before_anything_is_done(filled: Cli, docs: Path) -> None:
    (docs / "tea.md").unlink()
    (docs / "new.txt").write_text("New.\n")
    assert "give --yes" in filled("ingest", docs, "--prune", expect=2).err
    assert filled("ingest", docs, "--json").json["added"] == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 2), ("n\n", 0, 3), ("\x03", 130, 3)])
def test_prune_asks_at_a_terminal(filled: Cli, docs: Path, answer: str, code: int, left: int) -> None:
    (docs / "tea.md").unlink()
    ended = filled.at_terminal("ingest", docs, "--prune", prompt="Delete it? [y/N]", answer=answer)
    assert ended.code == code, ended.out
    assert "Traceback" not in ended.out
    assert filled("status", "--json").json["collections"][0]["files"] == left
