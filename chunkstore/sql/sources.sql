-- name: stamps
-- The valid stamps of the files of those keys: each describes the version that is latest and target.
SELECT f.key, f.file, s.version, s.size, s.mtime_ns, s.hash, s.parser, s.chunker, v.chunks,
       EXISTS (
           SELECT FROM dead_letters d
           WHERE d.file = f.file
             AND d.state = 'open'
       ) AS has_dead_letters
FROM files f
JOIN sources s ON s.file = f.file AND s.version = f.target AND s.version = f.latest
JOIN versions v ON v.file = f.file AND v.version = f.target
WHERE f.collection = %(collection)s
  AND f.key = ANY (%(keys)s);

-- name: save
-- Remembers what those files were made of. Holds the files against an erasure, which deletes these rows
-- (rule 20); one that it took meanwhile has no row to hold. In order of the files, so that two ingestions do
-- not wait for each other.
WITH held AS (
    SELECT file
    FROM files
    WHERE file = ANY (%(files)s)
      AND key IS NOT NULL
    ORDER BY file
    FOR KEY SHARE
)
INSERT INTO sources AS s (file, version, size, mtime_ns, hash, parser, chunker)
SELECT h.file, w.version, w.size, w.mtime_ns, w.hash, w.parser, w.chunker
FROM unnest(
    %(files)s::bigint[], %(versions)s::integer[], %(sizes)s::bigint[], %(mtimes)s::bigint[],
    %(hashes)s::bytea[], %(parsers)s::text[], %(chunkers)s::text[]
) AS w (file, version, size, mtime_ns, hash, parser, chunker)
JOIN held h USING (file)
ORDER BY h.file
ON CONFLICT (file) DO UPDATE
SET version = excluded.version, size = excluded.size, mtime_ns = excluded.mtime_ns, hash = excluded.hash,
    parser = excluded.parser, chunker = excluded.chunker
WHERE s.version <= excluded.version;

-- name: digests
-- What the files of those keys hold, where the latest version is the target: by it an append is unchanged.
SELECT f.key, v.digest
FROM files f
JOIN versions v ON v.file = f.file AND v.version = f.target
WHERE f.collection = %(collection)s
  AND f.key = ANY (%(keys)s)
  AND f.target = f.latest
  AND NOT v.tombstone;
