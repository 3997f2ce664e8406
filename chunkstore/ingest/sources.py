"""Finds the files that a list of paths means, and gives each the key that it keeps from run to run.

A key is the name of the root and the path below it, with slashes: `docs/guide/install.md` for the
folder `docs`, wherever the program was started. The root of a glob is the part before its first
wildcard; the root of a single file is the folder that it lies in. What lies in the root of all files,
which has no name, has a key that begins with a slash.

In a folder, what is hidden, version control's or a tool's own, no text (unless its name promises
text) or no regular file is left out, and so are links that lead out of the root or round in circles.
How many were left out is counted by the reason.
"""

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Literal

import msgspec

from chunkstore.errors import InvalidInput
from chunkstore.ingest.formats.sniffing import may_be_read
from chunkstore.ingest.globs import has_wildcard, matcher, split_root
from chunkstore.ingest.parsers import is_registered

_TOOL_FOLDERS = frozenset({"CVS", "_darcs", "__pycache__", "node_modules"})
_HEAD_BYTES = 8_192
_UNREAD_DOCUMENTS = frozenset(
    {
        *(".doc", ".dot", ".pps", ".ppt", ".xls", ".msg", ".pub", ".vsd", ".one", ".rtf"),
        *(".key", ".numbers", ".pages", ".djvu", ".mobi", ".ps", ".wpd"),
    }
)
"""Names of files whose text somebody may miss, though it is not read here."""
_UNUSABLE = re.compile("[\0\ud800-\udb7f\udc00-\udc7f\udd00-\udfff]")
"""Of the surrogates, those alone can stand in a path that spell the bytes of no UTF-8 text."""


LeftOut = Literal[
    "hidden",
    "a tool's own folder",
    "not text",
    "a document of a format that is not read",
    "not a regular file",
    "a link out of the folder",
    "a circle of links",
]


class Source(msgspec.Struct, frozen=True):
    """One file to read, and its key."""

    key: str
    path: Path

    @property
    def encoded_path(self) -> bytes:
        """The path as the file system has it."""
        return os.fsencode(self.path)


class Problem(msgspec.Struct, frozen=True):
    """A path that could not be looked at, and why."""

    path: str
    reason: str


class Root(msgspec.Struct, frozen=True):
    """A folder that was walked: the beginning of its keys, and which of the paths below it were meant."""

    path: Path
    prefix: str
    pattern: re.Pattern[str] | None = None
    unseen: tuple[str, ...] = ()
    """Beginnings of keys under which nothing could be listed."""

    def has_lost(self, key: str) -> bool:
        """True where the key belongs to this root and nothing is left at its path.

        False in every doubtful case: below a folder that cannot be listed, a file that cannot be read
        or is left out.
        """
        if not key.startswith(self.prefix):
            return False
        below = key.removeprefix(self.prefix)
        if self.pattern is not None and not self.pattern.fullmatch(below):
            return False
        return not key.startswith(self.unseen) and _is_gone(self.path / below)


