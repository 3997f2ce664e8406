"""The test suite; not part of what is installed."""
