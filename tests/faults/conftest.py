"""The fixtures of the fault tests."""

from tests.faults.fix_processes import collection, fleet, store

__all__ = ["collection", "fleet", "store"]
