"""The fixtures of the command line's tests."""

from tests.cli.fix_cli import cli, docs, empty_cli, filled, started

__all__ = ["cli", "docs", "empty_cli", "filled", "started"]
