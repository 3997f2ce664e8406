-- The steps that work under a file's lock: get or create it, switch what is active, remove what is
-- superseded, sweep what was collected, erase. Lock order: see docs/architecture.md.

-- --- files and manifests -----------------------------------------------------------------------

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
-- and the segments' chunks. A segment that the model's active version lists is complete (rules 8 and 16).
CREATE FUNCTION unembedded(_file bigint, _segments bigint[], _chunks bigint[], _models integer[])
RETURNS bigint[]
STABLE LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN (
        SELECT coalesce(array_agg(DISTINCT c.chunk_id ORDER BY c.chunk_id), '{}')
        FROM unnest(_models) AS m (model)
        CROSS JOIN LATERAL (
            SELECT unnest(s.chunks)
            FROM segments s
            WHERE s.segment = ANY (ARRAY(
                SELECT unnest(_segments)
                EXCEPT
                SELECT unnest(v.segments)
                FROM active_versions a
                JOIN versions v ON v.file = a.file AND v.version = a.version
                WHERE a.file = _file AND a.model = m.model
            ))
            UNION ALL
            SELECT unnest(_chunks)
            UNION ALL
            -- Taken back after its segment had become active without it, and given up again.
            SELECT unnest(named_by(_file, _segments, ARRAY(
                SELECT d.chunk_id
                FROM dead_letters d
                WHERE d.file = _file AND d.model = m.model AND d.state = 'open'
            )))
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

-- --- embeddings --------------------------------------------------------------------------------

-- Stores one batch of vectors by exact chunk version, in one transaction with the lease (invariant 8).
-- `_vectors` holds one for each of `_chunks`; `_finished` marks the range done.
-- Returns the chunks that were new.
CREATE FUNCTION complete(
    _group text, _partition integer, _lo bigint, _epoch integer,
    _model integer, _chunks bigint[], _vectors vector[], _finished boolean
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    _existing bigint[];
    _new      bigint[];
    _files    bigint[];
BEGIN
    PERFORM lock_lease(_group, _partition, _lo, _epoch);
    IF cardinality(_chunks) > 0 THEN
        -- A chunk that was collected or erased meanwhile is not there to lock, and its vector is dropped.
        SELECT coalesce(array_agg(locked.chunk_id), '{}')
        INTO _existing
        FROM (
            SELECT chunk_id FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR KEY SHARE
        ) AS locked;

        WITH stored AS (
            INSERT INTO embeddings (chunk_id, model, embedding)
            SELECT c.chunk_id, _model, c.embedding
            FROM unnest(_chunks, _vectors) AS c (chunk_id, embedding)
            WHERE c.chunk_id = ANY (_existing)
            ORDER BY c.chunk_id
            ON CONFLICT DO NOTHING
            RETURNING chunk_id
        )
        SELECT coalesce(array_agg(chunk_id ORDER BY chunk_id), '{}') INTO _new FROM stored;

        DELETE FROM dead_letters WHERE chunk_id = ANY (_existing) AND model = _model;
    END IF;
    IF cardinality(_new) > 0 THEN
        PERFORM stage_search_rows(_model, _new);
        SELECT array_agg(DISTINCT file) INTO _files FROM chunks WHERE chunk_id = ANY (_new);
        PERFORM append_events(_partition, jsonb_build_array(jsonb_build_object(
            'type', 'chunks_embedded',
            'chunks', _new,
            'data', jsonb_build_object('model', _model, 'files', _files)
        )));
    END IF;
    IF _finished THEN
        PERFORM mark_done(_group, _partition, _lo);
    END IF;
    RETURN coalesce(_new, '{}');
END
$$;

-- Copies the vectors of chunks that the caller has locked into their collections' search tables.
CREATE FUNCTION stage_search_rows(_model integer, _chunks bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _tables record;
BEGIN
    FOR _tables IN
        SELECT cm.search_table, array_agg(c.chunk_id) AS chunks
        FROM chunks c
        JOIN files f ON f.file = c.file
        JOIN collection_models cm ON cm.collection = f.collection AND cm.model = _model
        WHERE c.chunk_id = ANY (_chunks)
        GROUP BY cm.search_table
        ORDER BY cm.search_table
    LOOP
        EXECUTE format(
            'INSERT INTO %I (chunk_id, embedding)
             SELECT chunk_id, embedding FROM embeddings WHERE chunk_id = ANY ($1) AND model = $2
             ORDER BY chunk_id ON CONFLICT DO NOTHING', _tables.search_table
        ) USING _tables.chunks, _model;
    END LOOP;
END
$$;

-- Gives a chunk up. Under its lock a fresh look must find no embedding (rules 11 and 13).
CREATE FUNCTION dead_letter(
    _group text, _partition integer, _lo bigint, _epoch integer,
    _model integer, _chunk bigint, _attempts integer, _error text
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _file     bigint;
    _given_up boolean := false;
BEGIN
    PERFORM lock_lease(_group, _partition, _lo, _epoch);
    SELECT file INTO _file FROM chunks WHERE chunk_id = _chunk FOR UPDATE;
    IF FOUND AND NOT EXISTS (SELECT FROM embeddings WHERE chunk_id = _chunk AND model = _model) THEN
        INSERT INTO dead_letters AS d (chunk_id, model, file, attempts, error)
        VALUES (_chunk, _model, _file, _attempts, _error)
        ON CONFLICT (chunk_id, model) DO UPDATE
        SET attempts = d.attempts + EXCLUDED.attempts, error = EXCLUDED.error, failed_at = clock_timestamp()
        WHERE d.state = 'open';
        PERFORM append_events(_partition, jsonb_build_array(jsonb_build_object(
            'type', 'embedding_failed',
            'file', _file,
            'data', jsonb_build_object('model', _model, 'chunk', _chunk)
        )));
        _given_up := true;
    END IF;
    PERFORM mark_done(_group, _partition, _lo);
    RETURN _given_up;
END
$$;

-- --- activation (rules 15 to 18) ---------------------------------------------------------------

-- The ordinal of the first chunk from `_cursor` on that the model lacks; `_end` if there is none.
-- Segments that the active version lists too are complete and skipped whole (rule 16).
CREATE FUNCTION first_incomplete(
    _model integer, _segments bigint[], _bases integer[], _shared bigint[], _cursor integer, _end integer
) RETURNS integer
STABLE LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    _segment record;
    _first   integer;
BEGIN
    FOR _segment IN
        SELECT t.segment, t.base
        FROM unnest(_segments, _bases, _bases[2:]) AS t (segment, base, next_base)
        WHERE coalesce(t.next_base, _end) > _cursor AND t.segment <> ALL (_shared)
        ORDER BY t.base
    LOOP
        SELECT min(_segment.base + c.i - 1)
        INTO _first
        FROM segments s
        CROSS JOIN LATERAL unnest(s.chunks) WITH ORDINALITY AS c (chunk_id, i)
        WHERE s.segment = _segment.segment AND _segment.base + c.i - 1 >= _cursor
          AND NOT EXISTS (
              SELECT FROM embeddings e
              WHERE e.chunk_id = c.chunk_id AND e.model = _model
          )
          AND NOT EXISTS (
              SELECT FROM dead_letters d
              WHERE d.chunk_id = c.chunk_id AND d.model = _model AND d.state = 'discarded'
          );
        IF _first IS NOT NULL THEN
            RETURN _first;
        END IF;
    END LOOP;
    RETURN _end;
END
$$;

-- Advances one file's completeness and switches it if its target is complete. The caller holds the
-- checkpoint's and the file's locks and logs the event that is returned.
-- outcome: 'active' (switched now), 'waiting' (incomplete), 'stage' (complete, but more than 1,000 search
-- rows are missing and must be staged in batches first, rule 17), 'none' (nothing to do).
CREATE FUNCTION switch_file(_model integer, _file bigint, OUT outcome text, OUT event jsonb)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    _target   record;
    _tables   collection_models;
    _now      active_versions;
    _shared   bigint[] := '{}';
    _arrived  bigint[];
    _left     bigint[];
    _cursor   integer;
    _missing  bigint[];
BEGIN
    outcome := 'none';
    -- The target as it is under the lock, not the version that an event names (rule 15).
    SELECT f.collection, f.target, v.segments, v.base_ordinals, v.chunks
    INTO _target
    FROM files f
    JOIN versions v ON v.file = f.file AND v.version = f.target AND v.state = 'committed'
    WHERE f.file = _file;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO _tables FROM collection_models cm WHERE cm.collection = _target.collection AND cm.model = _model;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO _now FROM active_versions a WHERE a.file = _file AND a.model = _model;
    IF _now.version = _target.target THEN
        RETURN;
    END IF;
    SELECT v.segments INTO _shared FROM versions v WHERE v.file = _file AND v.version = _now.version;
    _shared := coalesce(_shared, '{}');

    _cursor := CASE WHEN _now.target = _target.target THEN _now.cursor ELSE 0 END;
    _cursor := first_incomplete(
        _model, _target.segments, _target.base_ordinals, _shared, _cursor, _target.chunks
    );
    IF _cursor < _target.chunks THEN
        INSERT INTO active_versions AS a (file, model, target, cursor)
        VALUES (_file, _model, _target.target, _cursor)
        ON CONFLICT (file, model) DO UPDATE
        SET target = EXCLUDED.target, cursor = EXCLUDED.cursor
        WHERE (a.target, a.cursor) <> (EXCLUDED.target, EXCLUDED.cursor);
        outcome := 'waiting';
        RETURN;
    END IF;

    EXECUTE format(
        'SELECT coalesce(array_agg(DISTINCT c.chunk_id), ''{}'')
         FROM segments s CROSS JOIN LATERAL unnest(s.chunks) AS c (chunk_id)
         WHERE s.segment = ANY ($1) AND s.segment <> ALL ($2)
           AND NOT EXISTS (SELECT FROM %I a WHERE a.chunk_id = c.chunk_id)', _tables.active_table
    ) INTO _arrived USING _target.segments, _shared;
    _missing := missing_search_rows(_tables.search_table, _model, _arrived);
    IF cardinality(_missing) > 1000 THEN
        outcome := 'stage';
        RETURN;
    END IF;
    IF cardinality(_missing) > 0 THEN
        PERFORM stage_search_rows(_model, _missing);
    END IF;

    IF _now.version IS NOT NULL THEN
        _left := departed(_file, _shared, _target.segments);
        EXECUTE format('DELETE FROM %I WHERE chunk_id = ANY ($1)', _tables.active_table) USING _left;
    END IF;
    EXECUTE format(
        'INSERT INTO %I (chunk_id, file) SELECT chunk_id, $2 FROM unnest($1) AS c (chunk_id)',
        _tables.active_table
    ) USING _arrived, _file;

    INSERT INTO active_versions (file, model, version, target, cursor)
    VALUES (_file, _model, _target.target, _target.target, _cursor)
    ON CONFLICT (file, model) DO UPDATE
    SET version = EXCLUDED.version, target = EXCLUDED.target, cursor = EXCLUDED.cursor;

    outcome := 'active';
    event := jsonb_build_object(
        'type', 'version_activated', 'file', _file, 'version', _target.target,
        'data', jsonb_build_object('model', _model, 'previous', _now.version)
    );
END
$$;

-- The chunks that the old segments name and no new one does, shared ones included (duplicates and moves).
CREATE FUNCTION departed(_file bigint, _old bigint[], _new bigint[]) RETURNS bigint[]
STABLE LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    _gone bigint[];
BEGIN
    SELECT coalesce(array_agg(chunk_id), '{}')
    INTO _gone
    FROM (
        SELECT unnest(s.chunks) AS chunk_id
        FROM segments s
        WHERE s.segment = ANY (_old) AND s.segment <> ALL (_new)
        EXCEPT
        SELECT unnest(s.chunks)
        FROM segments s
        WHERE s.segment = ANY (_new) AND s.segment <> ALL (_old)
    ) AS candidates;
    IF cardinality(_gone) = 0 THEN
        RETURN _gone;
    END IF;
    RETURN ARRAY(SELECT unnest(_gone) EXCEPT SELECT unnest(named_by(_file, _new, _gone)));
END
$$;

-- Those of `_chunks` that have an embedding of the model but no row in its search table.
CREATE FUNCTION missing_search_rows(_search_table text, _model integer, _chunks bigint[]) RETURNS bigint[]
STABLE LANGUAGE plpgsql AS $$
DECLARE
    _missing bigint[];
BEGIN
    EXECUTE format(
        'SELECT coalesce(array_agg(c.chunk_id), ''{}'')
         FROM unnest($1) AS c (chunk_id)
         WHERE NOT EXISTS (SELECT FROM %I s WHERE s.chunk_id = c.chunk_id)
           AND EXISTS (SELECT FROM embeddings e WHERE e.chunk_id = c.chunk_id AND e.model = $2)',
        _search_table
    ) INTO _missing USING _chunks, _model;
    RETURN _missing;
END
$$;

-- Switches what is complete among the files, in one transaction under the checkpoint's lease.
CREATE FUNCTION activate(_model integer, _partition integer, _epoch integer, _files bigint[])
RETURNS TABLE (file bigint, outcome text)
LANGUAGE plpgsql AS $$
DECLARE
    _events jsonb := '[]';
    _result record;
BEGIN
    PERFORM lock_checkpoint('project:' || _model, _partition, _epoch);
    PERFORM FROM files f WHERE f.file = ANY (_files) ORDER BY f.file FOR NO KEY UPDATE;
    FOR file IN SELECT DISTINCT f FROM unnest(_files) AS f ORDER BY f LOOP
        SELECT * INTO _result FROM switch_file(_model, file);
        outcome := _result.outcome;
        IF _result.event IS NOT NULL THEN
            _events := _events || _result.event;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF _events <> '[]' THEN
        PERFORM append_events(_partition, _events);
    END IF;
END
$$;

-- Stages up to `_limit` search rows that the file's target lacks, under its lock (rule 17). It looks from the
-- target's segment number `_first` on, so that no batch goes through what the batches before it went through,
-- and returns the one to go on with; NULL where none is left.
CREATE FUNCTION stage_target(
    _model integer, _partition integer, _epoch integer, _file bigint, _first integer, _limit integer
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    _search_table text;
    _segments     bigint[];
    _shared       bigint[];
    _missing      bigint[];
    _left         integer := _limit;
BEGIN
    PERFORM lock_checkpoint('project:' || _model, _partition, _epoch);
    PERFORM FROM files f WHERE f.file = _file FOR NO KEY UPDATE;
    SELECT cm.search_table, t.segments, coalesce(v.segments, '{}')
    INTO _search_table, _segments, _shared
    FROM files f
    JOIN versions t ON t.file = f.file AND t.version = f.target
    JOIN collection_models cm ON cm.collection = f.collection AND cm.model = _model
    LEFT JOIN active_versions a ON a.file = f.file AND a.model = _model
    LEFT JOIN versions v ON v.file = a.file AND v.version = a.version
    WHERE f.file = _file;
    FOR _number IN _first .. coalesce(cardinality(_segments), 0) LOOP
        CONTINUE WHEN _segments[_number] = ANY (_shared);
        _missing := missing_search_rows(_search_table, _model, ARRAY(
            SELECT DISTINCT unnest(s.chunks) FROM segments s WHERE s.segment = _segments[_number]
        ));
        PERFORM stage_search_rows(_model, _missing[1:_left]);
        _left := _left - cardinality(_missing[1:_left]);
        IF _left = 0 THEN
            RETURN _number;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- Removes search rows among `_chunks` that are neither active, target nor open any more (rule 18).
CREATE FUNCTION remove_superseded(_model integer, _file bigint, _chunks bigint[]) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    _needed  bigint[];
    _idle    bigint[];
    _table   text;
    _removed integer := 0;
BEGIN
    PERFORM require_read_committed();
    PERFORM FROM files f WHERE f.file = _file FOR NO KEY UPDATE;
    SELECT needed_segments(_file) || coalesce(v.segments, '{}'), cm.search_table
    INTO _needed, _table
    FROM files f
    JOIN collection_models cm ON cm.collection = f.collection AND cm.model = _model
    LEFT JOIN active_versions a ON a.file = f.file AND a.model = _model
    LEFT JOIN versions v ON v.file = a.file AND v.version = a.version
    WHERE f.file = _file;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    _idle := ARRAY(SELECT unnest(_chunks) EXCEPT SELECT unnest(named_by(_file, _needed, _chunks)));
    IF cardinality(_idle) > 0 THEN
        EXECUTE format('DELETE FROM %I WHERE chunk_id = ANY ($1)', _table) USING _idle;
        GET DIAGNOSTICS _removed = ROW_COUNT;
    END IF;
    RETURN _removed;
END
$$;

-- The chunks among those of an embedded event that no needed and no active manifest names, by file: their
-- versions were superseded while they were with the model (rule 18). A file's only version needs no look.
CREATE FUNCTION idle_chunks(_model integer, _chunks bigint[])
RETURNS TABLE (file bigint, chunks bigint[])
STABLE LANGUAGE sql AS $$
    WITH embedded AS MATERIALIZED (
        SELECT c.file, c.chunk_id
        FROM chunks c
        JOIN files f ON f.file = c.file AND f.last_version > 1
        WHERE c.chunk_id = ANY (_chunks)
    ),
    -- Once a file: for each chunk again, a look through a long manifest cost more than all else.
    kept AS MATERIALIZED (
        SELECT e.file, needed_segments(e.file) || coalesce(v.segments, '{}') AS segments
        FROM (SELECT DISTINCT embedded.file FROM embedded) AS e
        LEFT JOIN active_versions a ON a.file = e.file AND a.model = _model
        LEFT JOIN versions v ON v.file = a.file AND v.version = a.version
    )
    SELECT e.file, array_agg(e.chunk_id)
    FROM embedded e
    JOIN kept k ON k.file = e.file
    WHERE NOT EXISTS (
        SELECT FROM segments s
        WHERE s.file = e.file AND s.min_chunk <= e.chunk_id AND s.max_chunk >= e.chunk_id
          AND e.chunk_id = ANY (s.chunks)
          AND s.segment = ANY (k.segments)
    )
    GROUP BY e.file
$$;

-- The chunks that a switch from one version to another left behind, versions between them included.
CREATE FUNCTION left_behind(_file bigint, _previous integer, _active integer) RETURNS bigint[]
STABLE LANGUAGE plpgsql AS $$
DECLARE
    _old bigint[];
    _new bigint[];
BEGIN
    SELECT coalesce(array_agg(DISTINCT s.segment) FILTER (WHERE v.version <> _active), '{}'),
           coalesce(array_agg(DISTINCT s.segment) FILTER (WHERE v.version = _active), '{}')
    INTO _old, _new
    FROM versions v
    CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
    WHERE v.file = _file
      AND v.version BETWEEN least(_previous, _active) AND greatest(_previous, _active);
    RETURN departed(_file, _old, _new);
END
$$;

-- --- search ------------------------------------------------------------------------------------

-- Whether a search table has a valid index over its vectors.
CREATE FUNCTION has_index(_search_table text) RETURNS boolean
STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_am am ON am.oid = i.relam
        WHERE x.indrelid = to_regclass(_search_table) AND am.amname = 'hnsw' AND x.indisvalid
    );
END
$$;

-- What it takes to cite some active chunks: key, version, content, and the place that the manifest gives.
-- A function for its plan alone, which is kept: planning these joins anew cost more than the search itself.
-- OFFSET 0 and no sequential scans: the plan is kept from a small store into a large one, one probe a table.
CREATE FUNCTION cite(_model integer, _chunks bigint[], _files bigint[])
RETURNS TABLE (
    chunk_id bigint, key text, version integer, content text, metadata jsonb,
    ordinal integer, start integer, "end" integer, page integer, line integer
)
STABLE LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT h.chunk_id, f.key, v.version, c.content, c.metadata, p.ordinal, p.start, p."end", p.page, p.line
    FROM unnest(_chunks, _files) AS h (chunk_id, file)
    CROSS JOIN LATERAL (SELECT * FROM files WHERE file = h.file OFFSET 0) AS f
    CROSS JOIN LATERAL (SELECT * FROM active_versions WHERE file = h.file AND model = _model OFFSET 0) AS a
    CROSS JOIN LATERAL (SELECT * FROM versions WHERE file = h.file AND version = a.version OFFSET 0) AS v
    CROSS JOIN LATERAL (SELECT * FROM chunks WHERE chunk_id = h.chunk_id OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT m.base_ordinal + i - 1 AS ordinal,
               s.starts[i] + m.base_char AS start,
               s.ends[i] + m.base_char AS "end",
               s.pages[i] + m.base_page AS page,
               s.lines[i] + m.base_line AS line
        FROM segments s
        JOIN LATERAL unnest(v.segments, v.base_ordinals, v.base_chars, v.base_pages, v.base_lines)
            AS m (segment, base_ordinal, base_char, base_page, base_line) ON m.segment = s.segment
        CROSS JOIN LATERAL array_position(s.chunks, h.chunk_id) AS i
        WHERE s.file = h.file AND s.min_chunk <= h.chunk_id AND s.max_chunk >= h.chunk_id AND i IS NOT NULL
        ORDER BY m.base_ordinal
        LIMIT 1
    ) AS p;
END
$$;

-- --- removal: every step a statement of its own (rule 3) ---------------------------------------

-- Deletes everything that stands on these chunks, then the chunks. The caller holds the file's lock and
-- the chunks'; the tables that hold vectors are listed here, after those locks (rule 20), and their rows are
-- held so that no rebuild's swap renames a table that is in the list.
CREATE FUNCTION delete_chunks(_collection integer, _chunks bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _tables record;
BEGIN
    DELETE FROM embeddings WHERE chunk_id = ANY (_chunks);
    PERFORM FROM collection_models WHERE collection = _collection ORDER BY model FOR SHARE;
    FOR _tables IN SELECT t.search_table FROM search_tables(_collection) AS t ORDER BY 1 LOOP
        EXECUTE format('DELETE FROM %I WHERE chunk_id = ANY ($1)', _tables.search_table) USING _chunks;
    END LOOP;
    FOR _tables IN SELECT t.active_table FROM search_tables(_collection) AS t ORDER BY 1 LOOP
        EXECUTE format('DELETE FROM %I WHERE chunk_id = ANY ($1)', _tables.active_table) USING _chunks;
    END LOOP;
    DELETE FROM dead_letters WHERE chunk_id = ANY (_chunks);
    DELETE FROM chunks WHERE chunk_id = ANY (_chunks);
END
$$;

-- Sweeps one garbage segment of a file: one that no open or uncollected version lists.
-- Chunks that somebody holds are skipped; the segment goes only with its last unreachable chunk, so that an
-- interrupted sweep loses nothing. `finished` says that the file has no garbage left.
CREATE FUNCTION sweep_segment(_file bigint, OUT swept integer, OUT skipped integer, OUT finished boolean)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    _collection  integer;
    _live        bigint[];
    _garbage     record;
    _unreachable bigint[];
    _locked      bigint[];
BEGIN
    swept := 0;
    skipped := 0;
    finished := false;
    PERFORM require_read_committed();
    PERFORM FROM files WHERE file = _file FOR NO KEY UPDATE;
    SELECT collection INTO _collection FROM files WHERE file = _file;

    -- Read under the file's lock, not taken over from the decision (rule 19).
    SELECT coalesce(array_agg(DISTINCT s.segment), '{}')
    INTO _live
    FROM versions v
    CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
    WHERE v.file = _file AND v.state IN ('open', 'committed');

    SELECT g.segment, g.chunks
    INTO _garbage
    FROM versions v
    CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
    JOIN segments g ON g.segment = s.segment
    WHERE v.file = _file AND v.state IN ('abandoned', 'collected') AND s.segment <> ALL (_live)
    LIMIT 1;
    IF NOT FOUND THEN
        UPDATE versions
        SET segments = '{}', base_ordinals = '{}', base_chars = '{}', base_pages = '{}', base_lines = '{}'
        WHERE file = _file AND state IN ('abandoned', 'collected') AND segments <> '{}';
        finished := true;
        RETURN;
    END IF;

    _unreachable := ARRAY(
        SELECT unnest(_garbage.chunks) EXCEPT SELECT unnest(named_by(_file, _live, _garbage.chunks))
    );
    SELECT coalesce(array_agg(locked.chunk_id), '{}')
    INTO _locked
    FROM (
        SELECT chunk_id
        FROM chunks
        WHERE chunk_id = ANY (_unreachable)
        ORDER BY chunk_id
        FOR UPDATE SKIP LOCKED
    ) AS locked;
    PERFORM delete_chunks(_collection, _locked);
    swept := cardinality(_locked);

    SELECT count(*) INTO skipped FROM chunks WHERE chunk_id = ANY (_unreachable);
    IF skipped = 0 THEN
        DELETE FROM segments WHERE segment = _garbage.segment;
    END IF;
END
$$;

-- Erases a file: rows are deleted, waiting for whoever holds a chunk, and its number alone stays.
-- Returns the file, or NULL where the key is not there.
CREATE FUNCTION erase_file(_collection integer, _key text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _file   bigint;
    _chunks bigint[];
BEGIN
    PERFORM require_read_committed();
    SELECT file INTO _file FROM files WHERE collection = _collection AND key = _key FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    _chunks := ARRAY(
        SELECT DISTINCT c.chunk_id
        FROM segments s
        CROSS JOIN LATERAL unnest(s.chunks) AS c (chunk_id)
        WHERE s.file = _file
        ORDER BY c.chunk_id
    );
    PERFORM FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR UPDATE;
    PERFORM delete_chunks(_collection, _chunks);
    DELETE FROM active_versions WHERE file = _file;
    DELETE FROM segments WHERE file = _file;
    DELETE FROM idempotency_keys WHERE file = _file;
    DELETE FROM versions WHERE file = _file;
    UPDATE files SET key = NULL, latest = 0, target = 0 WHERE file = _file;
    PERFORM append_events(
        (SELECT partition FROM files WHERE file = _file),
        jsonb_build_array(jsonb_build_object('type', 'file_erased', 'file', _file))
    );
    RETURN _file;
END
$$;
