-- name: try_begin
-- One rebuild of a (collection, model) at a time; held by an idle transaction.
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.' || %(table)s || '.rebuild', 0));

-- name: set_rebuilding
-- Lets erase and sweep list the rebuild's tables too (rule 20).
UPDATE collection_models
SET rebuilding = %(rebuilding)s
WHERE collection = %(collection)s
  AND model = %(model)s;

-- name: drop_tables
DROP TABLE IF EXISTS {search}, {active};

-- name: hold_tables
-- Keeps the rebuild's tables for the transaction; no row where they were dropped as abandoned.
SELECT model
FROM collection_models
WHERE collection = %(collection)s
  AND model = %(model)s
  AND rebuilding
FOR SHARE;

-- name: copy_vectors
-- Copies the vectors of chunks that are locked.
INSERT INTO {search} (chunk_id, embedding)
SELECT e.chunk_id, e.embedding
FROM embeddings e
WHERE e.chunk_id = ANY (%(chunks)s::bigint[])
  AND e.model = %(model)s
ON CONFLICT DO NOTHING;

-- name: lock_checkpoints
-- Stops every activation of the model until the swap is done.
SELECT partition
FROM progress
WHERE consumer_group = %(group)s
ORDER BY partition
FOR UPDATE;

-- name: lock_files
-- Keeps erasures away from what is being copied; appends go on.
SELECT file
FROM files
WHERE collection = %(collection)s
ORDER BY file
FOR KEY SHARE;

-- name: lock_tables
-- Keeps sweeps, which list the tables that hold vectors, away from the swap; no row as above.
SELECT model
FROM collection_models
WHERE collection = %(collection)s
  AND model = %(model)s
  AND rebuilding
FOR UPDATE;

-- name: stop_staging
-- Keeps consumers from staging rows in the table that is about to go.
LOCK TABLE {search} IN SHARE ROW EXCLUSIVE MODE;

-- name: rename_table
ALTER TABLE {old} RENAME TO {new};

-- name: rename_index
ALTER INDEX IF EXISTS {old} RENAME TO {new};

-- name: another_owner
-- Whose a table is, if it is not the caller's own: who maintains it for its owner must not take it.
SELECT pg_get_userbyid(relowner)
FROM pg_class
WHERE oid = to_regclass(quote_ident(%(table)s))
  AND pg_get_userbyid(relowner) <> current_user;

-- name: give
ALTER TABLE {table} OWNER TO {owner};
