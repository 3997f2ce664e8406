-- name: new_blocks
-- Takes blocks of 1,024 chunk ids each; returns their numbers.
SELECT nextval('chunk_id_blocks')
FROM generate_series(1, %(blocks)s);

-- name: copy_in
-- Loads many chunks; the rows follow in binary.
COPY chunks (chunk_id, file, hash, text_hash, content, metadata)
FROM STDIN (FORMAT binary);

-- name: insert
-- Inserts a few chunks in one call.
INSERT INTO chunks (chunk_id, file, hash, text_hash, content, metadata)
SELECT c.chunk_id, %(file)s, c.hash, c.text_hash, c.content, c.metadata::jsonb
FROM unnest(
    %(ids)b::bigint[], %(hashes)b::bytea[], %(text_hashes)b::bytea[], %(contents)b::text[], %(metadata)b::text[]
) AS c (chunk_id, hash, text_hash, content, metadata);

-- name: by_hash
-- The chunks of a file among those hashes; both lists are one value each, 16 bytes a hash. The columns keep
-- no statistics, so OFFSET 0 decides: one probe of the index a hash. Joined freely, 1,000 hashes took 11 s.
SELECT min(found.chunk_id) AS chunk_id, found.hash
FROM generate_series(0, length(%(hashes)b::bytea) / 16 - 1) AS i
CROSS JOIN LATERAL (
    SELECT c.chunk_id, c.hash
    FROM chunks c
    WHERE c.text_hash = substring(%(text_hashes)b::bytea FROM i * 16 + 1 FOR 16)
      AND c.file = %(file)s
      AND c.hash = substring(%(hashes)b::bytea FROM i * 16 + 1 FOR 16)
    OFFSET 0
) AS found
GROUP BY found.hash;

-- name: by_id
-- The content of some chunks.
SELECT chunk_id, content, metadata
FROM chunks
WHERE chunk_id = ANY (%(ids)s);

-- name: unembedded
-- The chunks of a file that a model of the collection still lacks (rules 8 and 9).
SELECT unembedded(%(file)s, %(segments)s, %(chunks)s, %(models)s);
