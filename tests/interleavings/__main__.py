"""Prints the list of operations that meet, as docs/reliability.md has it between its marks."""

from tests.interleavings.pairs import table

if __name__ == "__main__":
    print("\n".join(table()))
