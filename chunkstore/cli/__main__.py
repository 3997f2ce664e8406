"""Lets `python -m chunkstore.cli` be the command `chunkstore`."""

from chunkstore.cli import main

main()
