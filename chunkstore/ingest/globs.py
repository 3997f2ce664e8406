"""Globs over paths with slashes: `*` and `?` stay within a folder, `**` does not."""

import re
from pathlib import Path

from chunkstore.errors import InvalidInput

_WILDCARDS = frozenset("*?[")
_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_MEANINGS = {"**/": "(?:.+/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def has_wildcard(path: str) -> bool:
    """True where the text is a glob."""
    return not _WILDCARDS.isdisjoint(path)


def split_root(glob: Path) -> tuple[Path, str]:
    """The folder before the first part with a wildcard, and the pattern below it."""
    fixed = next(i for i, part in enumerate(glob.parts) if has_wildcard(part))
    return Path(*glob.parts[:fixed]), "/".join(glob.parts[fixed:])


def matcher(pattern: str) -> re.Pattern[str]:
    """The glob as a regular expression for `fullmatch`. Raises InvalidInput for a range that is none."""
    try:
        return re.compile("".join(map(_meaning, _PARTS.findall(pattern))), re.DOTALL)
    except re.error as error:
        raise InvalidInput("paths", pattern, f"a glob with *, **, ? and [a-z]: {error}") from error


def _meaning(part: str) -> str:
    if len(part) > 1 and part.startswith("["):
        inner = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
        return f"[^/{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
    return _MEANINGS.get(part) or re.escape(part)
