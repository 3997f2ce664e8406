"""The invariants that data can show, each as a query for what breaks it; independent of `verify`."""

STATEMENTS = {
    "two events cover one offset, or none does": """
        SELECT FROM (
            SELECT last_offset - n - lag(last_offset, 1, -1) OVER log AS gap
            FROM events
            WINDOW log AS (PARTITION BY partition ORDER BY last_offset)
        ) AS steps WHERE gap <> 0""",
    "a manifest names a chunk that is gone": """
        SELECT FROM versions v
        CROSS JOIN LATERAL unnest(v.segments) AS l (segment)
        LEFT JOIN segments s ON s.segment = l.segment
        LEFT JOIN LATERAL unnest(s.chunks) AS c (chunk_id) ON true
        WHERE v.state IN ('open', 'committed')
          AND NOT EXISTS (SELECT FROM chunks WHERE chunk_id = c.chunk_id)""",
    "a version's manifest is not as long as it says": """
        SELECT FROM versions v
        WHERE v.state IN ('open', 'committed')
          AND v.chunks <> (
              SELECT coalesce(sum(cardinality(s.chunks)), 0)
              FROM unnest(v.segments) AS l (segment) JOIN segments s ON s.segment = l.segment
          )""",
    "an embedding without its chunk": """
        SELECT FROM embeddings e WHERE NOT EXISTS (SELECT FROM chunks c WHERE c.chunk_id = e.chunk_id)""",
    "a vector to search without its chunk": """
        SELECT FROM {search} s WHERE NOT EXISTS (SELECT FROM chunks c WHERE c.chunk_id = s.chunk_id)""",
    "a dead letter without its chunk": """
        SELECT FROM dead_letters d WHERE NOT EXISTS (SELECT FROM chunks c WHERE c.chunk_id = d.chunk_id)""",
    "an embedded chunk with a dead letter": """
        SELECT FROM dead_letters d JOIN embeddings e USING (chunk_id, model)""",
    "a member of an active version that is not": """
        SELECT FROM {active} a
        WHERE NOT EXISTS (
            SELECT FROM active_versions v
            JOIN versions w ON w.file = v.file AND w.version = v.version AND w.state = 'committed'
            CROSS JOIN LATERAL unnest(w.segments) AS l (segment)
            JOIN segments s ON s.segment = l.segment
            WHERE v.file = a.file AND a.chunk_id = ANY (s.chunks)
        )""",
    "an active chunk that no search can find": """
        SELECT FROM {active} a
        JOIN embeddings e USING (chunk_id)
        WHERE NOT EXISTS (SELECT FROM {search} s WHERE s.chunk_id = a.chunk_id)""",
    "an active version with a chunk that is not a member": """
        SELECT FROM active_versions v
        JOIN collection_models m ON m.model = v.model AND m.active_table = '{active}'
        JOIN versions w ON w.file = v.file AND w.version = v.version
        CROSS JOIN LATERAL unnest(w.segments) AS l (segment)
        JOIN segments s ON s.segment = l.segment
        CROSS JOIN LATERAL unnest(s.chunks) AS c (chunk_id)
        WHERE NOT EXISTS (SELECT FROM {active} a WHERE a.chunk_id = c.chunk_id)""",
    "content of an erased file": """
        SELECT FROM files f
        WHERE f.latest = 0 AND f.key IS NULL
          AND (EXISTS (SELECT FROM chunks c WHERE c.file = f.file)
               OR EXISTS (SELECT FROM versions v WHERE v.file = f.file)
               OR EXISTS (SELECT FROM segments s WHERE s.file = f.file)
               OR EXISTS (SELECT FROM idempotency_keys i WHERE i.file = f.file)
               OR EXISTS (SELECT FROM sources o WHERE o.file = f.file)
               OR EXISTS (SELECT FROM active_versions a WHERE a.file = f.file))""",
}
