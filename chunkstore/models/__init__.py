"""What a model is, and how one is opened by its spec.

Implementations are imported late: importing this package loads neither torch nor a tokenizer.
"""

from chunkstore.models.protocol import (
    CountsTokens,
    Distance,
    EmbedsQueries,
    Model,
    ModelDescription,
    Spends,
    Spent,
)
from chunkstore.models.specs import describe, name_of, open_model, spec_of

__all__ = [
    "CountsTokens",
    "Distance",
    "EmbedsQueries",
    "Model",
    "ModelDescription",
    "Spends",
    "Spent",
    "describe",
    "name_of",
    "open_model",
    "spec_of",
]
