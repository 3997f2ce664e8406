-- Every check returns the rows that break it; none is what it should return. They stand in the order of the
-- invariants, whose numbers are in projections/verify.py.

-- name: tables
-- The tables of every (collection, model), a rebuild's included, and whether both are there.
SELECT cm.collection, cm.model, cm.search_table || suffix AS search_table,
       cm.active_table || suffix AS active_table, suffix <> '' AS rebuild,
       to_regclass(quote_ident(cm.search_table || suffix)) IS NOT NULL
           AND to_regclass(quote_ident(cm.active_table || suffix)) IS NOT NULL AS exist
FROM collection_models cm
CROSS JOIN LATERAL unnest(CASE WHEN cm.rebuilding THEN ARRAY['', '_rebuild'] ELSE ARRAY[''] END) AS suffix
ORDER BY cm.collection, cm.model, suffix;

-- name: lock_tables
-- Keeps a rebuild from swapping the tables under the snapshot; sent before the snapshot is taken.
LOCK TABLE {search}, {active} IN ACCESS SHARE MODE;

-- name: work_left
-- The models of every collection, and whether chunks wait or are in flight, events wait, or a back-fill runs.
SELECT cm.collection, cm.model, c.name AS collection_name, m.name AS model_name,
       w.embedding OR w.projecting OR cm.backfilled IS NOT NULL AS left
FROM collection_models cm
JOIN collections c USING (collection)
JOIN models m USING (model)
JOIN (
    SELECT n.model,
           EXISTS (
               SELECT FROM progress p
               WHERE p.consumer_group = 'embed:' || n.model
                 AND has_work(p.consumer_group, p.partition)
           ) OR EXISTS (
               SELECT FROM leases l
               WHERE l.consumer_group = 'embed:' || n.model
                 AND NOT EXISTS (
                     SELECT FROM done d
                     WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
                 )
           ) AS embedding,
           EXISTS (
               SELECT FROM progress p
               JOIN events e ON e.partition = p.partition AND e.last_offset >= p.position
               WHERE p.consumer_group = 'project:' || n.model
           ) AS projecting
    FROM models n
) AS w USING (model)
ORDER BY cm.collection, cm.model;

-- name: offending
-- How many rows a check finds, and the first of them as JSON.
WITH violations AS MATERIALIZED (
{check}
)
SELECT (SELECT count(*) FROM violations) AS count, to_jsonb(v)::text AS row
FROM violations v
LIMIT %(limit)s;

-- name: dense_offsets
-- The offsets of every partition run from 0 to its head without gap or overlap.
SELECT partition, last_offset - n + 1 AS first_offset, last_offset, previous + 1 AS expected_first_offset
FROM (
    SELECT partition, last_offset, n,
           lag(last_offset, 1, -1::bigint) OVER (PARTITION BY partition ORDER BY last_offset) AS previous
    FROM events
) AS steps
WHERE last_offset - n <> previous;

-- name: event_shapes
-- A chunks-appended event covers as many offsets as it names chunks, every other event one; each holds the data of
-- its type.
SELECT partition, last_offset, type, n, cardinality(chunks) AS chunks, first_chunk, file, version, data
FROM events
WHERE CASE
          WHEN type = 'chunks_appended'
          THEN file IS NULL OR version IS NULL OR coalesce(cardinality(chunks) <> n, first_chunk IS NULL)
          ELSE n <> 1
      END
   OR NOT is_data_of(type, data);

-- name: event_partitions
-- An event that names a file stands in that file's partition.
SELECT e.partition, e.last_offset, e.type, e.file, f.partition AS partition_of_file
FROM events e
LEFT JOIN files f ON f.file = e.file
WHERE e.file IS NOT NULL
  AND f.partition IS DISTINCT FROM e.partition;

-- name: immutability
-- Triggers refuse changes of events, chunk versions, embeddings and segments, for every role.
-- tgtype: 2 is before, 8 delete, 16 update, 32 truncate.
SELECT w.table_name, w.trigger_name,
       CASE
           WHEN t.tgname IS NULL THEN 'missing'
           WHEN t.tgenabled <> 'A' THEN 'not enabled for every role'
           ELSE 'does not refuse all that it should'
       END AS problem
