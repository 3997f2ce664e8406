"""The fixtures of the rule tests."""

from tests.store.fix_store import collection, store
from tests.store.rules.fix_interleave import world

__all__ = ["collection", "store", "world"]
