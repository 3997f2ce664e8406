"""CSV that Calc wrote, and JSON in every shape."""

import json
from pathlib import Path

import pytest

from tests.unit.formats.fix_files import parsed_as, read

HEAD = "| Stadt | Bäume | Gepflanzt |\n| --- | --- | --- |\n| Köln, Süd | 1204 | 2024-03-01 |\n"


def test_commas_and_quotes_of_calc_are_columns_and_characters() -> None:
    document = read("calc.csv")
    assert document.text == HEAD + '| القاهرة | 0.5 |\n| 東京 "都" | 2408 | 1 |\n'
    assert (document.kind, document.parser) == ("markdown", "csv/2")


def test_semicolons_and_an_old_encoding_are_told() -> None:
    assert read("calc-semicolons-windows-1252.csv").text.startswith(HEAD)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.tsv", 'a\tb\n"x\ty\n', ["| a | b |", '| "x | y |']),
        ("a.csv", "a,b\n1,2,3\n\n,\n", ["| a | b |", "| 1 | 2 | 3 |"]),
        ("a.csv", 'a;b\n"two\nlines";2\n', ["| a | b |", "| two lines | 2 |"]),
        ("a.csv", "a|b,c\n1|2\n", ["| a | b,c |", "| 1 | 2 |"]),
        ("a.tsv", "a, b, c\td\ne, f, g\th\n", ["| a, b, c | d |", "| e, f, g | h |"]),
        ("a.csv", "1,5;2,5;3,5\n4,5;5,5;6,5\n", ["| 1,5 | 2,5 | 3,5 |", "| 4,5 | 5,5 | 6,5 |"]),
        ("a.csv", "1,2,3\n4,5,6\n", ["| 1 | 2 | 3 |", "| 4 | 5 | 6 |"]),
        ("a.csv", 'a,"b;c;d"\n1,"2;3;4"\n', ["| a | b;c;d |", "| 1 | 2;3;4 |"]),
        ("a.csv", "sep=;\na,b;c\n1,2;3\n", ["| a,b | c |", "| 1,2 | 3 |"]),
        ("a.csv", "only\none column\n", ["| only |", "| one column |"]),
    ],
)
def test_each_row_is_a_line_of_a_table(name: str, content: str, rows: list[str], tmp_path: Path) -> None:
    lines = parsed_as(tmp_path, name, content.encode()).text.rstrip("\n").split("\n")
    assert [lines[0], *lines[2:]] == rows


def test_json_is_kept_as_it_stands_with_escaped_letters_spelled_out(tmp_path: Path) -> None:
    content = '{\n  "name": "M\\u00fcnchen \\ud83d\\ude00 \\\\u00fc \\u0007 \\u0041",\n  "n": 1.50e3\n}\n'
    document = parsed_as(tmp_path, "a.json", content.encode())
    assert document.text == '{\n  "name": "München 😀 \\\\u00fc \\u0007 \\u0041",\n  "n": 1.50e3\n}\n'
    assert json.loads(document.text) == json.loads(content)
    assert (document.kind, document.language, document.parser) == ("code", "json", "json/1")


def test_json_on_one_long_line_is_laid_out_and_loses_nothing(tmp_path: Path) -> None:
    value = {"rows": [{"名": "値", "n": 12345678901234567890.5, "ok": None}] * 100}
    content = json.dumps(value)
    document = parsed_as(tmp_path, "a.json", content.encode())
    assert json.loads(document.text) == value
    assert '    {\n      "名": "値",\n' in document.text


def test_json_lines_are_a_line_a_value_whatever_the_file_is_called(tmp_path: Path) -> None:
    content = b'{"a": "\\u5024"}\n\n[1]\n'
    for name in ("a.jsonl", "a.ndjson", "a.json"):
        assert parsed_as(tmp_path, name, content).text == '{"a": "値"}\n\n[1]\n'


def test_comments_and_trailing_commas_are_let_pass(tmp_path: Path) -> None:
    content = '// settings\n{\n  "url": "http://x//y", /* why */\n  "list": [1, 2,],\n}\n'
    assert parsed_as(tmp_path, "tsconfig.json", content.encode()).text == content


def test_numbers_are_never_too_long(tmp_path: Path) -> None:
    content = "[" + "9" * 10_000 + "]"
    assert parsed_as(tmp_path, "a.json", content.encode()).text.replace("\n", "").replace(" ", "") == content