FROM (
    VALUES
        ('events', 'events_are_immutable', 2 + 8 + 16 + 32),
        ('chunks', 'chunks_are_immutable', 2 + 16 + 32),
        ('embeddings', 'embeddings_are_immutable', 2 + 16 + 32),
        ('segments', 'segments_are_immutable', 2 + 16 + 32)
) AS w (table_name, trigger_name, refused)
LEFT JOIN pg_trigger t ON t.tgrelid = to_regclass(w.table_name) AND t.tgname = w.trigger_name
LEFT JOIN pg_proc p ON p.oid = t.tgfoid
WHERE t.tgname IS NULL
   OR t.tgenabled <> 'A'
   OR t.tgtype & w.refused <> w.refused
   OR p.proname <> 'refuse_change';

-- name: manifest_segments
-- Every segment that an open or committed version lists is there, and is its file's own.
SELECT v.file, v.version, v.state, l.segment, s.file AS file_of_segment
FROM versions v
CROSS JOIN LATERAL unnest(v.segments) AS l (segment)
LEFT JOIN segments s ON s.segment = l.segment
WHERE v.state IN ('open', 'committed')
  AND s.file IS DISTINCT FROM v.file;

-- name: manifest_arrays
-- A version has as many bases of ordinal, character, page and line as segments.
SELECT file, version, cardinality(segments) AS segments, cardinality(base_ordinals) AS base_ordinals,
       cardinality(base_chars) AS base_chars, cardinality(base_pages) AS base_pages,
       cardinality(base_lines) AS base_lines
FROM versions
WHERE cardinality(base_ordinals) <> cardinality(segments)
   OR cardinality(base_chars) <> cardinality(segments)
   OR cardinality(base_pages) <> cardinality(segments)
   OR cardinality(base_lines) <> cardinality(segments);

-- name: manifest_lengths
-- The ordinals that segments begin at, and a version's count of chunks, follow from the segments' lengths.
WITH lengths AS MATERIALIZED (
    SELECT segment, cardinality(chunks) AS length
    FROM segments
),
listed AS (
    SELECT v.file, v.version, l.base_ordinal, n.length,
           sum(n.length) OVER (PARTITION BY v.file, v.version ORDER BY l.i) - n.length AS expected_base
    FROM versions v
    CROSS JOIN LATERAL unnest(v.segments, v.base_ordinals) WITH ORDINALITY AS l (segment, base_ordinal, i)
    JOIN lengths n ON n.segment = l.segment
    WHERE v.state IN ('open', 'committed')
)
SELECT v.file, v.version, v.chunks, coalesce(sum(l.length), 0) AS chunks_of_segments,
       count(*) FILTER (WHERE l.base_ordinal <> l.expected_base) AS wrong_bases
FROM versions v
LEFT JOIN listed l USING (file, version)
WHERE v.state IN ('open', 'committed')
GROUP BY v.file, v.version
HAVING v.chunks <> coalesce(sum(l.length), 0)
    OR bool_or(l.base_ordinal <> l.expected_base);

-- name: segment_arrays
-- A segment's bounds, hashes and places belong to its chunks.
SELECT s.segment, s.file, cardinality(s.chunks) AS chunks, s.min_chunk, s.max_chunk, b.least, b.greatest,
       s.consecutive, octet_length(s.hashes) AS bytes_of_hashes, cardinality(s.starts) AS starts, cardinality(s.ends) AS ends,
       cardinality(s.pages) AS pages, cardinality(s.lines) AS lines
FROM segments s
CROSS JOIN LATERAL (
    SELECT min(c) AS least, max(c) AS greatest, bool_and(c = s.chunks[1] + i - 1) AS consecutive
    FROM unnest(s.chunks) WITH ORDINALITY AS u (c, i)
) AS b
WHERE (s.min_chunk, s.max_chunk) IS DISTINCT FROM (b.least, b.greatest)
   OR (s.consecutive AND NOT b.consecutive)
   OR octet_length(s.hashes) <> 16 * cardinality(s.chunks)
   OR cardinality(s.starts) <> cardinality(s.chunks)
   OR cardinality(s.ends) <> cardinality(s.chunks)
   OR cardinality(s.pages) <> cardinality(s.chunks)
   OR cardinality(s.lines) <> cardinality(s.chunks);

