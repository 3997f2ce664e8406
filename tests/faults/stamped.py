"""Content that tells whether a search saw a file whole and at one version: the last chunk seals it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from chunkstore.model import Chunk, Hit

KEYS = [f"file-{number:02}.md" for number in range(20)]
CHUNKS = 30


def chunks_of(key: str, stamp: str, n: int = CHUNKS) -> list[Chunk]:
    """The chunks of one upload: every third stays what it always was, the others carry the stamp."""
    contents = [
        f"{key} chunk {number} steady" if number % 3 == 0 else f"{key} chunk {number} upload {stamp}"
        for number in range(n - 1)
    ]
    return [Chunk(content) for content in [*contents, _seal(contents)]]


def broken(hits: Iterable[Hit], keys: Sequence[str] = KEYS) -> list[str]:
    """What is wrong with a search that found everything, a line a file."""
    found: dict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        found[hit.key].append(hit)
    faults = [f"{key}: {_fault(found[key])}" for key in keys if _fault(found[key])]
    return faults + [f"{key}: nobody uploaded it" for key in found if key not in keys]


def _fault(hits: list[Hit]) -> str | None:
    if not hits:
        return "not found at all"
    if len({hit.version for hit in hits}) != 1:
        return f"versions {sorted({hit.version for hit in hits})} mixed"
    hits = sorted(hits, key=lambda hit: hit.ordinal)
    if [hit.ordinal for hit in hits] != list(range(len(hits))):
        return f"ordinals {[hit.ordinal for hit in hits]} of version {hits[0].version}"
    *contents, seal = [hit.content for hit in hits]
    if seal != _seal(contents):
        return f"version {hits[0].version} is not as it was sealed: {seal!r} ends {contents[-1:]!r}"
    return None


def _seal(contents: Sequence[str]) -> str:
    digest = blake2b("\0".join(contents).encode(), digest_size=8).hexdigest()
    return f"seal {digest} of {len(contents)} chunks"
