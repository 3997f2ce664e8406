"""Real files of every format, damaged in every way that dice find: read or refused with a reason, never both.

One ingestion takes them all, so that one bad file which stopped it would be seen.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkstore.collection import Collection
from chunkstore.ingest.pipeline import Limits, ingest
from projections.verify import verify
from tests.store.fix_store import collection, store

__all__ = ["collection", "store"]

FILES = sorted(path for path in (Path(__file__).parents[1] / "files").iterdir() if path.is_file())


def truncated(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(1, len(content))]


def flipped(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(20):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def zeroed(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content))
    return content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]


def doubled(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content))
    return content[:start] + content + content[start:]


def shuffled(content: bytes, dice: random.Random) -> bytes:
    parts = [content[start : start + 64] for start in range(0, len(content), 64)]
    dice.shuffle(parts)
    return b"".join(parts)


def another_suffix(content: bytes, dice: random.Random) -> bytes:
    return content


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [
    truncated,
    flipped,
    zeroed,
    doubled,
    shuffled,
    another_suffix,
]


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.soak)]
)
@pytest.mark.timeout(300)
async def test_one_ingestion_takes_every_damaged_file(
    collection: Collection, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "good.md").write_text("a good file")
    for file in FILES:
        content = file.read_bytes()
        for damage in DAMAGES:
            suffix = dice.choice(FILES).suffix if damage is another_suffix else file.suffix
            (folder / f"{file.stem}-{damage.__name__}{suffix}").write_bytes(damage(content, dice))
    made = {path.name for path in folder.iterdir()}

    report = await ingest(collection, [folder], limits=Limits(seconds=10, memory=512 << 20))

    failed = {Path(path).name: reason for path, reason in report.failed}
    assert all(reason.strip() and "\n" not in reason for reason in failed.values()), failed
    assert failed.keys() <= made
    assert report.added + len(failed) + sum(report.left_out.values()) == len(made)
    assert [chunk.content async for chunk in collection.chunks("damaged/good.md")] == ["a good file"]
    assert (await verify(collection.store)).ok