class Found(msgspec.Struct, frozen=True):
    """The files in order of their keys, the roots that they came from, and what could not be looked at."""

    sources: tuple[Source, ...]
    roots: tuple[Root, ...]
    problems: tuple[Problem, ...]
    left_out: Mapping[LeftOut, int]
    """How many files and folders were left out, by the reason. A folder counts as one."""
    unread: Mapping[Source, LeftOut] = {}
    """Of these the files that were left out for what they hold."""

    def with_known(self, keys: Container[str]) -> "Found":
        """With the files of these keys that are no text any more: reading them says what they became."""
        sources = {source.key: source for source in self.sources}
        left_out = Counter(self.left_out)
        for source, reason in self.unread.items():
            if source.key in keys:
                sources.setdefault(source.key, source)
                left_out[reason] -= 1
        in_order = tuple(source for _, source in sorted(sources.items()))
        return msgspec.structs.replace(self, sources=in_order, left_out=dict(+left_out))

    def lost(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys whose file has gone from one of the roots, sorted."""
        found = {source.key for source in self.sources}
        return [key for key in sorted(set(keys) - found) if self.has_lost(key)]

    def has_lost(self, key: str) -> bool:
        """True where the file of this key has gone from one of the roots."""
        return any(root.has_lost(key) for root in self.roots)


def find_sources(paths: Iterable[str | Path]) -> Found:
    """Every file that the paths mean: files, folders, globs (`docs/**/*.md`).

    A path that does not exist is a problem, not an error. Raises InvalidInput where two different
    files would have one key.
    """
    sources: dict[str, Source] = {}
    roots: list[Root] = []
    problems: list[Problem] = []
    left_out: Counter[LeftOut] = Counter()
    unread: dict[Source, LeftOut] = {}
    for given in paths:
        looked_up = _looked_up(str(given))
        roots += [looked_up.root] if looked_up.root else []
        problems += looked_up.problems
        left_out += looked_up.left_out
        unread |= looked_up.unread
        for source in looked_up.sources:
            known = sources.setdefault(source.key, source)
            if known.path != source.path:
                raise InvalidInput(
                    "paths",
                    str(source.path),
                    f"{known.path} has the key {source.key!r} already: rename one folder",
                )
    in_order = tuple(source for _, source in sorted(sources.items()))
    return Found(in_order, tuple(roots), tuple(problems), dict(left_out), unread)


class _LookedUp(msgspec.Struct):
    """What one path came to."""

    sources: list[Source] = []
    problems: list[Problem] = []
    root: Root | None = None
    left_out: Counter[LeftOut] = msgspec.field(default_factory=Counter[LeftOut])
    unread: dict[Source, LeftOut] = {}


def _looked_up(given: str) -> _LookedUp:
    if not given or _UNUSABLE.search(given):
        raise InvalidInput("paths", given, "a path is text of at least one character without NUL")
    path = Path(os.path.abspath(given))  # noqa: PTH100 - resolve() would follow links, and change the keys
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:  # a name that no file can have, a folder above that may not be looked into
        return _LookedUp(problems=[Problem(given, error.strerror or type(error).__name__)])
    if is_folder:
        return _walked(path, None)
    if is_there:
        return _LookedUp([Source(_prefix(path.parent) + path.name, path)])
    if not has_wildcard(given):
        return _LookedUp(problems=[Problem(given, "no such file or folder")])
    folder, pattern = split_root(path)
    looked_up = _walked(folder, matcher(pattern))
    if not looked_up.sources and not looked_up.problems:
        looked_up.problems.append(Problem(given, "no file matches"))
    return looked_up


def _walked(folder: Path, pattern: re.Pattern[str] | None) -> _LookedUp:
    walk = _Walk(folder, _prefix(folder), pattern)
    wanted: list[Source] = []
    unread: dict[Source, LeftOut] = {}
    for source in walk.files():
        if _is_wanted(source.path):
            wanted.append(source)
        elif source.path.suffix.lower() in _UNREAD_DOCUMENTS:
            unread[source] = "a document of a format that is not read"
        else:
            unread[source] = "not text"
    left_out = Counter(unread.values())
    if pattern is None:  # what a glob does not mean is not missed
        left_out += walk.left_out
    root = Root(folder, walk.prefix, pattern, tuple(walk.unseen))
    return _LookedUp(wanted, walk.problems, root, left_out, unread)


class _Walk:
    """One walk through a folder for the files that a pattern means; collects what it could not look at."""

    def __init__(self, root: Path, prefix: str, pattern: re.Pattern[str] | None) -> None:
        self.prefix = prefix
        self._pattern = pattern
        self.problems: list[Problem] = []
        self.unseen: list[str] = []
        self.left_out: Counter[LeftOut] = Counter()
        self._root = root
        self._real_root = Path(os.path.realpath(root))

    def files(self) -> Iterator[Source]:
        """The regular files in the root and below, in no particular order."""
        pending: list[tuple[Path, frozenset[tuple[int, int]]]] = [(self._root, frozenset())]
        while pending:
            folder, above = pending.pop()
            identity = _identity(folder)
            if identity in above:
                self.left_out["a circle of links"] += 1
                continue
            for path in self._listed(folder):
                mode = self._mode(path)
                if stat.S_ISREG(mode):
                    if self._is_meant(path):
                        yield Source(self._key(path), path)
                elif stat.S_ISDIR(mode) and path.name in _TOOL_FOLDERS:
                    self.left_out["a tool's own folder"] += 1
                elif stat.S_ISDIR(mode):
                    pending.append((path, above | {identity}))
                elif mode:
                    self.left_out["not a regular file"] += 1

    def _listed(self, folder: Path) -> list[Path]:
        """What is in the folder and not hidden."""
        try:
            with os.scandir(folder) as entries:
                listed = [Path(entry.path) for entry in entries]
        except OSError as error:
            self._fail(folder, error)
            self.unseen.append(self.prefix if folder == self._root else self._key(folder) + "/")
            return []
        shown = [path for path in listed if not path.name.startswith(".")]
        if len(shown) < len(listed):
            self.left_out["hidden"] += len(listed) - len(shown)
        return shown

    def _mode(self, path: Path) -> int:
        """What stands at the path or where its link leads; 0 for a link that leads out or nowhere."""
        try:
            mode = path.stat().st_mode
            if path.is_symlink() and not self._is_inside(path):
                self.left_out["a link out of the folder"] += 1
                return 0
        except OSError as error:
            if error.errno == errno.ELOOP:
                self.left_out["a circle of links"] += 1
            elif self._is_meant(path):
                self._fail(path, error)
            return 0
        return mode

    def _is_meant(self, path: Path) -> bool:
        below = path.relative_to(self._root).as_posix()
        return self._pattern is None or self._pattern.fullmatch(below) is not None

    def _key(self, path: Path) -> str:
        return self.prefix + path.relative_to(self._root).as_posix()

    def _is_inside(self, link: Path) -> bool:
        return Path(os.path.realpath(link)).is_relative_to(self._real_root)

    def _fail(self, path: Path, error: OSError) -> None:
        self.problems.append(Problem(str(path), error.strerror or type(error).__name__))


def _identity(folder: Path) -> tuple[int, int]:
    """Tells a folder from every other, whatever the links that lead to it; (0, 0) where it cannot be told."""
    try:
        found = folder.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _prefix(folder: PurePath) -> str:
    return f"{folder.name}/"


def _is_wanted(path: Path) -> bool:
    """True unless the file is no text and does not claim to be; reading it will say what is wrong."""
    if is_registered(path):
        return True
    try:
        with path.open("rb") as file:
            return may_be_read(file.read(_HEAD_BYTES))
    except OSError:
        return True


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
