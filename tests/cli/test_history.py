"""`history` and `chunks`: what one file was, and what is in a version of it."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.fix_cli import COMMAND, Cli

KEY = "docs/tea.md"


@pytest.fixture
def edited(filled: Cli, docs: Path) -> Cli:
    """The store after an edit that nothing has embedded yet."""
    (docs / "tea.md").write_text("# Tea\n\nTea is picked in autumn.\n")
    filled("ingest", docs)
    return filled


def test_a_history_lists_the_versions_and_what_each_is_now(edited: Cli) -> None:
    versions = edited("history", KEY, "--json").json
    assert [(v["number"], v["active"], v["target"]) for v in versions] == [(1, True, False), (2, False, True)]
    shown = edited("history", KEY)
    first, second = (line.rstrip() for line in shown.out.splitlines()[-2:])
    assert first.split()[0] == "1"
    assert first.endswith("active")
    assert second.endswith("target")
    assert "version 2 waits for its embeddings" in shown.err


def test_a_tombstone_and_a_pin_are_said(edited: Cli) -> None:
    edited("pin", KEY, "1")
    edited("delete", KEY)
    edited("project", "--drain")
    lines = [line.rstrip() for line in edited("history", KEY).out.splitlines()]
    assert lines[2].endswith("pinned")
    assert lines[4].endswith("deleted, active, target")


def test_the_chunks_of_a_version_are_shown_in_order_with_their_places(edited: Cli, docs: Path) -> None:
    (chunk,) = edited("chunks", KEY, "--json").json
    text = (docs / "tea.md").read_text()
    assert text[chunk["place"]["start"] : chunk["place"]["end"]] == chunk["content"]
    assert "autumn" in chunk["content"]
    shown = edited("chunks", KEY)
    assert shown.out.startswith("chunk 0  line 1, characters 0–")
    assert f"id {chunk['chunk_id']}" in shown.out
    assert "the latest version of docs/tea.md has 1 chunk" in shown.err


def test_an_earlier_version_keeps_its_chunks(edited: Cli) -> None:
    assert "spring" in edited("chunks", KEY, "--version", "1").out
    assert edited("chunks", KEY, "--version", "1", "--json").json[0]["ordinal"] == 0


def test_a_file_without_chunks_is_an_empty_array(edited: Cli) -> None:
    edited("delete", KEY)
    assert edited("chunks", KEY, "--json").json == []
    assert "has 0 chunks" in edited("chunks", KEY).err


@pytest.fixture
def long(cli: Cli) -> str:
    """The key of a file of some hundred chunks."""
    (cli.folder / "long").mkdir()
    (cli.folder / "long" / "a.txt").write_text(
        "\n\n".join(f"Paragraph {number}. " + "word " * 200 for number in range(200))
    )
    cli("ingest", "long", "--model", "hashing:8")
    return "long/a.txt"


def test_many_chunks_are_one_array(cli: Cli, long: str) -> None:
    chunks = cli("chunks", long, "--json").json
    assert len(chunks) > 100
    assert [chunk["ordinal"] for chunk in chunks] == list(range(len(chunks)))
    short, full = cli("chunks", long).out, cli("chunks", long, "--full").out
    assert len(full) > 2 * len(short)


def test_a_reader_that_has_had_enough_is_no_error(cli: Cli, long: str) -> None:
    for options in ((), ("--json",)):
        with subprocess.Popen(
            [*COMMAND, "chunks", long, "--full", *options],
            env=cli.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as reading:
            assert reading.stdout is not None
            assert reading.stderr is not None
            assert reading.stdout.readline()
            reading.stdout.close()
            assert reading.stderr.read() == ""
            assert reading.wait(60) == 0


@pytest.mark.parametrize(
    "arguments", [("history", "no"), ("chunks", "no"), ("chunks", KEY, "--version", "9"), ("history", "")]
)
def test_what_is_not_there_is_bad_input(filled: Cli, arguments: tuple[str, ...]) -> None:
    ended = filled(*arguments, expect=2)
    assert ended.err.startswith("chunkstore: ")
    assert ended.out == ""
    assert filled(*arguments, "--json", expect=2).out == ""
