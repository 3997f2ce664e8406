-- The steps that work under a file's lock before anything is embedded: get or create it, read its manifests.
-- Lock order: see docs/architecture.md.

-- Returns the file of a key, created if it is new, under its lock.
-- Insert, then select in a new statement (rule 2). A key that an erasure takes while this waits for the
-- lock is not found by the re-check of the locked row, and the loop makes a new file (rule 6).
CREATE FUNCTION lock_file(_collection integer, _key text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _file bigint;
BEGIN
    PERFORM require_read_committed();
    LOOP
        SELECT file INTO _file
        FROM files
        WHERE collection = _collection AND key = _key
        FOR NO KEY UPDATE;
        IF FOUND THEN
            RETURN _file;
        END IF;

        INSERT INTO files (collection, key, partition)
        SELECT _collection, _key,
               (hashtextextended(_key, _collection) & 2147483647) % (SELECT count(*) FROM partitions)
        ON CONFLICT (collection, key) DO NOTHING;
    END LOOP;
END
$$;

-- The segments of the versions that may still become searchable: the target and the open ones (rule 10).
CREATE FUNCTION needed_segments(_file bigint) RETURNS bigint[]
STABLE LANGUAGE sql AS $$
    SELECT coalesce(array_agg(DISTINCT s.segment), '{}')
    FROM files f
    JOIN versions v ON v.file = f.file AND (v.state = 'open' OR v.version = f.target)
    CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
    WHERE f.file = _file
$$;

-- Those of `_chunks` that one of the segments names. A few are looked up by id range, many are hashed.
CREATE FUNCTION named_by(_file bigint, _segments bigint[], _chunks bigint[]) RETURNS bigint[]
STABLE LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    _least    bigint;
    _greatest bigint;
BEGIN
    IF cardinality(_chunks) <= 64 THEN
        RETURN (
            SELECT coalesce(array_agg(DISTINCT c.chunk_id), '{}')
            FROM unnest(_chunks) AS c (chunk_id)
            WHERE EXISTS (
                SELECT FROM segments s
                WHERE s.file = _file AND s.min_chunk <= c.chunk_id AND s.max_chunk >= c.chunk_id
                  AND s.segment = ANY (_segments)
                  AND c.chunk_id = ANY (s.chunks)
            )
        );
    END IF;
    SELECT min(c), max(c) INTO _least, _greatest FROM unnest(_chunks) AS c;
    RETURN (
        SELECT coalesce(array_agg(DISTINCT c.chunk_id), '{}')
        FROM unnest(_chunks) AS c (chunk_id)
        JOIN (
            SELECT unnest(s.chunks)
            FROM segments s
            WHERE s.segment = ANY (_segments) AND s.max_chunk >= _least AND s.min_chunk <= _greatest
        ) AS named (chunk_id) USING (chunk_id)
    );
END
$$;

-- The chunks that some of the models have neither embedded nor been told to do without, among `_chunks`
-- and the segments' chunks. A segment that the model's active version lists is complete (rules 8 and 16), and
-- so are `_chunks` where all of them are in `_found_in` and it lists all of those.
CREATE FUNCTION unembedded(
    _file bigint, _segments bigint[], _chunks bigint[], _found_in bigint[], _models integer[]
) RETURNS bigint[]
STABLE LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN (
        SELECT coalesce(array_agg(DISTINCT c.chunk_id ORDER BY c.chunk_id), '{}')
        FROM unnest(_models) AS m (model)
        CROSS JOIN LATERAL (
            SELECT ARRAY(
                SELECT unnest(v.segments)
                FROM active_versions a
                JOIN versions v ON v.file = a.file AND v.version = a.version
                WHERE a.file = _file AND a.model = m.model
            ) AS segments
            OFFSET 0
        ) AS active
        CROSS JOIN LATERAL (
            SELECT ARRAY(
                SELECT d.chunk_id
                FROM dead_letters d
                WHERE d.file = _file AND d.model = m.model AND d.state = 'open'
            ) AS chunks
            OFFSET 0
        ) AS given_up
        CROSS JOIN LATERAL (
            SELECT unnest(s.chunks)
            FROM segments s
            WHERE s.segment = ANY (ARRAY(
                SELECT unnest(_segments)
                EXCEPT
                SELECT unnest(active.segments)
            ))
            UNION ALL
            SELECT unnest(_chunks)
            WHERE _found_in = '{}' OR EXISTS (SELECT unnest(_found_in) EXCEPT SELECT unnest(active.segments))
            UNION ALL
            -- Taken back after it had become active without its vector, and given up again.
            SELECT unnest(named_by(_file, _segments, given_up.chunks))
            UNION ALL
            SELECT unnest(given_up.chunks) INTERSECT SELECT unnest(_chunks)
        ) AS c (chunk_id)
        WHERE NOT EXISTS (
                  SELECT FROM embeddings e
                  WHERE e.chunk_id = c.chunk_id AND e.model = m.model
              )
          AND NOT EXISTS (
                  SELECT FROM dead_letters d
                  WHERE d.chunk_id = c.chunk_id AND d.model = m.model AND d.state = 'discarded'
              )
    );
END
$$;

-- Every pair of tables that holds vectors or membership of a collection, a rebuild's included (rule 20).
CREATE FUNCTION search_tables(_collection integer)
RETURNS TABLE (model integer, search_table text, active_table text)
STABLE LANGUAGE sql AS $$
    SELECT cm.model, cm.search_table || suffix, cm.active_table || suffix
    FROM collection_models cm
    CROSS JOIN LATERAL unnest(CASE WHEN cm.rebuilding THEN ARRAY['', '_rebuild'] ELSE ARRAY[''] END) AS suffix
    WHERE cm.collection = _collection
$$;
