-- What a search calls beside its one statement.

-- Whether a search table has a valid index over its vectors.
CREATE FUNCTION has_index(_search_table text) RETURNS boolean
STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_am am ON am.oid = i.relam
        WHERE x.indrelid = to_regclass(_search_table) AND am.amname = 'hnsw' AND x.indisvalid
    );
END
$$;

-- What it takes to cite some active chunks: key, version, content, and the place that the manifest gives.
-- A function for its plan alone, which is kept: planning these joins anew cost more than the search itself.
-- OFFSET 0 and no sequential scans: the plan is kept from a small store into a large one, one probe a table.
CREATE FUNCTION cite(_model integer, _chunks bigint[], _files bigint[])
RETURNS TABLE (
    chunk_id bigint, key text, version integer, content text, metadata jsonb,
    ordinal integer, start integer, "end" integer, page integer, line integer
)
STABLE LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.chunk_id, f.key, v.version, c.content, c.metadata, p.ordinal, p.start, p."end", p.page, p.line
    FROM unnest(_chunks, _files) AS h (chunk_id, file)
    CROSS JOIN LATERAL (SELECT * FROM files WHERE file = h.file OFFSET 0) AS f
    CROSS JOIN LATERAL (SELECT * FROM active_versions WHERE file = h.file AND model = _model OFFSET 0) AS a
    CROSS JOIN LATERAL (SELECT * FROM versions WHERE file = h.file AND version = a.version OFFSET 0) AS v
    CROSS JOIN LATERAL (SELECT content, metadata FROM chunks WHERE chunk_id = h.chunk_id OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT m.base_ordinal + i - 1 AS ordinal,
               s.starts[i] + m.base_char AS start,
               s.ends[i] + m.base_char AS "end",
               s.pages[i] + m.base_page AS page,
               s.lines[i] + m.base_line AS line
        FROM segments s
        JOIN LATERAL unnest(v.segments, v.base_ordinals, v.base_chars, v.base_pages, v.base_lines)
            AS m (segment, base_ordinal, base_char, base_page, base_line) ON m.segment = s.segment
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN s.consecutive THEN (h.chunk_id - s.min_chunk + 1)::integer
                ELSE array_position(s.chunks, h.chunk_id)
            END
        ) AS position (i)
        WHERE s.file = h.file AND s.min_chunk <= h.chunk_id AND s.max_chunk >= h.chunk_id AND i IS NOT NULL
        ORDER BY m.base_ordinal
        LIMIT 1
    ) AS p;
END
$$;
