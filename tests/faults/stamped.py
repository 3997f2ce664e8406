"""Content that tells whether a search saw a file whole and at one version: the last chunk seals it."""

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from hashlib import blake2b

from chunkstore.model import Chunk, Hit
from tests.faults.models import BAD

KEYS = [f"file-{number:02}.md" for number in range(20)]
CHUNKS = 30


def chunks_of(key: str, stamp: str, n: int = CHUNKS) -> list[Chunk]:
    """The chunks of one upload: every third stays what it always was, the others carry the stamp."""
    contents = [
        f"{key} chunk {number} steady" if number % 3 == 0 else f"{key} chunk {number} upload {stamp}"
        for number in range(n - 1)
    ]
    return sealed(contents)


def numbered(n: int, *, bad: int | None = None) -> list[Chunk]:
    """So many chunks with a text of their own each, one of which models trip over."""
    return sealed([BAD if number == bad else f"text number {number}" for number in range(n - 1)])


def sealed(contents: Sequence[str]) -> list[Chunk]:
    """The chunks of these contents, and one more that seals them."""
    return [Chunk(content) for content in [*contents, _seal(contents)]]


def broken(
    hits: Iterable[Hit], keys: Iterable[str] = KEYS, unsealed: Container[str] = frozenset()
) -> list[str]:
    """What is wrong with a search that found everything, a line a file.

    Files that are unsealed need not be whole, but of one version.
    """
    found: dict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        found[hit.key].append(hit)
    faults = {key: _fault(found[key], is_sealed=key not in unsealed) for key in keys}
    faults |= dict.fromkeys(found.keys() - faults.keys(), "nobody uploaded it")
    return [f"{key}: {fault}" for key, fault in faults.items() if fault]


def _fault(hits: list[Hit], *, is_sealed: bool) -> str | None:
    if not hits:
        return "not found at all"
    if len({hit.version for hit in hits}) != 1:
        return f"versions {sorted({hit.version for hit in hits})} mixed"
    if not is_sealed:
        return None
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
