-- name: nearest
-- The k nearest chunks that are active, with what it takes to cite them, in one statement: index scan over
-- the search table, joined to membership and to the files' active versions, so that every file is seen at
-- exactly one complete version (invariant 6).
WITH nearest AS MATERIALIZED (
    SELECT s.chunk_id, a.file, s.embedding {operator} %(query)s::{type} AS distance
    FROM {search} s
    JOIN {active} a ON a.chunk_id = s.chunk_id
    ORDER BY s.embedding {operator} %(query)s::{type}
    LIMIT %(k)s
)
SELECT f.key, v.version, n.chunk_id, n.distance, c.content, c.metadata, p.ordinal,
       p.start, p."end", p.page, p.line,
       NOT EXISTS (
           SELECT FROM pg_index x
           JOIN pg_class i ON i.oid = x.indexrelid
           JOIN pg_am am ON am.oid = i.relam
           WHERE x.indrelid = to_regclass(%(table)s)
             AND am.amname = 'hnsw'
             AND x.indisvalid
       ) AS exact
FROM nearest n
JOIN files f ON f.file = n.file
JOIN active_versions av ON av.file = n.file AND av.model = %(model)s
JOIN versions v ON v.file = n.file AND v.version = av.version
JOIN chunks c ON c.chunk_id = n.chunk_id
CROSS JOIN LATERAL (
    SELECT m.base_ordinal + i - 1 AS ordinal,
           s.starts[i] + m.base_char AS start,
           s.ends[i] + m.base_char AS "end",
           s.pages[i] + m.base_page AS page,
           s.lines[i] + m.base_line AS line
    FROM segments s
    JOIN LATERAL unnest(v.segments, v.base_ordinals, v.base_chars, v.base_pages, v.base_lines)
        AS m (segment, base_ordinal, base_char, base_page, base_line) ON m.segment = s.segment
    CROSS JOIN LATERAL array_position(s.chunks, n.chunk_id) AS i
    WHERE s.file = n.file
      AND s.min_chunk <= n.chunk_id
      AND s.max_chunk >= n.chunk_id
      AND i IS NOT NULL
    ORDER BY m.base_ordinal
    LIMIT 1
) AS p
ORDER BY n.distance, n.chunk_id;

-- name: has_index
-- Whether the search table has a valid index over its vectors.
SELECT EXISTS (
    SELECT FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am am ON am.oid = i.relam
    WHERE x.indrelid = to_regclass(%(table)s)
      AND am.amname = 'hnsw'
      AND x.indisvalid
);

-- name: standing
-- Where a version stands on its way to being active.
SELECT f.key IS NULL AS erased, f.target, v.state, av.version AS active,
       EXISTS (
           SELECT FROM dead_letters d
           WHERE d.file = f.file
             AND d.model = %(model)s
             AND d.state = 'open'
             AND cardinality(named_by(f.file, v.segments, ARRAY[d.chunk_id])) > 0
       ) AS dead_letter
FROM files f
LEFT JOIN versions v ON v.file = f.file AND v.version = %(version)s
LEFT JOIN active_versions av ON av.file = f.file AND av.model = %(model)s
WHERE f.file = %(file)s;
