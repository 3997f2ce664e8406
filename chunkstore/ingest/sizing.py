"""The chunker that suits a collection: its chunks are sized in the tokens of the model that searches use."""

from chunkstore.collection import Collection
from chunkstore.errors import MissingExtra
from chunkstore.ingest.chunking import DEFAULT_SIZE, SMALLEST_SIZE, Chunker
from chunkstore.ingest.sizes import TokenMeasure
from chunkstore.models import CountsTokens, Model
from chunkstore.models.counting import token_counter


def chunker_for(collection: Collection) -> Chunker:
    """A chunker whose chunks the collection's serving model reads to their ends; blocking.

    By an estimate of tokens where the model does not count them, reads far more than a chunk, or where
    nothing on this machine can.
    """
    return chunker_of(collection.opener())


def chunker_of(model: Model | str | None) -> Chunker:
    """The same for a model or the spec of one; None for a model that nobody here knows."""
    try:
        counter = None if model is None else token_counter(model)
    except MissingExtra:
        counter = None
    if counter is None and isinstance(model, Model) and isinstance(model, CountsTokens):
        counter = model if model.max_tokens < 2 * DEFAULT_SIZE else None
    if counter is None:
        return Chunker()
    measure = TokenMeasure(counter.count_tokens, f"tokens of {counter.name}")
    most = counter.max_tokens - measure.special
    return Chunker(max(SMALLEST_SIZE, min(DEFAULT_SIZE, most)), measure)