-- name: manifest_chunks
-- Every chunk in an open or committed manifest is there, is its file's own and has the hash that the segment says.
WITH listed AS (
    SELECT DISTINCT l.segment
    FROM versions v
    CROSS JOIN LATERAL unnest(v.segments) AS l (segment)
    WHERE v.state IN ('open', 'committed')
),
named AS (
    SELECT s.file, s.segment, t.chunk_id, t.hash
    FROM listed
    JOIN segments s USING (segment)
    CROSS JOIN LATERAL (
        -- Concatenated, the hashes are read once a segment and not once a chunk.
        SELECT u.chunk_id, substring(h.hashes FROM u.i::integer * 16 - 15 FOR 16) AS hash
        FROM (SELECT s.hashes || ''::bytea AS hashes OFFSET 0) AS h
        CROSS JOIN unnest(s.chunks) WITH ORDINALITY AS u (chunk_id, i)
    ) AS t
)
SELECT n.file, n.segment, n.chunk_id, k.file AS file_of_chunk
FROM named n
LEFT JOIN chunks k ON k.chunk_id = n.chunk_id
WHERE k.file IS DISTINCT FROM n.file
   OR k.hash <> n.hash;

-- name: latest_versions
-- A file's latest version is its highest committed one, and its counter is not behind any version.
SELECT f.file, f.latest, f.target, f.last_version, v.highest_committed, v.highest
FROM files f
LEFT JOIN (
    SELECT file, max(version) AS highest,
           max(version) FILTER (WHERE state IN ('committed', 'collected')) AS highest_committed
    FROM versions
    GROUP BY file
) AS v USING (file)
WHERE f.latest <> coalesce(v.highest_committed, 0)
   OR f.last_version < coalesce(v.highest, 0)
   OR (f.latest = 0) <> (f.target = 0);

-- name: chunks_once
-- A file holds a content with its metadata once, or searches would find it twice.
SELECT file, min(chunk_id) AS chunk_id, count(*) AS chunk_versions
FROM chunks
GROUP BY file, hash
HAVING count(*) > 1;

-- name: embeddings_of_chunks
-- Every embedding has its chunk version.
SELECT e.chunk_id, e.model
FROM embeddings e
WHERE NOT EXISTS (
    SELECT FROM chunks k
    WHERE k.chunk_id = e.chunk_id
);

-- name: embeddings_once
-- A chunk has at most one embedding of a model.
SELECT chunk_id, model, count(*) AS embeddings
FROM embeddings
GROUP BY chunk_id, model
HAVING count(*) > 1;

-- name: embedding_shapes
-- An embedding has its model's dimensions, and is not zero where the distance is cosine.
SELECT e.chunk_id, e.model, vector_dims(e.embedding) AS dimensions, m.dimensions AS dimensions_of_model,
       vector_norm(e.embedding) AS norm
FROM embeddings e
LEFT JOIN models m USING (model)
WHERE m.dimensions IS DISTINCT FROM vector_dims(e.embedding)
   OR (m.distance = 'cosine' AND vector_norm(e.embedding) = 0);

-- name: dead_letters_of_chunks
-- Every dead letter has its chunk version, of its file, and there is no embedding beside it.
SELECT d.chunk_id, d.model, d.file, d.state, k.file AS file_of_chunk, e.chunk_id IS NOT NULL AS embedded
FROM dead_letters d
LEFT JOIN chunks k ON k.chunk_id = d.chunk_id
LEFT JOIN embeddings e ON e.chunk_id = d.chunk_id AND e.model = d.model
WHERE k.file IS DISTINCT FROM d.file
   OR e.chunk_id IS NOT NULL;

-- name: search_rows
-- Every row of a search table, a rebuild's too, has its chunk version in the collection and its embedding.
SELECT %(search_table)s::text AS search_table, s.chunk_id, f.collection AS collection_of_chunk,
       e.chunk_id IS NOT NULL AS embedded
FROM {search} s
LEFT JOIN chunks k ON k.chunk_id = s.chunk_id
LEFT JOIN files f ON f.file = k.file
LEFT JOIN embeddings e ON e.chunk_id = s.chunk_id AND e.model = %(model)s
WHERE f.collection IS DISTINCT FROM %(collection)s
   OR e.chunk_id IS NULL;

