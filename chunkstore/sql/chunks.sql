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
-- The chunks of a file among those hashes; the text's hash leads because the index stands on it.
-- Both lists of hashes are one value each, 16 bytes a hash.
SELECT min(c.chunk_id) AS chunk_id, c.hash
FROM generate_series(0, %(count)s - 1) AS i
CROSS JOIN LATERAL (
    SELECT substring(%(text_hashes)b::bytea FROM i * 16 + 1 FOR 16) AS text_hash,
           substring(%(hashes)b::bytea FROM i * 16 + 1 FOR 16) AS hash
) AS wanted
JOIN chunks c ON c.text_hash = wanted.text_hash AND c.file = %(file)s AND c.hash = wanted.hash
GROUP BY c.hash;

-- name: by_id
-- The content of some chunks.
SELECT chunk_id, content, metadata
FROM chunks
WHERE chunk_id = ANY (%(ids)s);

-- name: unembedded
-- The chunks of a file that a model of the collection still lacks (rules 8 and 9).
SELECT unembedded(%(file)s, %(segments)s, %(chunks)s, %(models)s);
