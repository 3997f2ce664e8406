"""Which texts a model would read only in part: what keeps truncation from being silent."""

from collections.abc import Sequence

from chunkstore.models.protocol import CountsTokens, Model


def cut_texts(model: Model, texts: Sequence[str]) -> list[int]:
    """The positions of the texts that `model` would read only in part, in order.

    Empty for a model that does not count its tokens: nothing is known of it. Empty too for one that
    refuses such a text by itself (`refuses_long_texts`).
    """
    if not isinstance(model, CountsTokens) or getattr(model, "refuses_long_texts", False):
        return []
    most = model.max_tokens
    return [position for position, tokens in enumerate(model.count_tokens(texts)) if tokens > most]
