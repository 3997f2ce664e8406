-- name: tables
-- The search tables of a model, with whether their index is valid, and what killed rebuilds left beside it.
SELECT cm.collection, cm.model, m.dimensions, m.distance, cm.search_table,
       coalesce(bool_or(x.indisvalid) FILTER (WHERE i.relname = cm.search_table || '_hnsw'), false) AS valid,
       coalesce(
           array_agg(i.relname::text) FILTER (WHERE i.relname <> cm.search_table || '_hnsw' OR NOT x.indisvalid),
           '{}'
       )
           AS leftovers,
       -- The server counts afresh after a crash; what it last measured tells of rows that it does not count then.
       greatest(
           coalesce(pg_stat_get_live_tuples(t.oid), 0),
           t.reltuples::bigint - coalesce(pg_stat_get_dead_tuples(t.oid), 0)
       ) AS live,
       coalesce(pg_stat_get_dead_tuples(t.oid), 0) AS dead,
       pg_has_role(t.relowner, 'USAGE') AS own,
       CASE
           WHEN pg_has_role(t.relowner, 'USAGE') THEN true
           WHEN current_setting('server_version_num')::integer < 170000 THEN false
           ELSE has_table_privilege(t.oid, 'MAINTAIN')
       END AS maintained
FROM collection_models cm
JOIN models m USING (model)
JOIN pg_class t ON t.oid = to_regclass(quote_ident(cm.search_table))
LEFT JOIN (
    pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am am ON am.oid = i.relam AND am.amname = 'hnsw'
) ON x.indrelid = t.oid
WHERE %(model)s::integer IS NULL OR cm.model = %(model)s
GROUP BY cm.collection, cm.model, m.dimensions, m.distance, cm.search_table, t.oid, t.relowner, t.reltuples
ORDER BY cm.collection, cm.model;

-- name: count_up_to
-- How many rows a search table has, counted no further than the limit.
SELECT count(*)
FROM (SELECT FROM {search} LIMIT %(limit)s) AS counted;

-- name: try_lock
-- One builder an index at a time, in the whole database. The server goes on building for a builder that was
-- killed, whose lock is free then: what a build, a rebuild or a vacuum holds on the table, or the one made beside
-- it, tells of that one.
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.' || %(index)s, 0))
       AND NOT EXISTS (
           SELECT FROM pg_locks
           WHERE locktype = 'relation'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND relation IN (
                 to_regclass(quote_ident(%(table)s)), to_regclass(quote_ident(%(table)s || '_rebuild'))
             )
             AND mode = 'ShareUpdateExclusiveLock'
             AND granted
       );

-- name: waiting_chunks
-- How many chunks of a group wait to be embedded, counted no further than the limit.
SELECT count(*)
FROM (
    SELECT
    FROM progress p
    CROSS JOIN LATERAL claimed_position(p.consumer_group, p.partition) AS c (position)
    JOIN events e ON e.partition = p.partition
        AND e.last_offset >= c.position
        AND e.type = 'chunks_appended'
    CROSS JOIN LATERAL generate_series(greatest(e.last_offset - e.n + 1, c.position), e.last_offset)
    WHERE p.consumer_group = %(group)s
    LIMIT %(limit)s
) AS counted;

-- name: drop_index
DROP INDEX CONCURRENTLY IF EXISTS {index};

-- name: drop_leftovers
-- Drops what killed rebuilds left beside a table's index, for a role that does not own the table.
SELECT drop_leftovers(%(table)s);

-- name: leave_index_to_collector
-- Vacuum leaves the index alone.
SELECT leave_index_to_collector(%(table)s);

-- name: create_index
-- Built beside the writers; half a gigabyte keeps the graph of some 500,000 short vectors in memory.
CREATE INDEX CONCURRENTLY {index} ON {search} USING hnsw (embedding {operators});

-- name: build_index
-- Builds the index for a role that does not own the table; false where there is one.
SELECT build_index(%(table)s);

-- name: rebuild_index
REINDEX INDEX CONCURRENTLY {index};

-- name: vacuum
-- The rebuilt index names no dead row any more, so that cleaning it is one cheap pass.
VACUUM (INDEX_CLEANUP ON, ANALYZE) {search};
