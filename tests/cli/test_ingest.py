"""`ingest`: what it counts, what it asks, and what it does with what it cannot read."""

import os
from pathlib import Path

import psycopg
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


def test_what_is_left_out_of_a_folder_is_counted_by_the_reason(cli: Cli, docs: Path) -> None:
    (docs / ".hidden").touch()
    (docs / "logo").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (docs / "Letter.DOC").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    (docs / "letter.rtf").write_bytes(b"{\\rtf1 Dear reader}")
    (docs / "out.md").symlink_to("/etc/hostname")
    ended = cli("ingest", docs, "--model", MODEL, "--json")
    assert ended.json["left_out"] == {
        "hidden": 1,
        "not text": 1,
        "a document of a format that is not read": 2,
        "a link out of the folder": 1,
    }
    shown = cli("ingest", docs)
    assert "left out: not text" in shown.out
    assert shown.err.count("\n") == 1, "they are no problems"


def test_files_that_fail_alike_are_listed_up_to_a_few(cli: Cli, docs: Path) -> None:
    for i in range(8):
        (docs / f"broken{i}.md").write_bytes(b"\0" * 50)
    (docs / "latin.md").write_bytes(b"\x00\x01")
    ended = cli("ingest", docs, "--model", MODEL, expect=1)
    assert ended.err.count("broken") == 5
    assert "… and 4 more: " in ended.err or "… and 3 more: " in ended.err
    assert len(cli("ingest", docs, "--json", expect=1).json["failed"]) == 9


# --- what has not changed -----------------------------------------------------------------------


def test_a_dry_run_says_what_would_happen_and_writes_nothing(filled: Cli, docs: Path) -> None:
    (docs / "tea.md").write_text("# Tea\n\nTea is picked in autumn.\n")
    (docs / "bread.txt").unlink()
    (docs / "new.md").write_text("New.\n")
    before = filled("status", "--json").json
    ended = filled("ingest", docs, "--dry-run", "--prune", "--json")
    report = ended.json
    assert (report["added"], report["updated"], report["unchanged"], report["deleted"]) == (1, 1, 1, 1)
    assert report["dry_run"] is True
    assert filled("status", "--json").json == before
    shown = filled("ingest", docs, "--dry-run", "--prune")
    assert "files that would be deleted" in shown.out
    assert "nothing was written: this was a dry run" in shown.err


def test_a_dry_run_creates_no_collection(cli: Cli, docs: Path) -> None:
    assert cli("ingest", docs, "--dry-run", "--json").json["added"] == 3
    assert cli("collection", "list", "--json").json == []


def test_what_tells_of_a_change_is_chosen(filled: Cli, docs: Path) -> None:
    path = docs / "bread.txt"
    os.utime(path, (1_600_000_000, 1_600_000_000))
    filled("ingest", docs)
    path.write_text(path.read_text().upper())
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert filled("ingest", docs, "--json").json["updated"] == 0
    assert filled("ingest", docs, "--check", "size,hash", "--json").json["updated"] == 1
    assert "size, mtime, hash" in filled("ingest", docs, "--check", "sizes", expect=2).err


def test_what_a_file_may_cost_is_chosen(filled: Cli, docs: Path) -> None:
    assert "seconds" in filled("ingest", docs, "--file-seconds", "0", expect=2).err
    assert "memory" in filled("ingest", docs, "--file-memory", "1", expect=2).err
    ended = filled("ingest", docs, "--file-seconds", "9", "--file-memory", "128", "--check", "none", "--json")
    assert ended.json["unchanged"] == 3


def outdate(cli: Cli) -> None:
    """Lets the files look as if an earlier chunker had cut them."""
    schema = cli.environment["CHUNKSTORE_SCHEMA"]
    with psycopg.connect(cli.environment["CHUNKSTORE_DSN"]) as connection:
        connection.execute(f"UPDATE {schema}.sources SET chunker = 'chunker 0'".encode())


SAID = "chunker changed: 3 files would be chunked anew"


def test_what_an_earlier_chunker_made_is_said_and_left_with_an_exit_code_of_its_own(
    filled: Cli, docs: Path
) -> None:
    outdate(filled)
    (docs / "new.md").write_text("New.\n")
    ended = filled("ingest", docs, "--json", expect=4)
    assert (ended.json["added"], ended.json["outdated"]) == (1, 3)
    assert SAID in ended.err
    assert "give --rechunk, or --no-rechunk" in ended.err
    assert filled("ingest", docs, "--yes", "--json", expect=4).json["outdated"] == 3
    quiet = filled("ingest", docs, "--no-rechunk", "--json")
    assert (quiet.json["outdated"], SAID in quiet.err) == (3, False)
    assert "files of an earlier chunker or parser" in filled("ingest", docs, "--no-rechunk").out
    dry = filled("ingest", docs, "--dry-run", "--json")
    assert (dry.json["outdated"], SAID in dry.err) == (3, True)
    dry = filled("ingest", docs, "--dry-run", "--rechunk", "--json")
    assert (dry.json["outdated"], dry.json["unchanged"], SAID in dry.err) == (0, 4, True)
    assert filled("ingest", docs, "--rechunk", "--json").json["unchanged"] == 4
    assert filled("ingest", docs, "--json").json["outdated"] == 0


@pytest.mark.parametrize(("answer", "outdated"), [("y\n", 0), ("n\n", 3)])
def test_chunking_anew_is_asked_at_a_terminal(filled: Cli, docs: Path, answer: str, outdated: int) -> None:
    outdate(filled)
    ended = filled.at_terminal("ingest", docs, prompt="Chunk them anew? [y/N]", answer=answer)
    assert SAID in ended.out
    assert ended.code == (4 if outdated else 0), ended.out
    assert filled("ingest", docs, "--no-rechunk", "--json").json["outdated"] == outdated


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
