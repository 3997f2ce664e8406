"""A model of the protocol and an explorer that visits every state which it can reach.

`postgres` is the database, `schema` its tables; `writer`, `consumer`, `projector`, `collector`, `eraser`,
`administrator` and `rebuilder` are the programs that run on it; `invariants` must hold in every state of each
of the `scenarios`, and `mutants` are what happens when a rule is left out.
"""
