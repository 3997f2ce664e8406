-- Views for people who only have psql: what is active, where every file stands, what waits, what failed.
-- They call no function of the schema, so that they also work where the search_path does not hold it.

CREATE VIEW active_chunks AS
SELECT c.name AS collection, f.key, a.version, m.name AS model,
       l.base_ordinal + t.i::integer - 1 AS ordinal, t.chunk_id, k.content, k.metadata,
       l.base_char + t.start AS start, l.base_char + t."end" AS "end",
       l.base_page + t.page AS page, l.base_line + t.line AS line
FROM active_versions a
JOIN files f ON f.file = a.file
JOIN collections c ON c.collection = f.collection
JOIN models m ON m.model = a.model
JOIN versions v ON v.file = a.file AND v.version = a.version
CROSS JOIN LATERAL unnest(v.segments, v.base_ordinals, v.base_chars, v.base_pages, v.base_lines)
    AS l (segment, base_ordinal, base_char, base_page, base_line)
JOIN segments s ON s.segment = l.segment
CROSS JOIN LATERAL unnest(s.chunks, s.starts, s.ends, s.pages, s.lines)
    WITH ORDINALITY AS t (chunk_id, start, "end", page, line, i)
JOIN chunks k ON k.chunk_id = t.chunk_id;

COMMENT ON VIEW active_chunks IS
    'What is active now: one row for every place of every file''s active version and model. A chunk whose dead letter was discarded is listed here and found by no search.';
COMMENT ON COLUMN active_chunks.ordinal IS 'The place''s number in its version, from 0.';
COMMENT ON COLUMN active_chunks.start IS 'First character of the place in the source; "end" is the one after its last.';

CREATE VIEW file_states AS
SELECT c.name AS collection, f.key,
       CASE
           WHEN f.target = 0 THEN 'open'
           WHEN a.version = f.target AND t.tombstone THEN 'deleted'
           WHEN a.version = f.target THEN 'active'
           WHEN EXISTS (
               SELECT FROM dead_letters d
               JOIN segments s ON s.file = d.file
                   AND s.min_chunk <= d.chunk_id
                   AND s.max_chunk >= d.chunk_id
                   AND d.chunk_id = ANY (s.chunks)
               WHERE d.file = f.file
                 AND d.model = c.serving
                 AND d.state = 'open'
                 AND s.segment = ANY (t.segments)
           ) THEN 'failed'
           ELSE 'waiting'
       END AS state,
       f.latest, f.target, a.version AS active, m.name AS model, t.chunks, t.committed_at,
       f.target <> f.latest AS rolled_back, f.file
FROM files f
JOIN collections c ON c.collection = f.collection
JOIN models m ON m.model = c.serving
LEFT JOIN versions t ON t.file = f.file AND t.version = f.target
LEFT JOIN active_versions a ON a.file = f.file AND a.model = c.serving
WHERE f.key IS NOT NULL
  AND (
      f.target > 0
      OR EXISTS (
          SELECT FROM versions v
          WHERE v.file = f.file
            AND v.state = 'open'
      )
  );

COMMENT ON VIEW file_states IS
    'Every file that has a version, or is getting its first, and where it stands with its collection''s serving model. How many chunks a waiting file lacks is in the view waiting.';
COMMENT ON COLUMN file_states.state IS
    'open: its first version is still being written. active: searches see the target. waiting: they do not yet. failed: the target waits on an open dead letter. deleted: a tombstone is active.';
COMMENT ON COLUMN file_states.latest IS 'The highest committed version; 0 before the first.';
COMMENT ON COLUMN file_states.target IS 'The version that is or should become active.';
COMMENT ON COLUMN file_states.active IS 'The version that searches see; NULL while they see none.';
COMMENT ON COLUMN file_states.chunks IS 'How many places the target has.';

CREATE VIEW waiting AS
SELECT c.name AS collection, f.key, m.name AS model, f.target, a.version AS active, t.chunks,
       (
           SELECT count(DISTINCT u.chunk_id)
           FROM segments s
           CROSS JOIN LATERAL unnest(s.chunks) AS u (chunk_id)
           WHERE s.segment = ANY (t.segments)
             AND s.segment <> ALL (coalesce(n.segments, '{}'))
             AND NOT EXISTS (
                 SELECT FROM embeddings e
                 WHERE e.chunk_id = u.chunk_id
                   AND e.model = cm.model
             )
             AND NOT EXISTS (
                 SELECT FROM dead_letters d
                 WHERE d.chunk_id = u.chunk_id
                   AND d.model = cm.model
                   AND d.state = 'discarded'
             )
       ) AS lacking,
       CASE
           WHEN f.target > coalesce(a.version, 0) THEN (
               SELECT min(v.committed_at)
               FROM versions v
               WHERE v.file = f.file
                 AND v.version > coalesce(a.version, 0)
           )
           ELSE (
               SELECT max(e.recorded_at)
               FROM events e
               WHERE e.partition = f.partition
                 AND e.type = 'target_changed'
                 AND e.file = f.file
                 AND e.version = f.target
           )
       END AS since,
       f.file
FROM files f
JOIN collections c ON c.collection = f.collection
JOIN collection_models cm ON cm.collection = f.collection
JOIN models m ON m.model = cm.model
JOIN versions t ON t.file = f.file AND t.version = f.target
LEFT JOIN active_versions a ON a.file = f.file AND a.model = cm.model
LEFT JOIN versions n ON n.file = a.file AND n.version = a.version
WHERE f.key IS NOT NULL
  AND a.version IS DISTINCT FROM f.target;

COMMENT ON VIEW waiting IS
    'Files whose target is not active yet, once for every model that lacks it.';
COMMENT ON COLUMN waiting.lacking IS
    'Chunks of the target that the model has not embedded, those with an open dead letter included. 0: the projector has yet to switch.';
COMMENT ON COLUMN waiting.since IS
    'Since when searches have not seen the newest state: the first commit after the active version, or the rollback.';

CREATE VIEW failed AS
SELECT c.name AS collection, f.key, p.version, p.ordinal, m.name AS model, d.chunk_id, d.state, d.attempts,
       d.error, d.failed_at, f.file
FROM dead_letters d
JOIN files f ON f.file = d.file
JOIN collections c ON c.collection = f.collection
JOIN models m ON m.model = d.model
LEFT JOIN LATERAL (
    SELECT v.version, l.base_ordinal + array_position(s.chunks, d.chunk_id) - 1 AS ordinal
    FROM segments s
    JOIN versions v ON v.file = s.file AND v.state IN ('open', 'committed') AND s.segment = ANY (v.segments)
    CROSS JOIN LATERAL unnest(v.segments, v.base_ordinals) AS l (segment, base_ordinal)
    WHERE s.file = d.file
      AND s.min_chunk <= d.chunk_id
      AND s.max_chunk >= d.chunk_id
      AND d.chunk_id = ANY (s.chunks)
      AND l.segment = s.segment
    ORDER BY v.version DESC, l.base_ordinal
    LIMIT 1
) AS p ON true;

COMMENT ON VIEW failed IS
    'Dead letters: chunks that a consumer gave up on, and why. An error''s text may quote content.';
COMMENT ON COLUMN failed.version IS 'The highest version that names the chunk, and the first place (ordinal) where it does.';
COMMENT ON COLUMN failed.state IS
    'open: the file''s target waits for a retry. discarded: versions become active without the chunk.';
