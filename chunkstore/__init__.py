"""A versioned store of document chunks and their embeddings, on Postgres."""

__version__ = "0.1.0"