-- name: active_rows
-- Every row of an active table, a rebuild's too, has its chunk version, of its file.
SELECT %(active_table)s::text AS active_table, a.chunk_id, a.file, k.file AS file_of_chunk
FROM {active} a
LEFT JOIN chunks k ON k.chunk_id = a.chunk_id
WHERE k.file IS DISTINCT FROM a.file;

-- name: needed_chunks
-- Every chunk of a target or an open version has its embedding or a dead letter, once nothing is left to do.
WITH needed AS (
    SELECT DISTINCT f.collection, f.file, l.segment
    FROM files f
    JOIN versions v ON v.file = f.file
        AND (v.state = 'open' OR (v.version = f.target AND v.state = 'committed'))
    CROSS JOIN LATERAL unnest(v.segments) AS l (segment)
)
SELECT DISTINCT n.file, q.model, u.chunk_id
FROM needed n
JOIN unnest(%(drained_collections)s::integer[], %(drained_models)s::integer[]) AS q (collection, model)
    USING (collection)
JOIN segments s ON s.segment = n.segment
CROSS JOIN LATERAL unnest(s.chunks) AS u (chunk_id)
WHERE NOT EXISTS (
          SELECT FROM embeddings e
          WHERE e.chunk_id = u.chunk_id
            AND e.model = q.model
      )
  AND NOT EXISTS (
          SELECT FROM dead_letters d
          WHERE d.chunk_id = u.chunk_id
            AND d.model = q.model
      );

-- name: groups
-- Every model has its consumers' and its projectors' progress in every partition, not beyond the head.
SELECT g.consumer_group, t.partition, p.position, h.head
FROM (SELECT DISTINCT model FROM collection_models) AS m
CROSS JOIN LATERAL (VALUES ('embed:' || m.model), ('project:' || m.model)) AS g (consumer_group)
CROSS JOIN partitions t
LEFT JOIN progress p ON p.consumer_group = g.consumer_group AND p.partition = t.partition
LEFT JOIN LATERAL (
    SELECT max(e.last_offset) + 1 AS head
    FROM events e
    WHERE e.partition = t.partition
) AS h ON true
WHERE p.position IS NULL
   OR p.position > coalesce(h.head, 0);

-- name: active_manifests
-- The active table holds exactly the chunks of every file's active version.
WITH expected AS (
    SELECT DISTINCT a.file, u.chunk_id
    FROM active_versions a
    JOIN files f ON f.file = a.file AND f.collection = %(collection)s
    JOIN versions v ON v.file = a.file AND v.version = a.version
    CROSS JOIN LATERAL unnest(v.segments) AS l (segment)
    JOIN segments s ON s.segment = l.segment
    CROSS JOIN LATERAL unnest(s.chunks) AS u (chunk_id)
    WHERE a.model = %(model)s
)
SELECT %(active_table)s::text AS active_table, file, chunk_id,
       CASE WHEN a.chunk_id IS NULL THEN 'missing' ELSE 'in no active version' END AS problem
FROM expected x
FULL JOIN (SELECT file, chunk_id FROM {active}) AS a USING (file, chunk_id)
WHERE a.chunk_id IS NULL
   OR x.chunk_id IS NULL;

-- name: active_searchable
-- Every active chunk that has an embedding is in the search table.
SELECT %(search_table)s::text AS search_table, a.file, a.chunk_id
FROM {active} a
JOIN embeddings e ON e.chunk_id = a.chunk_id AND e.model = %(model)s
WHERE NOT EXISTS (
    SELECT FROM {search} s
    WHERE s.chunk_id = a.chunk_id
);

-- name: active_complete
-- An active chunk without an embedding has a dead letter, or had a discarded one that was taken back.
SELECT a.file, %(model)s::integer AS model, a.chunk_id
FROM {active} a
WHERE NOT EXISTS (
          SELECT FROM embeddings e
          WHERE e.chunk_id = a.chunk_id
            AND e.model = %(model)s
      )
  AND NOT EXISTS (
          SELECT FROM dead_letters d
          WHERE d.chunk_id = a.chunk_id
            AND d.model = %(model)s
      )
  AND NOT EXISTS (
          SELECT FROM events e
          WHERE e.type = 'dead_letter_retried'
            AND e.file = a.file
            AND (e.data ->> 'model')::integer = %(model)s
            AND (e.data ->> 'chunk')::bigint = a.chunk_id
      );

