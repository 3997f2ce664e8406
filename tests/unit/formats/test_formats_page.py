"""The pages about formats say what the code does."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from chunkstore.ingest.formats.archive import MAX_MEMBERS, MAX_RATIO, MAX_UNPACKED_BYTES
from chunkstore.ingest.formats.builtin import BUILTIN
from chunkstore.ingest.formats.format import Format
from chunkstore.ingest.formats.xlsx import MAX_CELLS
from chunkstore.ingest.parsers import MAX_FILE_BYTES

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "formats.md").read_text(encoding="utf-8")
HOWTO = (DOCS / "howto" / "add-a-format.md").read_text(encoding="utf-8")


def of_each_name() -> dict[str, list[Format]]:
    formats: defaultdict[str, list[Format]] = defaultdict(list)
    for found in BUILTIN:
        formats[found.name].append(found)
    return formats


@pytest.mark.parametrize(("name", "formats"), of_each_name().items())
def test_the_table_names_every_format_its_library_and_licence(name: str, formats: list[Format]) -> None:
    first = formats[0]
    row = next(line for line in PAGE.split("\n") if line.startswith(f"| {first.title} |"))
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert [cells[3], cells[4], cells[5].strip("| ")] == [first.library, first.licence, first.extra]
    if name != "code":
        assert re.findall(r"`([^`]+)`", cells[1]) == list(first.names)
    else:
        languages = len(formats)
        assert f"({languages} languages)" in cells[1]
        assert {end for found in formats for end in found.names} >= set(re.findall(r"`([^`]+)`", cells[1]))


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    for words in (
        f"{MAX_FILE_BYTES // 2**20} MiB",
        f"{MAX_MEMBERS:,} members",
        f"{MAX_UNPACKED_BYTES // 2**20} MiB or {MAX_RATIO} times",
        f"{MAX_CELLS:,} cells",
    ):
        assert words in PAGE


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", HOWTO, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_a_format_of_an_installed_package_is_read_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "subtitles.py").write_text(block("python"), encoding="utf-8")
    installed = tmp_path / "subtitles-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: subtitles\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        block("toml")
        .partition("[project.entry-points.")[2]
        .replace('"chunkstore', "[chunkstore")
        .replace('"', "")
    )
    film = tmp_path / "film.srt"
    film.write_text("1\n00:00:01,000 --> 00:00:02,500\nGood evening.\n")
    reading = (
        "import sys; from pathlib import Path; from chunkstore.ingest.parsers import is_registered, parse; "
        "path = Path(sys.argv[1]); print(is_registered(path), parse(path).parser, parse(path).text)"
    )
    for search_path, told in ((str(tmp_path), "True subtitles/1 Good evening."), ("", "False text/1 1")):
        done = subprocess.run(
            [sys.executable, "-c", reading, str(film)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(DOCS.parent), search_path])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(told)
