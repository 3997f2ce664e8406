-- name: overdue
-- Open versions that have passed their deadline.
SELECT v.file
FROM versions v
JOIN files f USING (file)
WHERE v.state = 'open'
  AND v.deadline < clock_timestamp()
  AND (%(collection)s::integer IS NULL OR f.collection = %(collection)s)
ORDER BY v.file, v.version;

-- name: abandon_overdue
-- Abandons the open versions of a file that have passed their deadline; asked again under its lock.
UPDATE versions
SET state = 'abandoned', deadline = NULL
WHERE file = %(file)s
  AND state = 'open'
  AND deadline < clock_timestamp()
RETURNING version;

-- name: candidates
-- The files that hold a version which their retention does not keep. A hint: the decision looks again.
SELECT f.file
FROM files f
JOIN collections c ON c.collection = f.collection
WHERE f.last_version > c.keep_last
  AND (%(collection)s::integer IS NULL OR f.collection = %(collection)s)
  AND EXISTS (SELECT FROM due_versions(f.file))
ORDER BY f.file;

-- name: decide
-- Marks the versions of a file that nothing keeps as collected, under the file's lock (rule 19).
UPDATE versions
SET state = 'collected'
WHERE file = %(file)s
  AND version IN (SELECT due_versions(%(file)s))
RETURNING version;

-- name: preview
-- What a decision would collect now, and why.
SELECT c.name AS collection, f.key, v.version, v.chunks, v.committed_at,
       format('older than the last %%s versions', c.keep_last)
           || CASE WHEN c.keep_for IS NOT NULL THEN format(' and than %%s', c.keep_for) ELSE '' END AS reason
FROM files f
JOIN collections c ON c.collection = f.collection
CROSS JOIN LATERAL due_versions(f.file) AS due (version)
JOIN versions v ON v.file = f.file AND v.version = due.version
WHERE f.last_version > c.keep_last
  AND (%(collection)s::integer IS NULL OR f.collection = %(collection)s)
UNION ALL
SELECT c.name, f.key, v.version, v.chunks, v.committed_at, 'open past its deadline: its writer is gone'
FROM versions v
JOIN files f ON f.file = v.file
JOIN collections c ON c.collection = f.collection
WHERE v.state = 'open'
  AND v.deadline < clock_timestamp()
  AND (%(collection)s::integer IS NULL OR f.collection = %(collection)s)
ORDER BY 1, 2, 3;

-- name: to_sweep
-- The files that hold payload of collected or abandoned versions.
SELECT DISTINCT v.file
FROM versions v
JOIN files f USING (file)
WHERE v.state IN ('abandoned', 'collected')
  AND v.segments <> '{}'
  AND v.file > %(after)s
  AND (%(collection)s::integer IS NULL OR f.collection = %(collection)s)
ORDER BY v.file
LIMIT 1000;

-- name: sweep_segments
-- Sweeps some garbage segments of a file.
SELECT swept, skipped, finished
FROM sweep_segments(%(file)s, %(segments)s, %(limit)s);