-- name: search_tables
-- The search and active tables of every model of a collection are there.
SELECT cm.collection, cm.model, t.search_table, t.active_table
FROM collection_models cm
CROSS JOIN LATERAL search_tables(cm.collection) AS t
WHERE t.model = cm.model
  AND (to_regclass(quote_ident(t.search_table)) IS NULL OR to_regclass(quote_ident(t.active_table)) IS NULL);

-- name: activations
-- A file's active version goes backwards only after a rollback to just that version.
SELECT a.partition, a.last_offset, a.file, a.model, a.version, a.previous
FROM (
    SELECT partition, last_offset, file, (data ->> 'model')::integer AS model, version,
           lag(version) OVER log AS previous,
           lag(last_offset) OVER log AS previous_offset
    FROM events
    WHERE type = 'version_activated'
    WINDOW log AS (PARTITION BY file, data ->> 'model' ORDER BY last_offset)
) AS a
WHERE a.version <= a.previous
  AND NOT EXISTS (
      SELECT FROM events e
      WHERE e.type = 'target_changed'
        AND e.file = a.file
        AND e.version = a.version
        AND e.last_offset BETWEEN a.previous_offset AND a.last_offset
  );

-- name: lease_ranges
-- The ranges that a group has claimed in a partition do not overlap, and end within the log.
SELECT l.consumer_group, l.partition, l.lo, l.hi, l.next_lo, h.head
FROM (
    SELECT consumer_group, partition, lo, hi,
           lead(lo) OVER (PARTITION BY consumer_group, partition ORDER BY lo) AS next_lo
    FROM leases
) AS l
LEFT JOIN (
    SELECT p.partition, max(e.last_offset) + 1 AS head
    FROM partitions p
    JOIN events e ON e.partition = p.partition
    GROUP BY p.partition
) AS h USING (partition)
WHERE l.hi > l.next_lo
   OR l.hi > coalesce(h.head, 0);

-- name: leases_in_reach
-- An unfinished range is not below its group's frontier, where nobody would claim it again.
SELECT l.consumer_group, l.partition, l.lo, l.hi, p.position
FROM leases l
LEFT JOIN progress p USING (consumer_group, partition)
WHERE (p.position IS NULL OR l.lo < p.position)
  AND NOT EXISTS (
      SELECT FROM done d
      WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
  );

-- name: done_marks
-- Every done mark has the range that it marks.
SELECT d.consumer_group, d.partition, d.lo
FROM done d
WHERE NOT EXISTS (
    SELECT FROM leases l
    WHERE (l.consumer_group, l.partition, l.lo) = (d.consumer_group, d.partition, d.lo)
);

-- name: kept_versions
-- Latest, target, active and pinned versions are committed and uncollected.
SELECT k.file, k.version, k.role, v.state
FROM (
    SELECT file, latest AS version, 'latest' AS role
    FROM files
    WHERE latest > 0
    UNION ALL
    SELECT file, target, 'target'
    FROM files
    WHERE target > 0
    UNION ALL
    SELECT file, version, 'active'
    FROM active_versions
    WHERE version IS NOT NULL
    UNION ALL
    SELECT file, version, 'pinned'
    FROM versions
    WHERE pinned
) AS k
LEFT JOIN versions v USING (file, version)
WHERE v.state IS DISTINCT FROM 'committed';

-- name: removals
-- A collected or abandoned version was decided on in the log, and no collected one was to be retained.
SELECT v.file, v.version, v.state, v.newer, c.keep_last, c.keep_for, v.committed_at,
       e.recorded_at AS decided_at
FROM (
    SELECT file, version, state, committed_at,
           count(*) FILTER (WHERE state = 'committed') OVER (PARTITION BY file ORDER BY version DESC) AS newer
    FROM versions
) AS v
JOIN files f ON f.file = v.file
JOIN collections c ON c.collection = f.collection
LEFT JOIN events e ON e.partition = f.partition
    AND e.type = 'version_' || v.state
    AND e.file = v.file
    AND e.version = v.version
