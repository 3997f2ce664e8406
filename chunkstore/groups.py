"""Lets an error out of a task group as itself, so that callers catch ours by their names."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raises the first error of a group that leaves the block, an interrupt before all others."""
    try:
        yield
        return
    except BaseExceptionGroup as group:
        found = list(leaves(group))
    raise next((error for error in found if not isinstance(error, Exception)), found[0])


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group and of the groups in it, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[BaseException] = error
        for inner in group.exceptions:
            yield from leaves(inner)
    else:
        yield error
