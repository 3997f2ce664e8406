-- name: give_up
-- Gives one chunk up and marks its range done.
SELECT dead_letter(
    %(group)s, %(partition)s, %(lo)s, %(epoch)s, %(model)s, %(chunk)s, %(attempts)s, %(error)s
);

-- name: file_of
-- The file of a dead letter's chunk.
SELECT d.file
FROM dead_letters d
JOIN files f ON f.file = d.file
WHERE d.chunk_id = %(chunk)s
  AND d.model = %(model)s
  AND f.collection = %(collection)s;

-- name: target_of
-- The version that a chunk is logged for again; read after the file's lock (rule 1).
SELECT f.target
FROM files f
WHERE f.file = %(file)s;

-- name: retry
-- Takes a dead letter back; no row where it is gone.
DELETE FROM dead_letters
WHERE chunk_id = %(chunk)s
  AND model = %(model)s
RETURNING chunk_id;

-- name: reset_cursor
-- Lets the completeness of a file be decided from its first chunk again: a chunk that counted as done does
-- not any more (rule 16). Under the file's lock, as every switch is.
UPDATE active_versions
SET cursor = 0
WHERE file = %(file)s
  AND model = %(model)s
  AND version IS DISTINCT FROM target;

-- name: discard
-- Lets versions activate without the chunk; no row where the dead letter is gone.
UPDATE dead_letters
SET state = 'discarded'
WHERE chunk_id = %(chunk)s
  AND model = %(model)s
RETURNING chunk_id;

-- name: of_collection
-- The dead letters of a collection's files.
SELECT d.chunk_id, f.key, m.name AS model, d.state, d.attempts, d.error, d.failed_at
FROM dead_letters d
JOIN files f ON f.file = d.file
JOIN models m ON m.model = d.model
WHERE f.collection = %(collection)s
ORDER BY d.failed_at, d.chunk_id;

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