WHERE v.state IN ('abandoned', 'collected')
  AND (
      e.recorded_at IS NULL
      OR (v.state = 'collected' AND (v.newer < c.keep_last OR e.recorded_at - v.committed_at < c.keep_for))
  );

-- name: orphan_chunks
-- Every chunk version is named by a segment of its file.
SELECT k.file, k.chunk_id
FROM chunks k
WHERE NOT EXISTS (
    SELECT FROM (SELECT s.file, unnest(s.chunks) AS chunk_id FROM segments s) AS n
    WHERE n.file = k.file
      AND n.chunk_id = k.chunk_id
);

-- name: orphan_segments
-- Every segment is listed by a version of its file, be it one that waits for the collector.
SELECT s.file, s.segment
FROM segments s
WHERE NOT EXISTS (
    SELECT FROM (SELECT v.file, unnest(v.segments) AS segment FROM versions v) AS l
    WHERE l.file = s.file
      AND l.segment = s.segment
);

-- name: to_collect
-- Versions that are collected, abandoned or past their deadline, and wait for the collector.
SELECT file, version, state, chunks, deadline
FROM versions
WHERE (state IN ('abandoned', 'collected') AND segments <> '{}')
   OR (state = 'open' AND deadline < clock_timestamp());

-- name: superseded_search_rows
-- Search rows that are neither active, target nor open, and slow searches down a little.
SELECT %(search_table)s::text AS search_table, k.file, s.chunk_id
FROM {search} s
JOIN chunks k ON k.chunk_id = s.chunk_id
WHERE NOT EXISTS (
          SELECT FROM {active} a
          WHERE a.chunk_id = s.chunk_id
      )
  AND NOT EXISTS (
          SELECT FROM (
              SELECT unnest(g.chunks) AS chunk_id
              FROM segments g
              JOIN (
                  SELECT DISTINCT unnest(v.segments) AS segment
                  FROM versions v
                  JOIN files f ON f.file = v.file AND f.collection = %(collection)s
                  WHERE v.state = 'open' OR v.version = f.target
              ) AS l USING (segment)
          ) AS needed
          WHERE needed.chunk_id = s.chunk_id
      );

-- name: replay
-- What is active is what the log activated last.
WITH replayed AS (
    SELECT DISTINCT ON (e.file, e.data ->> 'model')
           e.file, (e.data ->> 'model')::integer AS model, e.version
    FROM events e
    JOIN files f ON f.file = e.file AND f.key IS NOT NULL
    WHERE e.type = 'version_activated'
    ORDER BY e.file, e.data ->> 'model', e.last_offset DESC
)
SELECT file, model, a.version AS active, r.version AS replayed
FROM replayed r
FULL JOIN (SELECT file, model, version FROM active_versions WHERE version IS NOT NULL) AS a
    USING (file, model)
WHERE a.version IS DISTINCT FROM r.version;

-- name: search_vectors
-- The vectors of a search table, a rebuild's too, are the embeddings in half precision.
SELECT %(search_table)s::text AS search_table, s.chunk_id
FROM {search} s
JOIN embeddings e ON e.chunk_id = s.chunk_id AND e.model = %(model)s
WHERE e.embedding::halfvec <> s.embedding;

-- name: invalid_indexes
-- Vector indexes that a failed build left and nobody builds just now; searches are exact meanwhile.
SELECT t.relname AS search_table, i.relname AS index_name
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_am m ON m.oid = i.relam AND m.amname = 'hnsw'
WHERE t.relnamespace = quote_ident(current_schema())::regnamespace
  AND NOT x.indisvalid
  AND NOT EXISTS (
      SELECT FROM pg_locks k
      WHERE k.relation = t.oid
        AND k.mode = 'ShareUpdateExclusiveLock'
        AND k.granted
        AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  );

