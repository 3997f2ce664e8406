"""Without a format's library its files say which command brings it, and no other file is hurt."""

import subprocess
import sys
from pathlib import Path

import pytest

from chunkstore.errors import FormatNotInstalled, MissingExtra, UnreadableFile
from chunkstore.ingest.formats.builtin import BUILTIN
from chunkstore.ingest.parsers import parse
from tests.unit.formats.fix_files import FILES

NEEDS = {
    "pdf": ("writer.pdf", "pypdfium2"),
    "docx": ("writer.docx", "mammoth"),
    "pptx": ("impress.pptx", "python-pptx"),
    "xlsx": ("calc.xlsx", "openpyxl"),
    "epub": ("pandoc.epub", "html-to-markdown"),
    "html": ("chromium.html", "html-to-markdown"),
}


@pytest.mark.parametrize("format_name", NEEDS)
def test_a_missing_library_is_named_with_the_command(
    format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pypdfium2", "mammoth", "pptx", "openpyxl", "html_to_markdown"):
        monkeypatch.setitem(sys.modules, module, None)
    name, library = NEEDS[format_name]
    with pytest.raises(FormatNotInstalled, match=f"{library} is not installed: pip install 'chunkstore"):
        parse(FILES / name)


def test_every_format_of_the_extra_is_tried() -> None:
    assert {found.name for found in BUILTIN if found.extra} == set(NEEDS)


def test_a_missing_library_is_one_file_s_failure_and_a_missing_extra() -> None:
    assert issubclass(FormatNotInstalled, UnreadableFile)
    assert issubclass(FormatNotInstalled, MissingExtra)


def test_plain_text_loads_no_library_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Grüße\n", encoding="utf-8")
    heavy = {
        "chardet",
        "html_to_markdown",
        "mammoth",
        "openpyxl",
        "pptx",
        "pypdfium2",
        "lxml",
        "email.parser",
    }
    reading = (
        "import sys; from pathlib import Path; from chunkstore.ingest.parsers import parse; "
        f"parse(Path(sys.argv[1])); print(*{heavy!r}.intersection(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", reading, str(tmp_path / "a.md")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in {"", "email.parser"}
