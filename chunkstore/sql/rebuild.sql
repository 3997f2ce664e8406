-- name: try_lock_index
-- Keeps index builders away from the live table until the swap; held by an idle transaction. Who waited here would
-- keep a snapshot meanwhile, for which a builder that holds the lock would wait in turn, and no server sees that.
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.' || %(index)s, 0));

-- name: try_begin
-- One rebuild of a (collection, model) at a time; held by an idle transaction.
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.' || %(table)s || '.rebuild', 0));

-- name: set_rebuilding
-- Lets erase and sweep list the rebuild's tables too (rule 20).
UPDATE collection_models
SET rebuilding = %(rebuilding)s
WHERE collection = %(collection)s
  AND model = %(model)s;

-- name: begun
-- The rebuilds that are going on, or were killed, of search tables that the role owns.
SELECT cm.collection, cm.model, cm.search_table, cm.active_table
FROM collection_models cm
JOIN pg_class t ON t.oid = to_regclass(quote_ident(cm.search_table))
WHERE cm.rebuilding
  AND pg_has_role(t.relowner, 'USAGE')
ORDER BY cm.collection, cm.model;

-- name: is_abandoned
-- Whether a rebuild whose lock was free was killed: it has not ended since, and no index is built for it any more.
SELECT cm.rebuilding AND NOT EXISTS (
           SELECT FROM pg_locks
           WHERE locktype = 'relation'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND relation = to_regclass(quote_ident(cm.search_table || '_rebuild'))
             AND mode = 'ShareUpdateExclusiveLock'
             AND granted
       )
FROM collection_models cm
WHERE cm.collection = %(collection)s
  AND cm.model = %(model)s;

-- name: hold_tables
-- Keeps the rebuild's tables for the transaction; no row where they were dropped as abandoned.
SELECT model
FROM collection_models
WHERE collection = %(collection)s
  AND model = %(model)s
  AND rebuilding
FOR SHARE;

-- name: drop_tables
DROP TABLE IF EXISTS {search}, {active};

-- name: active_segments
-- The segments of what the log says is active: the last 'activated' event of every file (rule 21).
SELECT DISTINCT s.segment
FROM (
    SELECT DISTINCT ON (e.file) e.file, e.version
    FROM events e
    JOIN files f ON f.file = e.file AND f.collection = %(collection)s AND f.key IS NOT NULL
    WHERE e.type = 'version_activated'
      AND (e.data ->> 'model')::integer = %(model)s
    ORDER BY e.file, e.last_offset DESC
) AS last
JOIN versions v ON v.file = last.file AND v.version = last.version
CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
ORDER BY s.segment;

-- name: lock_chunks
-- Whoever writes a vector holds its chunk (rule 20).
SELECT c.chunk_id
FROM chunks c
WHERE c.chunk_id IN (SELECT unnest(s.chunks) FROM segments s WHERE s.segment = ANY (%(segments)s::bigint[]))
ORDER BY c.chunk_id
FOR KEY SHARE;

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

-- name: replay
-- What the log says is active, the tail included; never decided anew (rule 21).
CREATE TEMPORARY TABLE replayed ON COMMIT DROP AS
SELECT DISTINCT ON (e.file) e.file, e.version
FROM events e
JOIN files f ON f.file = e.file AND f.collection = {collection} AND f.key IS NOT NULL
WHERE e.type = 'version_activated'
  AND (e.data ->> 'model')::integer = {model}
ORDER BY e.file, e.last_offset DESC;

-- name: fill_active
-- Membership from the manifests of what is active.
INSERT INTO {active} (chunk_id, file)
SELECT DISTINCT c.chunk_id, r.file
FROM replayed r
JOIN versions v ON v.file = r.file AND v.version = r.version
JOIN segments s ON s.segment = ANY (v.segments)
CROSS JOIN LATERAL unnest(s.chunks) AS c (chunk_id);

-- name: missing
-- What became active after it was copied, or was embedded since.
SELECT c.chunk_id
FROM {active} a
JOIN chunks c ON c.chunk_id = a.chunk_id
JOIN embeddings e ON e.chunk_id = a.chunk_id AND e.model = %(model)s
WHERE NOT EXISTS (
    SELECT FROM {search} s
    WHERE s.chunk_id = a.chunk_id
)
ORDER BY c.chunk_id
FOR KEY SHARE OF c;

-- name: remove_inactive
-- What was active when it was copied and is not any more.
DELETE FROM {search} s
WHERE NOT EXISTS (
    SELECT FROM {active} a
    WHERE a.chunk_id = s.chunk_id
);

-- name: correct_active_versions
-- Brings the rows of active versions to what the log says; normally none differs.
INSERT INTO active_versions AS a (file, model, version, target)
SELECT r.file, {model}, r.version, r.version
FROM replayed r
ON CONFLICT (file, model) DO UPDATE
SET version = EXCLUDED.version, target = 0, cursor = 0
WHERE a.version IS DISTINCT FROM EXCLUDED.version;

-- name: forget_unreplayed
-- A file that the log never activated is not active.
UPDATE active_versions a
SET version = NULL
FROM files f
WHERE f.file = a.file
  AND f.collection = {collection}
  AND a.model = {model}
  AND a.version IS NOT NULL
  AND NOT EXISTS (SELECT FROM replayed r WHERE r.file = a.file);

-- name: rename_table
ALTER TABLE {old} RENAME TO {new};

-- name: rename_index
ALTER INDEX IF EXISTS {old} RENAME TO {new};
