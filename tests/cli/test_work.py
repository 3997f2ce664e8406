"""`consume`, `project`, `gc`, `search`, `status`, `verify`, `rebuild`."""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.cli.fix_cli import MODEL, Cli


def test_drained_consumers_and_projectors_make_files_searchable(cli: Cli, docs: Path) -> None:
    cli("ingest", docs, "--model", MODEL)
    assert cli("search", "tea", "--json").json["hits"] == []
    assert cli("consume", "--drain", "--json").json["hashing-64"]["embedded"] == 3
    assert cli("project", "--drain", "--json").json["hashing-64"]["activated"] == 3
    hits = cli("search", "tea", "--json").json["hits"]
    assert {hit["key"] for hit in hits} == {"docs/tea.md", "docs/ships.txt", "docs/bread.txt"}


def test_a_hit_cites_exactly_what_was_read(filled: Cli, docs: Path) -> None:
    hit = filled("search", "harbours", "-k", "1", "--json").json["hits"][0]
    assert hit["key"] == "docs/ships.txt"
    assert (docs / "ships.txt").read_text()[hit["place"]["start"] : hit["place"]["end"]] == hit["content"]
    shown = filled("search", "harbours", "-k", "1").out
    assert "docs/ships.txt  v1, line 1, characters 0–" in shown
    assert "Ships need harbours" in shown


def test_what_a_terminal_would_obey_is_not_printed(cli: Cli, docs: Path) -> None:
    (docs / "sly.txt").write_text("sly \x1b[2J\x1b]0;title\x07 [bold]text[/bold] :smile:\n")
    cli("ingest", docs, "--model", MODEL, "--wait")
    shown = cli("search", "sly", "-k", "1").out
    assert "\x1b" not in shown
    assert "[bold]text[/bold] :smile:" in shown


def test_status_shows_what_waits(cli: Cli, docs: Path) -> None:
    cli("ingest", docs, "--model", MODEL)
    waiting = cli("status", "--json").json
    assert waiting["collections"][0]["models"][0]["waiting"] == 3
    assert {group["kind"]: group["lag"] for group in waiting["groups"]}["shared"] == 3
    cli("consume", "--drain")
    cli("project", "--drain")
    done = cli("status", "--json").json
    assert done["collections"][0]["models"][0]["active"] == 3
    assert {group["lag"] for group in done["groups"]} == {0}
    assert "hashing-64 (serving)" in cli("status").out


def test_gc_shows_first_and_then_removes(cli: Cli, docs: Path) -> None:
    cli("collection", "create", "default", "--model", MODEL, "--keep-last", "1")
    cli("ingest", docs, "--wait")
    (docs / "tea.md").write_text("# Tea\n\nTea is picked in autumn.\n")
    cli("ingest", docs, "--wait")
    would = cli("gc", "--dry-run", "--json").json
    assert would[0]["reason"] == "older than the last 1 versions"
    assert [(row["key"], row["version"]) for row in would] == [("docs/tea.md", 1)]
    assert "docs/tea.md" in cli("gc", "--dry-run").out
    done = cli("gc", "--json").json
    assert (done["collected"], done["swept"]) == (1, 1)
    assert cli("gc", "--dry-run", "--json").json == []


def test_verify_finds_a_sound_store_sound(filled: Cli) -> None:
    report = filled("verify", "--json").json
    assert report["ok"] is True
    assert all(check["ok"] for check in report["checks"])
    assert "every invariant holds" in filled("verify").err


def test_verify_prints_the_rows_that_break_an_invariant(filled: Cli, dsn: str, schema: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(schema)))
        table = conn.execute("SELECT active_table FROM collection_models").fetchone()
        assert table is not None
        conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table[0])))
    report = filled("verify", "--json", expect=1).json
    broken = {check["name"]: check for check in report["checks"] if not check["ok"]}
    assert broken["active_manifests"]["count"] == 3
    assert len(broken["active_manifests"]["rows"]) == 3
    shown = filled("verify", expect=1)
    assert "invariant 6 is broken" in shown.out
    filled("rebuild", "default")
    filled("verify")


def test_a_rebuild_leaves_the_same_hits(filled: Cli) -> None:
    before = filled("search", "tea", "--json").json
    assert filled("rebuild", "default", "--json").json["vectors_copied"] == 3
    assert "active chunks   3" in filled("rebuild", "default").out
    assert filled("search", "tea", "--json").json == before


def test_up_drained_embeds_activates_and_collects_once(cli: Cli, docs: Path) -> None:
    cli("collection", "create", "default", "--model", MODEL, "--keep-last", "1")
    cli("ingest", docs)
    (docs / "tea.md").write_text("# Tea\n\nTea is picked in autumn.\n")
    cli("ingest", docs)
    done = cli("up", "--drain", "--json")
    assert done.json == {"embedded": 3, "given_up": 0, "switched": 3, "collected": 1, "removed": 1}
    assert {hit["key"] for hit in cli("search", "tea", "--json").json["hits"]} == {
        "docs/tea.md",
        "docs/ships.txt",
        "docs/bread.txt",
    }


@pytest.mark.parametrize("command", ["consume", "up"])
def test_a_model_that_cannot_be_opened_here_is_said_and_keeps_no_other_from_its_work(
    cli: Cli, docs: Path, command: str
) -> None:
    cli("ingest", docs, "--model", MODEL)
    prefixed = "openai:tiny,dimensions=8,url=http://127.0.0.1:9,query_prefix=query: "
    cli("collection", "create", "elsewhere", "--model", prefixed)
    cli("ingest", docs, "-c", "elsewhere")
    done = cli(command, "--drain", "--json", expect=1)
    assert "cannot be opened by its name alone: give it with --model" in done.err
    assert (done.json if command == "up" else done.json["hashing-64"])["embedded"] == 3
