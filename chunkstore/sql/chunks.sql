-- name: new_blocks
-- Takes blocks of 1,024 chunk ids each; returns their numbers, and whether row security keeps COPY out.
SELECT nextval('chunk_id_blocks') AS block, row_security_active('chunks') AS guarded
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
-- The chunks of a file among those hashes; both lists are one value each, 16 bytes a hash.
SELECT chunk_id, hash
FROM chunks_by_hash(%(file)s, %(hashes)b::bytea, %(text_hashes)b::bytea);

-- name: unembedded
-- The chunks of a file that a model of the collection still lacks (rules 8 and 9).
SELECT unembedded(%(file)s, %(segments)s, %(chunks)b::bigint[], %(found_in)s, %(models)s);
