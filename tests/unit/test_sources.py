"""Files found from paths: which are meant, their keys, and which keys have lost their file."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chunkstore.errors import InvalidInput
from chunkstore.ingest.globs import matcher
from chunkstore.ingest.sources import Found, Root, _prefix, find_sources


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """docs/: a.md, guide/install.md, guide/deep/x.txt."""
    folder = tmp_path / "docs"
    write(folder, "a.md", "guide/install.md", "guide/deep/x.txt")
    return folder


def write(folder: Path, *names: str, content: bytes = b"text") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def keys(*paths: str | Path) -> list[str]:
    found = find_sources(paths)
    assert not found.problems
    return [source.key for source in found.sources]


def problems(found: Found) -> dict[str, str]:
    return {problem.path: problem.reason for problem in found.problems}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL = ["docs/a.md", "docs/guide/deep/x.txt", "docs/guide/install.md"]


# --- keys ---------------------------------------------------------------------------------------


def test_a_folders_files_are_found_in_the_order_of_their_keys(docs: Path) -> None:
    assert keys(docs) == ALL


def test_the_keys_do_not_depend_on_where_one_stands(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(docs.parent)
    assert keys("docs") == keys("./docs/") == ALL
    monkeypatch.chdir(docs)
    assert keys(".") == keys("../docs") == ALL
    monkeypatch.chdir(docs / "guide")
    assert keys("..") == ALL


def test_a_glob_and_a_file_give_the_keys_that_the_folder_gives(docs: Path, inside: Path) -> None:
    assert keys("docs/**/*.md") == ["docs/a.md", "docs/guide/install.md"]
    assert keys("docs/*.md") == keys("docs/a.md") == ["docs/a.md"]
    assert keys(str(docs / "g*" / "*.md")) == ["docs/guide/install.md"]


def test_a_file_that_several_paths_mean_is_found_once(docs: Path) -> None:
    assert keys(docs, docs / "a.md", docs, f"{docs}/*.md") == ALL


def test_two_files_with_one_key_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "one/docs/a.md", "two/docs/a.md")
    with pytest.raises(InvalidInput, match=r"has the key 'docs/a\.md' already"):
        find_sources([tmp_path / "one" / "docs", tmp_path / "two" / "docs"])


def test_a_name_with_a_wildcard_in_it_is_taken_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, "d/[draft].md", "d/d.md")
    assert keys(tmp_path / "d" / "[draft].md") == ["d/[draft].md"]


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="paths"):
        find_sources([path])


def test_what_lies_in_the_root_of_all_files_has_no_other_folders_keys() -> None:
    root = Root(Path("/"), _prefix(Path("/")))
    assert not root.has_lost("docs/nowhere.md")
    assert root.has_lost("/docs/nowhere.md")


# --- what is left out ---------------------------------------------------------------------------


def test_what_is_hidden_or_a_tools_own_is_left_out(docs: Path) -> None:
    write(
        docs,
        ".git/config",
        ".env",
        "guide/.draft/x.md",
        "CVS/Root",
        "__pycache__/x.txt",
        "node_modules/m/readme.md",
    )
    assert keys(docs) == ALL


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    write(tmp_path, ".notes/a.md")
    assert keys(tmp_path / ".notes") == [".notes/a.md"]


def test_a_binary_file_is_left_out_unless_its_name_promises_text(docs: Path) -> None:
    write(docs, "logo.png", "data", "broken.md", content=b"\x89PNG\0\0")
    write(docs, "utf16", content="wide".encode("utf-16"))
    assert keys(docs) == sorted([*ALL, "docs/broken.md", "docs/utf16"])


def test_a_binary_file_that_is_named_itself_is_tried(docs: Path) -> None:
    write(docs, "logo.png", content=b"\x89PNG\0\0")
    assert keys(docs / "logo.png") == ["docs/logo.png"]


def test_a_pipe_is_left_out_and_not_waited_for(docs: Path) -> None:
    os.mkfifo(docs / "pipe")
    assert keys(docs) == ALL


def test_links_are_followed_inside_the_folder_and_not_out_of_it(docs: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/secret.md")
    (docs / "alias.md").symlink_to("a.md")
    (docs / "leak.md").symlink_to(tmp_path / "outside" / "secret.md")
    (docs / "leaks").symlink_to(tmp_path / "outside")
    assert keys(docs) == sorted([*ALL, "docs/alias.md"])


def test_links_in_circles_end(docs: Path) -> None:
    (docs / "guide" / "up").symlink_to("..")
    (docs / "guide" / "self").symlink_to("self")
    (docs / "round").symlink_to("guide")
    assert keys(docs) == sorted([*ALL, "docs/round/install.md", "docs/round/deep/x.txt"])


def test_a_folder_behind_a_link_is_read_under_the_links_name(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("docs")
    assert keys(tmp_path / "current") == [key.replace("docs", "current", 1) for key in ALL]


def test_a_tree_deeper_than_pythons_stack_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    monkeypatch.chdir(root)
    for _ in range(1_500):
        Path("d").mkdir()
        os.chdir("d")
    Path("leaf.txt").touch()
    os.chdir(tmp_path)
    try:
        assert [key.count("/") for key in keys(root)] == [1_501]
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)


# --- what cannot be looked at -------------------------------------------------------------------


def test_a_path_that_does_not_exist_is_a_problem_and_the_others_are_found(docs: Path, inside: Path) -> None:
    found = find_sources(["nowhere", "docs", "docs/*.pdf", "none/*.md"])
    assert [source.key for source in found.sources] == ALL
    assert problems(found) == {
        "nowhere": "no such file or folder",
        "docs/*.pdf": "no file matches",
        str(inside / "none"): "No such file or directory",
    }


def test_a_link_to_nothing_is_a_problem(docs: Path) -> None:
    (docs / "gone.md").symlink_to("nothing")
    assert problems(find_sources([docs])) == {str(docs / "gone.md"): "No such file or directory"}


# --- what has gone ------------------------------------------------------------------------------


def lost(found: Found, *candidates: str) -> list[str]:
    return [key for key in candidates if found.has_lost(key)]


def test_a_key_without_a_file_under_a_folder_given_is_lost(docs: Path) -> None:
    found = find_sources([docs])
    assert lost(found, *ALL, "docs/old.md", "docs/guide/old/x.md", "docs/a.md/inside") == [
        "docs/old.md",
        "docs/guide/old/x.md",
        "docs/a.md/inside",
    ]


def test_a_key_of_elsewhere_is_not_lost(docs: Path) -> None:
    assert lost(find_sources([docs]), "other/a.md", "doc", "docs2/a.md", "old.md") == []
    assert lost(find_sources([docs / "a.md"]), "docs/old.md") == []


def test_a_glob_loses_only_what_it_would_have_matched(docs: Path) -> None:
    found = find_sources([f"{docs}/*.md"])
    assert lost(found, "docs/old.md", "docs/old.txt", "docs/guide/old.md") == ["docs/old.md"]


def test_a_glob_looks_at_nothing_that_it_does_not_mean(docs: Path) -> None:
    (docs / "broken.lnk").symlink_to(docs / "nowhere")
    assert find_sources([f"{docs}/*.md"]).problems == ()
    assert [problem.reason for problem in find_sources([f"{docs}/*.py"]).problems] == ["no file matches"]
    assert [problem.path for problem in find_sources([f"{docs}/*.lnk"]).problems] == [
        str(docs / "broken.lnk")
    ]


def test_a_file_that_is_there_but_left_out_is_not_lost(docs: Path) -> None:
    write(docs, "became-binary", content=b"\0")
    assert lost(find_sources([docs]), "docs/became-binary") == []


def test_nothing_is_lost_under_a_folder_that_is_missing(docs: Path, tmp_path: Path) -> None:
    found = find_sources([tmp_path / "unmounted", f"{tmp_path}/unmounted/*.md"])
    assert lost(found, "unmounted/a.md") == []


def test_nothing_is_lost_under_a_folder_that_cannot_be_listed() -> None:
    with tempfile.TemporaryDirectory() as home:
        docs = Path(home) / "docs"
        write(docs, "a.md", "guide/install.md")
        Path(home).chmod(0o755)
        (docs / "guide").chmod(0)
        with unprivileged():
            found = find_sources([docs])
            gone = lost(found, "docs/guide/old.md", "docs/guide/install.md", "docs/old.md")
    assert [source.key for source in found.sources] == ["docs/a.md"]
    assert problems(found) == {str(docs / "guide"): "Permission denied"}
    assert gone == ["docs/old.md"]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may list everything: what is done inside is done as a user who may not."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


# --- globs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [("*.md", "a.md", True), ("*.md", "x/a.md", False), ("**/*.md", "a.md", True),
     ("**/*.md", "x/y/a.md", True), ("**", "x/y", True), ("x/**", "x/y/z", True), ("?.md", "a.md", True),
     ("?.md", "ab.md", False), ("x?y", "x/y", False), ("[ab].md", "a.md", True), ("[!ab].md", "a.md", False),
     ("[!ab].md", "c.md", True), ("[!a]b", "/b", False), ("a.md", "abmd", False), ("[]].md", "].md", True),
     ("a[", "a[", True), ("x/**/y", "x/y", True), ("x/**/y", "xy", False), ("*", "a\nb", True)],
)  # fmt: skip
def test_a_glob_matches_as_a_shell_would(glob: str, path: str, matches: bool) -> None:
    assert bool(matcher(glob).fullmatch(path)) is matches


def test_a_glob_with_a_reversed_range_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"\[z-a\]"):
        find_sources(["/tmp/[z-a]"])
