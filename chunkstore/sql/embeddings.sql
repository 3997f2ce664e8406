-- name: read_range
-- The chunks of a range that the model still owes an embedding, in order of id.
-- Needed means: in the manifest of the target or of an open version, or of the active one, which lacks only what
-- was discarded and then taken back. The version that the event names is asked first; only where it is neither
-- target nor open are the manifests searched, by id range (rule 10).
-- `source` is a chunk of the collection whose vector can be copied, because its text is the same (rule 12): one
-- probe of the texts' index each, then of the keys of what it finds. Left to the planner, which knows nothing of
-- hashes, it probed every file of the collection for each text. What is embedded is a subquery, so that it is
-- probed too, and never merged with the whole table.
WITH logged AS MATERIALIZED (
    SELECT file, version, last_offset, n, first_chunk, chunks
    FROM events
    WHERE partition = %(partition)s
      AND last_offset >= %(lo)s
      AND last_offset < %(hi)s + 1024
      AND last_offset - n + 1 < %(hi)s
      AND type = 'chunks_appended'
),
runs AS MATERIALIZED (
    SELECT l.file, l.version, f.collection, k.headings, c.current,
           CASE WHEN NOT c.current THEN needed_segments(l.file) || coalesce((
               SELECT v.segments
               FROM active_versions a
               JOIN versions v ON v.file = a.file AND v.version = a.version
               WHERE a.file = l.file
                 AND a.model = %(model)s
           ), '{}') END AS needed
    FROM (SELECT DISTINCT file, version FROM logged) AS l
    CROSS JOIN LATERAL (SELECT collection, target FROM files WHERE file = l.file OFFSET 0) AS f
    JOIN collections k ON k.collection = f.collection
    JOIN collection_models m ON m.collection = f.collection AND m.model = %(model)s
    CROSS JOIN LATERAL (
        SELECT l.version = f.target OR EXISTS (
            SELECT FROM versions v
            WHERE v.file = l.file
              AND v.version = l.version
              AND v.state = 'open'
        ) AS current
        OFFSET 0
    ) AS c
),
owed AS MATERIALIZED (
    SELECT DISTINCT ON (c.chunk_id) c.chunk_id, r.collection, r.headings
    FROM logged l
    JOIN runs r USING (file, version)
    CROSS JOIN LATERAL (
        SELECT coalesce(l.chunks[i], l.first_chunk + i - 1) AS chunk_id
        FROM generate_series(
            greatest(1, %(lo)s - (l.last_offset - l.n)),
            least(l.n, %(hi)s - 1 - (l.last_offset - l.n))
        ) AS i
        OFFSET 0
    ) AS c
    WHERE (
              SELECT true
              FROM embeddings e
              WHERE e.chunk_id = c.chunk_id
                AND e.model = %(model)s
          ) IS NULL
      AND (
              NOT EXISTS (SELECT FROM dead_letters WHERE model = %(model)s AND state = 'discarded')
              OR (
                  SELECT d.state = 'discarded'
                  FROM dead_letters d
                  WHERE d.chunk_id = c.chunk_id
                    AND d.model = %(model)s
              ) IS NOT TRUE
          )
      AND (r.current OR EXISTS (
              SELECT FROM segments s
              WHERE s.file = l.file
                AND s.min_chunk <= c.chunk_id
                AND s.max_chunk >= c.chunk_id
                AND c.chunk_id = ANY (s.chunks)
                AND s.segment = ANY (r.needed)
          ))
    ORDER BY c.chunk_id
)
SELECT o.chunk_id, o.collection, c.text_hash, c.content,
       CASE WHEN o.headings THEN c.metadata -> 'headings' END AS headings,
       CASE WHEN t.has_twin THEN (
           SELECT e.chunk_id
           FROM chunks twin
           CROSS JOIN LATERAL (
               SELECT chunk_id
               FROM embeddings
               WHERE chunk_id = twin.chunk_id
                 AND model = %(model)s
               OFFSET 0
           ) AS e
           WHERE twin.text_hash = c.text_hash
             AND twin.chunk_id <> c.chunk_id
             AND (SELECT f.collection FROM files f WHERE f.file = twin.file) = o.collection
           LIMIT 1
       ) END AS source,
       t.has_twin
FROM owed o
JOIN chunks c ON c.chunk_id = o.chunk_id
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM chunks other
        WHERE other.text_hash = c.text_hash
          AND other.chunk_id <> c.chunk_id
    ) AS has_twin
    OFFSET 0
) AS t
ORDER BY o.chunk_id;

-- name: decide_in_turn
-- Lets those who decide about texts that several chunks have decide one after the other: each then sees, in its
-- next statement, what the others have taken in hand (rule 1).
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || %(group)s, 0));

-- name: in_hand
-- Those of these texts, by collection, that need not be embedded here: a chunk of the same text is in a range
-- that another lease holds, or has got its embedding since the range was read. OFFSET 0, LIMIT 1 and subqueries
-- keep it to probes, whatever the planner takes the tables' sizes to be: to hash or merge one is to read it whole.
WITH held AS MATERIALIZED (
    SELECT DISTINCT c.chunk_id
    FROM leases l
    CROSS JOIN LATERAL (
        SELECT *
        FROM events
        WHERE partition = l.partition
          AND last_offset >= l.lo
          AND last_offset < l.hi + 1024
          AND last_offset - n + 1 < l.hi
          AND type = 'chunks_appended'
        OFFSET 0
    ) AS e
    CROSS JOIN LATERAL (
        SELECT coalesce(e.chunks[i], e.first_chunk + i - 1) AS chunk_id
        FROM generate_series(
            greatest(1, l.lo - (e.last_offset - e.n)),
            least(e.n, l.hi - 1 - (e.last_offset - e.n))
        ) AS i
    ) AS c
    WHERE l.consumer_group = %(group)s
      AND l.owner IS NOT NULL
      AND l.expires > clock_timestamp()
      AND (l.partition, l.lo) <> (%(partition)s, %(lo)s)
      AND NOT EXISTS (
          SELECT FROM done d
          WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
      )
)
SELECT f.collection, c.text_hash
FROM held h
CROSS JOIN LATERAL (SELECT file, text_hash FROM chunks WHERE chunk_id = h.chunk_id OFFSET 0) AS c
CROSS JOIN LATERAL (SELECT collection FROM files WHERE file = c.file OFFSET 0) AS f
WHERE c.text_hash = ANY (%(text_hashes)s::bytea[])
UNION
SELECT t.collection, t.text_hash
FROM unnest(%(collections)s::integer[], %(text_hashes)s::bytea[]) AS t (collection, text_hash)
CROSS JOIN LATERAL (
    SELECT
    FROM chunks c
    WHERE c.text_hash = t.text_hash
      AND (SELECT f.collection FROM files f WHERE f.file = c.file) = t.collection
      AND (SELECT true FROM embeddings e WHERE e.chunk_id = c.chunk_id AND e.model = %(model)s)
    LIMIT 1
) AS embedded;

-- name: copies
-- Vectors of the model that are to be copied; one that was collected or erased since the read is missing.
SELECT chunk_id, embedding::real[] AS vector
FROM embeddings
WHERE chunk_id = ANY (%(sources)b::bigint[])
  AND model = %(model)s;

-- name: complete
-- Stores vectors by exact chunk version, logs them and, if it is finished, marks the range done.
SELECT complete(
    %(group)s, %(partition)s, %(lo)s, %(epoch)s, %(model)s, %(chunks)b::bigint[], %(vectors)b::vector[], %(finished)s
);