-- name: erased_files
-- Nothing of an erased file is left but its number.
WITH erased AS (
    SELECT file, latest, target
    FROM files
    WHERE key IS NULL
)
SELECT 'files' AS table_name, file, latest + target AS rows
FROM erased
WHERE (latest, target) <> (0, 0)
UNION ALL
SELECT 'versions', file, count(*)
FROM erased
JOIN versions USING (file)
GROUP BY file
UNION ALL
SELECT 'segments', file, count(*)
FROM erased
JOIN segments USING (file)
GROUP BY file
UNION ALL
SELECT 'idempotency_keys', file, count(*)
FROM erased
JOIN idempotency_keys USING (file)
GROUP BY file
UNION ALL
SELECT 'sources', file, count(*)
FROM erased
JOIN sources USING (file)
GROUP BY file
UNION ALL
SELECT 'chunks', file, count(*)
FROM erased
JOIN chunks USING (file)
GROUP BY file
UNION ALL
SELECT 'dead_letters', file, count(*)
FROM erased
JOIN dead_letters USING (file)
GROUP BY file
UNION ALL
SELECT 'active_versions', file, count(*)
FROM erased
JOIN active_versions USING (file)
GROUP BY file;

-- name: erased_members
-- No active table holds a chunk of an erased file.
SELECT %(active_table)s::text AS active_table, a.file, a.chunk_id
FROM {active} a
JOIN files f ON f.file = a.file AND f.key IS NULL;

-- name: erasures
-- The files without a key are those that the log says were erased.
SELECT file, f.file IS NOT NULL AS erased, e.file IS NOT NULL AS logged
FROM (SELECT file FROM files WHERE key IS NULL) AS f
FULL JOIN (SELECT DISTINCT file FROM events WHERE type = 'file_erased') AS e USING (file)
WHERE f.file IS NULL
   OR e.file IS NULL;

-- name: no_samples
-- The server keeps no samples of content, keys, metadata, hashes, vectors or error texts.
SELECT w.table_name, w.column_name, a.attstattarget AS statistics, s.attname IS NOT NULL AS samples
FROM (
    VALUES
        ('collections', 'salt'), ('files', 'key'), ('versions', 'metadata'), ('versions', 'digest'), ('segments', 'hashes'),
        ('segments', 'digest'), ('idempotency_keys', 'key'), ('idempotency_keys', 'digest'), ('chunks', 'hash'),
        ('chunks', 'text_hash'), ('chunks', 'content'), ('chunks', 'metadata'), ('embeddings', 'embedding'),
        ('dead_letters', 'error'), ('sources', 'size'), ('sources', 'mtime_ns'), ('sources', 'hash')
    UNION ALL
    SELECT t.search_table, 'embedding'
    FROM collections c
    CROSS JOIN LATERAL search_tables(c.collection) AS t
) AS w (table_name, column_name)
JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(w.table_name)) AND a.attname = w.column_name
LEFT JOIN pg_stats s ON s.schemaname = current_schema()
    AND s.tablename = w.table_name
    AND s.attname = w.column_name
WHERE a.attstattarget IS DISTINCT FROM 0
   OR s.attname IS NOT NULL;

-- name: vector_tables
-- Every table that holds vectors is one that an erasure lists.
SELECT t.relname AS table_name, a.attname AS column_name
FROM pg_class t
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid AND y.typname IN ('vector', 'halfvec')
WHERE t.relnamespace = quote_ident(current_schema())::regnamespace
  AND t.relkind IN ('r', 'p', 'm')
  AND t.relname <> 'embeddings'
  AND t.relname NOT IN (
      SELECT s.search_table
      FROM collections c
      CROSS JOIN LATERAL search_tables(c.collection) AS s
  );

-- name: active_targets
-- Every file's target is active or has an open dead letter, once nothing is left to do.
SELECT f.file, q.model, f.target, a.version AS active, a.cursor
FROM files f
JOIN unnest(%(drained_collections)s::integer[], %(drained_models)s::integer[]) AS q (collection, model)
    USING (collection)
JOIN versions v ON v.file = f.file AND v.version = f.target
LEFT JOIN active_versions a ON a.file = f.file AND a.model = q.model
WHERE a.version IS DISTINCT FROM f.target
  AND NOT EXISTS (
      SELECT FROM dead_letters d
      JOIN segments s ON s.file = d.file
          AND s.min_chunk <= d.chunk_id
          AND s.max_chunk >= d.chunk_id
          AND d.chunk_id = ANY (s.chunks)
      WHERE d.file = f.file
        AND d.model = q.model
        AND d.state = 'open'
        AND s.segment = ANY (v.segments)
  );
