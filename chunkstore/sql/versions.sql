-- name: lock_file
-- Gets or creates the file of a key and locks it (rules 2 and 6).
SELECT lock_file(%(collection)s, %(key)s);

-- name: is_known
-- The key's file, if a version of it was ever begun; read without a lock, as a hint.
SELECT file
FROM files
WHERE collection = %(collection)s
  AND key = %(key)s
  AND last_version > 0;

-- name: lock_known_file
-- Locks a file by its number; its partition never changes.
SELECT partition
FROM files
WHERE file = %(file)s
FOR NO KEY UPDATE;

-- name: state
-- What a writer decides by; read after the file's lock, in a statement of its own (rule 1).
SELECT f.file, f.partition, f.last_version, f.latest, f.target,
       l.digest AS latest_digest,
       coalesce(l.tombstone, false) AS latest_tombstone,
       coalesce(l.segments, '{}') AS latest_segments,
       coalesce(t.segments, '{}') AS target_segments,
       i.version AS idempotent_version,
       i.digest AS idempotent_digest,
       ARRAY(
           SELECT m.model
           FROM collection_models m
           WHERE m.collection = f.collection
       ) AS models
FROM files f
LEFT JOIN versions l ON l.file = f.file AND l.version = f.latest
LEFT JOIN versions t ON t.file = f.file AND t.version = f.target
LEFT JOIN idempotency_keys i ON i.file = f.file AND i.key = %(idempotency_key)s
WHERE f.file = %(file)s;

-- name: open
-- Begins an open version that nobody sees until its commit; the counter never repeats (rule 6).
WITH counted AS (
    UPDATE files
    SET last_version = last_version + 1
    WHERE file = %(file)s
    RETURNING file, last_version
)
INSERT INTO versions (file, version, state, metadata, deadline)
SELECT file, last_version, 'open', %(metadata)s::jsonb, clock_timestamp() + %(deadline)s::interval
FROM counted
RETURNING version;

-- name: extend
-- Adds a batch to an open version and renews its deadline. No row: it is not open any more (rule 5).
UPDATE versions
SET segments = segments || %(segments)s::bigint[],
    base_ordinals = base_ordinals || %(base_ordinals)s::integer[],
    base_chars = base_chars || %(base_chars)s::integer[],
    base_pages = base_pages || %(base_pages)s::integer[],
    base_lines = base_lines || %(base_lines)s::integer[],
    chunks = chunks + %(chunks)s,
    reused = reused + %(reused)s,
    added = added + %(added)s,
    deadline = clock_timestamp() + %(deadline)s::interval
WHERE file = %(file)s
  AND version = %(version)s
  AND state = 'open'
RETURNING version, chunks, reused, added, segments;

-- name: is_open
-- Whether a version is still open; asked under the file's lock (rule 5).
SELECT EXISTS (
    SELECT FROM versions
    WHERE file = %(file)s
      AND version = %(version)s
      AND state = 'open'
);

-- name: commit
-- Commits an open version; the highest committed one is the latest and becomes the target.
WITH committed AS (
    UPDATE versions
    SET state = 'committed', digest = %(digest)s, deadline = NULL,
        committed_at = clock_timestamp()
    WHERE file = %(file)s
      AND version = %(version)s
      AND state = 'open'
    RETURNING file, version, committed_at
)
UPDATE files f
SET latest = greatest(f.latest, c.version),
    target = CASE WHEN c.version > f.latest THEN c.version ELSE f.target END
FROM committed c
WHERE f.file = c.file
RETURNING c.committed_at;

-- name: insert_committed
-- Writes a version whole, in the transaction that also stores its chunks.
WITH counted AS (
    UPDATE files
    SET last_version = last_version + 1, latest = last_version + 1, target = last_version + 1
    WHERE file = %(file)s
    RETURNING file, last_version
)
INSERT INTO versions (
    file, version, state, tombstone, chunks, reused, added, segments,
    base_ordinals, base_chars, base_pages, base_lines, digest, metadata, committed_at
)
SELECT file, last_version, 'committed', %(tombstone)s, %(chunks)s, %(reused)s, %(added)s, %(segments)s::bigint[],
       %(base_ordinals)s::integer[], %(base_chars)s::integer[], %(base_pages)s::integer[],
       %(base_lines)s::integer[], %(digest)s, %(metadata)s::jsonb, clock_timestamp()
FROM counted
RETURNING version, committed_at;

-- name: abandon
-- Gives an open version up; its writer is fenced off and its chunks can be collected.
UPDATE versions
SET state = 'abandoned', deadline = NULL
WHERE file = %(file)s
  AND version = %(version)s
  AND state = 'open'
RETURNING version;

-- name: record_idempotency_key
-- Remembers which version a retried append must be given (rule 7).
INSERT INTO idempotency_keys (file, key, version, digest)
VALUES (%(file)s, %(key)s, %(version)s, %(digest)s);

-- name: lock_by_key
-- Locks the file of a key, if it is there; one that an erasure takes meanwhile is not.
SELECT file
FROM files
WHERE collection = %(collection)s
  AND key = %(key)s
FOR NO KEY UPDATE;

-- name: file_of
-- The number of a key's file.
SELECT file
FROM files
WHERE collection = %(collection)s
  AND key = %(key)s;

-- name: uncollected
-- Whether a version is committed and still has its content.
SELECT EXISTS (
    SELECT FROM versions
    WHERE file = %(file)s
      AND version = %(version)s
      AND state = 'committed'
);

-- name: segments_of
-- The manifest of one version.
SELECT segments, base_ordinals, base_chars, base_pages, base_lines
FROM versions
WHERE file = %(file)s
  AND version = %(version)s
  AND state = 'committed';

-- name: set_target
-- Makes a version the target; it holds until the next commit.
UPDATE files
SET target = %(version)s
WHERE file = %(file)s;

-- name: set_pinned
-- Pins or unpins a version.
SELECT set_pinned(%(file)s, %(version)s, %(pinned)s);

-- name: history
-- The versions of a file, or one of them, oldest first, as its collection's serving model sees them.
SELECT v.file, v.version AS number, v.state, v.tombstone, v.pinned, v.chunks, v.reused, v.added, v.metadata,
       v.committed_at,
       v.version = f.target AS target,
       coalesce(v.version = a.version, false) AS active,
       (
           SELECT count(*)
           FROM dead_letters d
           WHERE d.file = f.file
             AND d.model = k.serving
             AND d.state = 'discarded'
             AND d.chunk_id = ANY (named_by(f.file, v.segments, ARRAY[d.chunk_id]))
       ) AS discarded
FROM files f
JOIN collections k ON k.collection = f.collection
JOIN versions v ON v.file = f.file
LEFT JOIN active_versions a ON a.file = f.file AND a.model = k.serving
WHERE f.collection = %(collection)s
  AND f.key = %(key)s
  AND (%(version)s::integer IS NULL OR v.version = %(version)s)
ORDER BY v.version;
