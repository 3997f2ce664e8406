-- name: nearest
-- The k nearest chunks that are active, with what it takes to cite them, in one statement: index scan over
-- the search table, joined to membership and to the files' active versions, so that every file is seen at
-- exactly one complete version (invariant 6). `cite` is STABLE: it reads by this statement's snapshot.
WITH nearest AS MATERIALIZED (
    SELECT s.chunk_id, a.file, s.embedding {operator} %(query)s::{type} AS distance
    FROM {search} s
    JOIN {active} a ON a.chunk_id = s.chunk_id
    ORDER BY (s.embedding {operator} %(query)s::{type}){by_no_index}
    LIMIT {k}
)
SELECT c.key, c.version, c.chunk_id, n.distance, c.content, c.metadata, c.ordinal,
       c.start, c."end", c.page, c.line,
       (SELECT NOT has_index(quote_ident(%(table)s))) AS exact,
       (SELECT k.serving FROM collections k WHERE k.collection = %(collection)s) AS serving
FROM (SELECT array_agg(chunk_id) AS chunks, array_agg(file) AS files FROM nearest) AS found
CROSS JOIN LATERAL cite(%(model)s, found.chunks, found.files) AS c
JOIN nearest n ON n.chunk_id = c.chunk_id
ORDER BY n.distance, n.chunk_id;

-- name: nothing_found
-- What `nearest` says beside its hits, where it has none.
SELECT NOT has_index(quote_ident(%(table)s)) AS exact, serving
FROM collections
WHERE collection = %(collection)s;

-- name: standing
-- Where a version stands on its way to being active for the model, or for the serving one where it is null; the
-- dead letters are those of the target, which is this version or the one that searches see instead.
SELECT f.key IS NULL AS erased, f.target, v.state, av.version AS active,
       EXISTS (
           SELECT FROM dead_letters d
           WHERE d.file = f.file
             AND d.model = m.model
             AND d.state = 'open'
             AND cardinality(named_by(f.file, t.segments, ARRAY[d.chunk_id])) > 0
       ) AS dead_letter
FROM files f
JOIN collections k ON k.collection = f.collection
CROSS JOIN LATERAL (SELECT COALESCE(%(model)s::int, k.serving) AS model) AS m
LEFT JOIN versions v ON v.file = f.file AND v.version = %(version)s
LEFT JOIN versions t ON t.file = f.file AND t.version = f.target
LEFT JOIN active_versions av ON av.file = f.file AND av.model = m.model
WHERE f.file = %(file)s;
