"""Every command of the guides runs, in the page's order, in one shell, as a reader would type it.

What a reader has is there: a folder of documents, a model in a folder, a service that answers (on another
port than the page's). A block that the page tells to save under a name is saved. `pip install .` installs
into a folder of the test; of what would be fetched, only whether the project has that extra is checked.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chunkstore.models.local import minilm_path
from tests.cli.fix_cli import COMMAND, Cli
from tests.fix_endpoint import Endpoint, failing, good, when

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"
ADDRESS = "http://127.0.0.1:8080/v1"

SAYS = {
    "index-a-folder": ["docs/guide.md  v1", "files that would be added", "A lease is a right"],
    "use-your-own-model": ["sentence-transformers:PATH", "docs/guide.md  v1"],
    "use-an-embedding-service": ["docs/guide.md  v1"],
    "add-a-format": ["films/evening.srt  v1", "Good evening."],
    "find-what-failed": ["poison", "discarded", "retried"],
}
"""What the commands of each guide must print."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED_AS = re.compile(r"`([\w./-]+\.\w+)`[^`\n]*:\n+\Z")

_PIP = """
import re, subprocess, sys, tomllib

for wanted in sys.argv[2:]:
    if wanted == ".":
        options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", "{site}"]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, "."], check=True)
    elif extra := re.fullmatch(r"chunkstore\\[(\\S+)\\]", wanted):
        project = tomllib.load(open("{root}/pyproject.toml", "rb"))["project"]
        assert extra[1] in project["optional-dependencies"]
"""


class Guide:
    """One page: the files that it tells to save, and its commands."""

    def __init__(self, name: str) -> None:
        self.files: dict[str, str] = {}
        self.commands: list[str] = []
        page = (HOWTO / f"{name}.md").read_text(encoding="utf-8")
        for block in _FENCE.finditer(page):
            saved_as = _SAVED_AS.search(page, 0, block.start())
            if block[1] in ("console", "sh"):
                self.commands.append(block[2])
            elif saved_as is not None:
                self.files[saved_as[1]] = block[2]


class Reader:
    """Somebody at a shell, with a store."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli = cli
        self._folder = folder
        site, bin_ = folder / "site", folder / "bin"
        bin_.mkdir()
        self._executable(bin_ / "chunkstore", f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
        (bin_ / "pip.py").write_text(_PIP.replace("{site}", str(site)).replace("{root}", str(ROOT)))
        self._executable(bin_ / "pip", f'#!/bin/sh\nexec {sys.executable} {bin_ / "pip.py"} "$@"\n')
        inherited = {name: value for name, value in cli.environment.items() if not name.startswith("OPENAI_")}
        self.environment = inherited | {
            "PATH": os.pathsep.join([str(bin_), inherited["PATH"]]),
            "PYTHONPATH": os.pathsep.join([inherited["PYTHONPATH"], str(site)]),
        }

    def writes(self, name: str, text: str) -> None:
        """Saves a file in the working folder."""
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def types(self, commands: str) -> str:
        """Runs the commands, each of which must end well; returns what they said."""
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", commands],
            env=self.environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @staticmethod
    def _executable(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def reader(cli: Cli, tmp_path: Path) -> Reader:
    """A reader with documents and a model in a folder."""
    made = Reader(cli, tmp_path)
    made.writes("docs/guide.md", "# Guide\n\nA lease is a right to a range, for a time.\n")
    made.writes("docs/notes.txt", "Ships need harbours and a tide.\n")
    (tmp_path / "my-model").symlink_to(minilm_path())
    return made


def follow(reader: Reader, name: str, replaced: dict[str, str] | None = None) -> None:
    """Does what the guide says; what stands on the page and is another here is replaced."""
    guide = Guide(name)
    assert guide.commands
    for path, text in guide.files.items():
        reader.writes(path, text)
    commands = "\n".join(guide.commands)
    for old, new in (replaced or {}).items():
        commands = commands.replace(old, new)
    said = reader.types(commands)
    for words in SAYS[name]:
        assert words in said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["index-a-folder", "use-your-own-model", "add-a-format"])
def test_the_commands_of_a_guide_run(reader: Reader, name: str) -> None:
    follow(reader, name)


@pytest.mark.timeout(300)
def test_the_commands_of_the_guide_for_a_service_run_against_one(reader: Reader, endpoint: Endpoint) -> None:
    follow(reader, "use-an-embedding-service", {ADDRESS: endpoint.url})
    assert {request.path for request in endpoint.requests} == {"/v1/embeddings"}
    assert {request.headers["authorization"] for request in endpoint.requests} == {"Bearer ..."}
    assert any(text.startswith("passage: ") for text in endpoint.texts)


@pytest.mark.timeout(300)
def test_the_commands_of_the_guide_for_failures_run_after_one(reader: Reader, endpoint: Endpoint) -> None:
    model = "openai:text-embedding-3-small,dimensions=8"
    for environment in (reader.cli.environment, reader.environment):
        environment["OPENAI_BASE_URL"] = endpoint.url
    reader.writes("docs/bad.txt", "What is poison to the model.\n")
    endpoint.always = when("poison", failing(400))
    reader.cli("ingest", "docs", "--collection", "papers", "--model", model)
    reader.cli("consume", "--drain", expect=1)
    (letter,) = reader.cli("dead-letters", "list", "--json").json
    endpoint.always = good
    follow(reader, "find-what-failed", {"4711": str(letter["chunk_id"])})
    assert reader.cli("dead-letters", "list", "--json").json == []
    assert reader.cli("history", "docs/bad.txt", "-c", "papers", "--json").json[0]["active"] is True
