"""The fixtures of the interleavings."""

from tests.interleavings.fix_stage import small, stage, stages

__all__ = ["small", "stage", "stages"]
