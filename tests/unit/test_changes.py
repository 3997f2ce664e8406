"""What is taken for a change: size, time and hash, each switched on or off."""

import msgspec
import pytest

from chunkstore.errors import InvalidInput
from chunkstore.ingest.changes import Checks
from chunkstore.ingest.stamps import Stamp
from chunkstore.model import FileId

STAMP = Stamp(key="k", file=FileId(1), version=1, size=10, mtime_ns=100, hash=b"h", parser="p/1", chunker="c")
YOUNG = msgspec.structs.replace(STAMP, mtime_ns=None)


@pytest.mark.parametrize(
    ("checks", "same", "touched", "resized", "young"),
    [
        ("size,mtime,hash", "unchanged", "compare", "changed", "compare"),
        ("size,mtime", "unchanged", "changed", "changed", "changed"),
        ("size,hash", "compare", "compare", "changed", "compare"),
        ("mtime,hash", "unchanged", "compare", "unchanged", "compare"),
        ("size", "unchanged", "unchanged", "changed", "unchanged"),
        ("mtime", "unchanged", "changed", "unchanged", "changed"),
        ("hash", "compare", "compare", "compare", "compare"),
        ("none", "changed", "changed", "changed", "changed"),
    ],
)
def test_each_check_can_be_switched(checks: str, same: str, touched: str, resized: str, young: str) -> None:
    chosen = Checks.named(checks)
    assert chosen.verdict(STAMP, 10, 100) == same
    assert chosen.verdict(STAMP, 10, 101) == touched
    assert chosen.verdict(STAMP, 11, 100) == resized
    assert chosen.verdict(YOUNG, 10, 100) == young
    assert chosen.verdict(None, 10, 100) == "changed"


@pytest.mark.parametrize("names", ["", "size,", "sizes", "size mtime", "none,size", "size,none"])
def test_checks_that_do_not_exist_are_refused(names: str) -> None:
    with pytest.raises(InvalidInput, match="size, mtime, hash"):
        Checks.named(names)
