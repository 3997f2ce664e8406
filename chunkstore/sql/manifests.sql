-- name: known_segments
-- The file's segments with those digests that an open or uncollected version lists.
SELECT digest, segment
FROM segments_by_digest(%(file)s, %(digests)b);

-- name: hashes_of
-- The chunks of some segments with their hashes, for matching in the client.
SELECT chunks, hashes
FROM segments
WHERE segment = ANY (%(segments)s);

-- name: insert_segment
-- Stores one segment; returns its number.
INSERT INTO segments (
    segment, file, digest, min_chunk, max_chunk, consecutive, chunks, hashes, starts, ends, pages, lines
)
VALUES (
    nextval('segment_ids'), %(file)s, %(digest)b, %(min_chunk)s, %(max_chunk)s, %(consecutive)s, %(chunks)b::bigint[],
    %(hashes)b, %(starts)b::integer[], %(ends)b::integer[], %(pages)b::integer[], %(lines)b::integer[]
)
RETURNING segment;

-- name: read_chunks
-- The chunks of one segment of a version, in order, with the places that its bases give.
SELECT c.chunk_id, %(base_ordinal)s + t.i::integer - 1 AS ordinal, c.content, c.metadata,
       t.start + %(base_char)s AS start, t."end" + %(base_char)s AS "end",
       t.page + %(base_page)s AS page, t.line + %(base_line)s AS line
FROM segments s
CROSS JOIN LATERAL unnest(s.chunks, s.starts, s.ends, s.pages, s.lines)
    WITH ORDINALITY AS t (chunk_id, start, "end", page, line, i)
JOIN chunks c ON c.chunk_id = t.chunk_id
WHERE s.segment = %(segment)s
ORDER BY t.i;
