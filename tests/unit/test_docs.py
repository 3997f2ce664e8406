"""The documents are true where a machine can tell: links, names of code, commands, constants, columns."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from chunkstore import settings
from chunkstore.cli.app import load
from chunkstore.errors import ChunkstoreError
from chunkstore.events import KNOWN
from chunkstore.statements import load as load_statements
from projections.verify import CHECKS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks of one language."""
    return [text for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def anchors(page: Path) -> set[str]:
    """The fragments that a link into the page may name, as GitHub makes them."""
    text = prose(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} is not there"
        if fragment:
            assert fragment in anchors(found), f"{target} has no such heading"


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)", prose(page))
        waiting += {(page.parent / target).resolve() for target in targets} - reached
    assert set(PAGES) <= reached


def test_the_drawing_of_the_house_names_every_module() -> None:
    (house,) = (text for text in blocks(ROOT / "docs/architecture.md", "mermaid") if "flowchart BT" in text)
    drawn = {name.rstrip("/") for text in re.findall(r'\["(.+)"\]', house) for name in text.split(" · ")}
    modules = {path.stem for path in (ROOT / "chunkstore").glob("[!_]*.py")}
    assert drawn == modules | {"models", "ingest", "chunkstore/cli"}


# --- names --------------------------------------------------------------------------------------


@cache
def sql_functions() -> set[str]:
    """The functions that the migrations create."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "migrations").glob("*.sql")]
    return {name for text in texts for name in re.findall(r"CREATE (?:OR REPLACE )?FUNCTION (\w+)", text)}


def resolves(dotted: str) -> bool:
    """Whether a dotted name leads to a module or to something in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def is_true_name(name: str) -> bool | None:
    """Whether what stands in backticks exists; None where it is not the name of code."""
    if match := re.fullmatch(r"(\w+)\.sql: (\w+)", name):
        return match[2] in load_statements(match[1]).names()
    if match := re.fullmatch(r"([a-z_]+)\(\)", name):
        return match[1] in sql_functions()
    if re.fullmatch(r"(chunkstore|consumers|projections)(\.\w+)+", name):
        return resolves(name)
    if re.fullmatch(
        r"(chunkstore|consumers|projections|migrations|examples|tests|tools|benchmarks)/[\w./*]*", name
    ):
        return any(ROOT.glob(name.rstrip("/")))
    return None


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_name_of_code_in_backticks_exists(page: Path) -> None:
    named = re.findall(r"`([^`\n]+)`", prose(page))
    assert [name for name in named if is_true_name(name) is False] == []


def test_the_protocol_table_names_a_function_in_every_row() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    protocol = text.partition("## The protocol, step by step")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in protocol.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 40
    for step, sql, python, _ in rows:
        for cell in (sql, python):
            named = re.findall(r"`([^`]+)`", cell)
            assert named, f"{step.strip()} names nothing"
            assert all(is_true_name(name) for name in named), f"{step.strip()} names what is not there"


def test_the_table_of_invariants_names_every_check_of_verify_where_it_belongs() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Invariants")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", section, re.MULTILINE)
    listed = {(int(number), name) for number, cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert listed == {(check.invariant, check.name) for check in CHECKS}


# --- commands -----------------------------------------------------------------------------------


def commands() -> list[tuple[str, str]]:
    """Every line of a console block that calls chunkstore, with its page."""
    return [
        (str(page.relative_to(ROOT)), line.partition(" #")[0].strip())
        for page in PAGES
        if page.parent.name != "reference"
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("chunkstore ")
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_line_in_the_documents_is_one_that_the_cli_takes(page: str, line: str) -> None:
    load().parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


# --- the reference ------------------------------------------------------------------------------


def test_the_generated_pages_are_what_the_docstrings_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def listed_constants() -> list[tuple[str, str, str]]:
    """Each constant that the page of limits names: its module's path, its name, its row."""
    page = (ROOT / "docs/reference/limits.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    found: list[tuple[str, str, str]] = []
    for row in rows:
        cell = row.split("|")[-2]
        path = re.search(r"in `([\w/]+\.py)`", cell)
        module = path[1] if path else "chunkstore/settings.py"
        found += [(module, name, row) for name in re.findall(r"`([A-Z_]+)`", cell)]
    return found


@pytest.mark.parametrize(("module", "name", "row"), listed_constants())
def test_the_page_of_limits_gives_a_constant_its_value(module: str, name: str, row: str) -> None:
    value = getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), name)
    written = f"{int(value):,}" if value == int(value) else str(value)
    assert re.search(rf"(?<![\d,.]){re.escape(written)}(?![\d,])", row), f"{name} is {written}"


def test_the_page_of_limits_lists_every_constant_of_the_settings() -> None:
    constants = {name for name in vars(settings) if name.isupper()}
    assert constants <= {name for _, name, _ in listed_constants()}


def test_the_page_of_tables_lists_every_column() -> None:
    text = (ROOT / "docs/reference/schema.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    created = (ROOT / "migrations" / "0001_store.sql").read_text(encoding="utf-8")
    for table, body in re.findall(r"^CREATE TABLE (\w+) \(\n(.*?)^\)", created, re.MULTILINE | re.DOTALL):
        columns = re.findall(r"^    ([a-z]\w*) ", body, re.MULTILINE)
        listed = re.findall(r"^\| `(\w+)` \|", sections[table], re.MULTILINE)
        assert [name for name in listed if name in columns] == columns, f"{table} has other columns"


def test_the_page_of_tables_lists_every_type_of_event() -> None:
    text = (ROOT / "docs/reference/schema.md").read_text(encoding="utf-8")
    assert set(KNOWN) <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_every_error_named_in_the_documents_exists() -> None:
    tree = ast.parse((ROOT / "chunkstore" / "errors.py").read_text(encoding="utf-8"))
    known = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert ChunkstoreError.__name__ in known
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    assert known == set(re.findall(r"^ *- \*\*(\w+)\*\*", page, re.MULTILINE))
