"""Any service that answers `/v1/embeddings` as OpenAI's does, as a model.

`options` reads the spec, `key` holds the secret, `tokens` counts, `pacing` keeps the rate limits, `client`
sends one request, `answers` checks what came, and `model` makes vectors of texts out of all that.
"""
