"""A row of the log without its type's shape is skipped by who reads it, never an error."""

from typing import Any

import pytest

from chunkstore.events import Unknown, VersionCommitted, decode
from chunkstore.model import FileId

ROWS: list[tuple[str, list[int] | None, Any]] = [
    ("version_committed", None, {}),
    ("version_committed", None, {"target": "yes"}),
    ("target_changed", None, {"previous": "x"}),
    ("target_changed", None, "x"),
    ("target_changed", None, ["x"]),
    ("dead_letter_retried", None, {"model": 1, "chunk": "x"}),
    ("chunks_appended", None, None),
    ("chunks_embedded", [1], {"model": 1}),
    ("of_a_newer_chunkstore", None, {"what": "ever"}),
]


@pytest.mark.parametrize(("name", "chunks", "data"), ROWS)
def test_a_row_without_its_types_shape_is_unknown(name: str, chunks: list[int] | None, data: Any) -> None:
    assert decode(name, 7, 1, chunks, data) == Unknown(file=FileId(7), version=1, name=name)


def test_fields_of_a_newer_shape_are_dropped() -> None:
    event = decode("version_committed", 7, 1, None, {"target": True, "of_a_newer_shape": 1})
    assert event == VersionCommitted(file=FileId(7), version=1, target=True)
