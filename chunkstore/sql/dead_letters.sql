-- name: find
-- Dead letters with the highest version that names their chunk, oldest first; each condition holds where it is given.
SELECT chunk_id, collection, key, version, ordinal, model, state, attempts, error, failed_at
FROM failed
WHERE (%(collection)s::text IS NULL OR collection = %(collection)s)
  AND (%(model)s::text IS NULL OR model = %(model)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(chunks)s::bigint[] IS NULL OR chunk_id = ANY (%(chunks)s))
ORDER BY failed_at, chunk_id, model;

-- name: content
-- The text and the metadata of a chunk.
SELECT content, metadata
FROM chunks
WHERE chunk_id = %(chunk)s;
