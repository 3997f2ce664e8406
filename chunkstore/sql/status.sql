-- name: collections
-- What every collection holds: files by their latest version, the versions that are kept, and places.
SELECT c.collection, c.name, coalesce(f.files, 0) AS files, coalesce(f.deleted, 0) AS deleted,
       coalesce(v.versions, 0) AS versions, coalesce(v.open, 0) AS open, coalesce(f.chunks, 0) AS chunks
FROM collections c
LEFT JOIN (
    SELECT f.collection, count(*) FILTER (WHERE NOT v.tombstone) AS files,
           count(*) FILTER (WHERE v.tombstone) AS deleted, sum(v.chunks)::bigint AS chunks
    FROM files f
    JOIN versions v ON v.file = f.file AND v.version = f.latest
    GROUP BY f.collection
) AS f USING (collection)
LEFT JOIN (
    SELECT f.collection, count(*) FILTER (WHERE v.state = 'committed') AS versions,
           count(*) FILTER (WHERE v.state = 'open') AS open
    FROM files f
    JOIN versions v ON v.file = f.file
    GROUP BY f.collection
) AS v USING (collection)
ORDER BY c.name;

-- name: models
-- Where every collection stands with each of its models, the serving one first.
-- An index that is invalid while somebody holds the lock of a build is being built, else it is broken.
SELECT cm.collection, m.name, m.dimensions, m.distance, cm.model = c.serving AS serving,
       coalesce(f.active, 0) AS active, coalesce(f.waiting, 0) AS waiting, f.stale_since,
       coalesce(d.failed, 0) AS failed, coalesce(d.discarded, 0) AS discarded,
       CASE
           WHEN i.valid THEN 'ready'
           WHEN i.valid IS NULL THEN 'none'
           WHEN EXISTS (
               SELECT FROM pg_locks k
               WHERE k.relation = to_regclass(quote_ident(cm.search_table))
                 AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND k.mode = 'ShareUpdateExclusiveLock'
                 AND k.granted
           ) THEN 'building'
           ELSE 'broken'
       END AS index,
       cm.backfilled IS NOT NULL AS backfilling, cm.rebuilding,
       coalesce(pg_total_relation_size(to_regclass(quote_ident(cm.search_table))), 0)
           + coalesce(pg_total_relation_size(to_regclass(quote_ident(cm.active_table))), 0) AS bytes
FROM collection_models cm
JOIN collections c USING (collection)
JOIN models m USING (model)
LEFT JOIN (
    SELECT f.collection, cm.model,
           count(*) FILTER (WHERE a.version = f.target AND NOT t.tombstone) AS active,
           count(*) FILTER (WHERE a.version IS DISTINCT FROM f.target) AS waiting,
           min(CASE
               WHEN f.target > coalesce(a.version, 0) THEN (
                   SELECT min(v.committed_at)
                   FROM versions v
                   WHERE v.file = f.file
                     AND v.version > coalesce(a.version, 0)
               )
               WHEN f.target < a.version THEN (  -- rolled back
                   SELECT max(e.recorded_at)
                   FROM events e
                   WHERE e.partition = f.partition
                     AND e.type = 'target_changed'
                     AND e.file = f.file
                     AND e.version = f.target
               )
           END) AS stale_since
    FROM files f
    JOIN collection_models cm USING (collection)
    JOIN versions t ON t.file = f.file AND t.version = f.target
    LEFT JOIN active_versions a ON a.file = f.file AND a.model = cm.model
    GROUP BY f.collection, cm.model
) AS f ON f.collection = cm.collection AND f.model = cm.model
LEFT JOIN (
    SELECT f.collection, d.model, count(*) FILTER (WHERE d.state = 'open') AS failed,
           count(*) FILTER (WHERE d.state = 'discarded') AS discarded
    FROM dead_letters d
    JOIN files f USING (file)
    GROUP BY f.collection, d.model
) AS d ON d.collection = cm.collection AND d.model = cm.model
LEFT JOIN LATERAL (
    SELECT bool_or(x.indisvalid) AS valid
    FROM pg_index x
    JOIN pg_class r ON r.oid = x.indexrelid
    JOIN pg_am h ON h.oid = r.relam AND h.amname = 'hnsw'
    WHERE x.indrelid = to_regclass(quote_ident(cm.search_table))
) AS i ON true
ORDER BY cm.collection, NOT cm.model = c.serving, m.name;

