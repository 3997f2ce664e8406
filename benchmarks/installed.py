"""How much room installed distributions take, with all that they require."""

from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def megabytes(names: Iterable[str], *, alone: Iterable[str] = ()) -> float:
    """Megabytes (10^6 bytes) of the distributions and what they require; of those `alone`, only they."""
    wanted = list(names)
    counted: dict[str, Distribution] = {}
    while wanted:
        name = canonicalize_name(wanted.pop())
        found = None if name in counted else _installed(name)
        if found is not None:
            counted[name] = found
            wanted += _required(found)
    for name in alone:
        found = _installed(name)
        if found is not None:
            counted[canonicalize_name(name)] = found
    return sum(map(_bytes, counted.values())) / 1e6


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _required(of: Distribution) -> list[str]:
    """What it requires here; extras are counted only where the distribution is required by another."""
    requirements = map(Requirement, of.requires or ())
    return [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def _bytes(of: Distribution) -> int:
    """The size of its files, compiled ones included."""
    paths = (of.locate_file(file) for file in of.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())  # type: ignore[attr-defined]
