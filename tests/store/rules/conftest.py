"""The fixtures of the rule tests."""

from tests.store.rules.fix_interleave import world

__all__ = ["world"]
