"""What is uploaded: texts that say which upload they are of, so that whoever meets one can tell."""

import re
from collections import defaultdict
from collections.abc import Iterable

KEYS = [f"report-{number:02}.md" for number in range(20)]
CHUNKS = 30

_STAMPED = re.compile(r"(?P<key>\S+) upload (?P<stamp>\d+) chunk (?P<chunk>\d+)")


def texts_of(key: str, stamp: int) -> list[str]:
    """The chunks of one upload; no two uploads share one."""
    return [f"{key} upload {stamp} chunk {number}: what was found" for number in range(CHUNKS)]


def stamp_of(text: str) -> int:
    """The upload that a text is of."""
    return _read(text)[1]


def whole_uploads(contents: Iterable[str]) -> dict[str, int]:
    """By key, the upload that a search saw: every chunk of it once, and no chunk of another."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for content in contents:
        key, stamp, chunk = _read(content)
        found[key].append((stamp, chunk))
    return {
        key: chunks[0][0]
        for key, chunks in found.items()
        if sorted(chunks) == [(chunks[0][0], number) for number in range(CHUNKS)]
    }


def _read(text: str) -> tuple[str, int, int]:
    stamped = _STAMPED.match(text)
    assert stamped is not None, text
    return stamped["key"], int(stamped["stamp"]), int(stamped["chunk"])
