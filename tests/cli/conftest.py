"""The fixtures of the command line's tests."""

from tests.cli.fix_cli import called, cli, docs, empty_cli, filled, started

__all__ = ["called", "cli", "docs", "empty_cli", "filled", "started"]