-- name: shared_groups
-- How many chunks the consumers of every model have not finished, and since when the oldest waits.
SELECT p.consumer_group AS name, m.name AS model,
       (sum(coalesce(unclaimed.chunks, 0)) + sum(coalesce(claimed.chunks, 0)))::bigint AS lag,
       sum(coalesce(claimed.chunks, 0))::bigint AS in_flight,
       sum(coalesce(claimed.leases, 0))::bigint AS leases,
       least(min(unclaimed.oldest), min(claimed.oldest)) AS oldest
FROM models m
JOIN progress p ON p.consumer_group = 'embed:' || m.model
CROSS JOIN LATERAL claimed_position(p.consumer_group, p.partition) AS c (position)
LEFT JOIN LATERAL (
    SELECT sum(e.last_offset + 1 - greatest(e.last_offset - e.n + 1, c.position)) AS chunks,
           min(e.recorded_at) AS oldest
    FROM events e
    WHERE e.partition = p.partition
      AND e.last_offset >= c.position
      AND e.type = 'chunks_appended'
) AS unclaimed ON true
LEFT JOIN LATERAL (
    SELECT sum(least(e.last_offset + 1, l.hi) - greatest(e.last_offset - e.n + 1, l.lo)) AS chunks,
           count(DISTINCT l.lo) FILTER (WHERE l.owner IS NOT NULL AND l.expires > clock_timestamp()) AS leases,
           min(e.recorded_at) AS oldest
    FROM leases l
    JOIN events e ON e.partition = l.partition
        AND e.last_offset >= l.lo
        AND e.last_offset < l.hi + 1024
        AND e.last_offset - e.n + 1 < l.hi
        AND e.type = 'chunks_appended'
    WHERE l.consumer_group = p.consumer_group
      AND l.partition = p.partition
      AND NOT EXISTS (
          SELECT FROM done d
          WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
      )
) AS claimed ON true
GROUP BY p.consumer_group, m.model, m.name
ORDER BY m.model;

-- name: ordered_groups
-- How many offsets every model's projector is behind the heads, and since when the oldest event waits.
SELECT p.consumer_group AS name, m.name AS model, sum(h.head - p.position)::bigint AS lag, 0::bigint AS in_flight,
       count(*) FILTER (WHERE p.expires > clock_timestamp()) AS leases, min(n.recorded_at) AS oldest
FROM models m
JOIN progress p ON p.consumer_group = 'project:' || m.model
CROSS JOIN LATERAL (
    SELECT coalesce(max(e.last_offset) + 1, 0) AS head
    FROM events e
    WHERE e.partition = p.partition
) AS h
LEFT JOIN LATERAL (
    SELECT e.recorded_at
    FROM events e
    WHERE e.partition = p.partition
      AND e.last_offset >= p.position
    ORDER BY e.last_offset
    LIMIT 1
) AS n ON true
GROUP BY p.consumer_group, m.model, m.name
ORDER BY m.model;

-- name: waiting_chunks
-- How many embeddings a collection's files lack until searches see their targets.
SELECT coalesce(sum(lacking), 0)::bigint
FROM waiting
WHERE collection = %(collection)s;

-- name: log
-- How many partitions the log has, and how many offsets, which are dense.
SELECT count(*) AS partitions, coalesce(sum(h.head), 0)::bigint AS offsets
FROM partitions p
CROSS JOIN LATERAL (
    SELECT coalesce(max(e.last_offset) + 1, 0) AS head
    FROM events e
    WHERE e.partition = p.partition
) AS h;

-- name: sizes
-- What the tables take on disk with their indexes, in bytes.
SELECT coalesce(sum(bytes) FILTER (WHERE part = 'log'), 0)::bigint AS log,
       coalesce(sum(bytes) FILTER (WHERE part = 'chunks'), 0)::bigint AS chunks,
       coalesce(sum(bytes) FILTER (WHERE part = 'manifests'), 0)::bigint AS manifests,
       coalesce(sum(bytes) FILTER (WHERE part = 'embeddings'), 0)::bigint AS embeddings,
       coalesce(sum(bytes) FILTER (WHERE part = 'projections'), 0)::bigint AS projections,
       coalesce(sum(bytes), 0)::bigint AS total
FROM (
    SELECT CASE
               WHEN c.relname = 'events' THEN 'log'
               WHEN c.relname = 'chunks' THEN 'chunks'
               WHEN c.relname = 'embeddings' THEN 'embeddings'
               WHEN c.relname IN ('files', 'versions', 'segments') THEN 'manifests'
               WHEN c.relname ~ '^(search|active)_' THEN 'projections'
           END AS part,
           pg_total_relation_size(c.oid) AS bytes
    FROM pg_class c
    WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
      AND c.relkind IN ('r', 'm')
) AS tables;
