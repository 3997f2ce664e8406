"""The checker of searches tells each kind of result that must not be, and keeps quiet about a right one."""

from collections.abc import Sequence

import pytest

from chunkstore.model import Chunk, ChunkId, Hit
from tests.faults.searching import Checker
from tests.faults.stamped import chunks_of

KEYS = ["a.md", "b.md"]


def hits(key: str, version: int, chunks: Sequence[Chunk]) -> list[Hit]:
    return [
        Hit(
            key=key,
            version=version,
            ordinal=ordinal,
            place=None,
            score=1.0,
            content=chunk.content,
            metadata={},
            chunk_id=ChunkId(ordinal),
        )
        for ordinal, chunk in enumerate(chunks)
    ]


def whole(key: str, version: int) -> list[Hit]:
    return hits(key, version, chunks_of(key, f"upload {version}", 6))


BOTH = [*whole("a.md", 2), *whole("b.md", 1)]


def checked(*results: list[Hit], by: Checker | None = None) -> list[str]:
    checker = by or Checker(KEYS)
    for found in results:
        checker.check(found)
    assert checker.searches == len(results)
    return checker.faults


def test_files_that_are_whole_and_get_newer_are_no_fault() -> None:
    assert checked(BOTH, BOTH, [*whole("a.md", 3), *whole("b.md", 1)]) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        pytest.param(whole("a.md", 2), "b.md: not found at all", id="a file that vanished"),
        pytest.param([*BOTH, *whole("c.md", 1)], "c.md: nobody uploaded it", id="a file of nobody"),
        pytest.param(
            [*BOTH[:5], *whole("b.md", 1)], "a.md: version 2 is not as it was sealed", id="a lost end"
        ),
        pytest.param([*BOTH[:2], *BOTH[3:]], "a.md: ordinals", id="a lost middle"),
        pytest.param([*BOTH, BOTH[0]], "a.md: ordinals", id="a chunk that is found twice"),
        pytest.param(
            [*whole("a.md", 2)[:3], *whole("a.md", 1)[3:], *whole("b.md", 1)],
            "a.md: versions [1, 2] mixed",
            id="versions that are mixed",
        ),
        pytest.param(
            [*hits("a.md", 2, [*chunks_of("a.md", "x", 6)[:3], *chunks_of("a.md", "y", 6)[3:]]), *BOTH[6:]],
            "a.md: version 2 is not as it was sealed",
            id="content of another version",
        ),
    ],
)
def test_a_result_that_must_not_be_is_told(found: list[Hit], told: str) -> None:
    (fault,) = checked(found)
    assert fault.startswith(told)


def test_an_older_version_after_a_newer_one_is_told() -> None:
    assert checked(BOTH, [*whole("a.md", 1), *whole("b.md", 1)]) == ["a.md: version 1 after version 2"]


def test_of_keys_that_nobody_named_each_has_to_be_found_from_the_first_time_on() -> None:
    assert checked([], whole("a.md", 1), BOTH, by=Checker(None)) == []
    assert checked(BOTH, whole("a.md", 2), by=Checker(None)) == ["b.md: not found at all"]


def test_a_file_that_is_deleted_may_vanish() -> None:
    assert checked(BOTH, whole("a.md", 2), by=Checker(None, deleted={"b.md"})) == []


def test_a_file_without_a_seal_is_of_one_version_all_the_same() -> None:
    one, other = hits("a.md", 1, [Chunk("x")]), hits("a.md", 2, [Chunk("x")])
    assert checked(one, by=Checker(None, unsealed={"a.md"})) == []
    assert checked([*one, *other], by=Checker(None, unsealed={"a.md"})) == ["a.md: versions [1, 2] mixed"]
