-- name: try_lock_index
-- Keeps index builders away from the live table until the swap; held by an idle transaction. Who waited here would
-- keep a snapshot meanwhile, for which a builder that holds the lock would wait in turn, and no server sees that.
-- A killed rebuild's index may still be being built, on a table that is to be dropped.
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.' || %(table)s || '_hnsw', 0))
       AND NOT EXISTS (
           SELECT FROM pg_locks
           WHERE locktype = 'relation'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND relation = to_regclass(quote_ident(%(table)s || '_rebuild'))
             AND mode = 'ShareUpdateExclusiveLock'
             AND granted
       );

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
