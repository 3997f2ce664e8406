-- Activation: complete? then switch; what a switch superseded goes (rules 15 to 18).

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

    -- A chunk that the new segments name may be active through a shared one (duplicates and moves). One probe
    -- each, as a subquery: joined, the planner hashed every active row of the collection.
    EXECUTE format(
        'SELECT coalesce(array_agg(c.chunk_id), ''{}'')
         FROM (
             SELECT unnest(s.chunks) FROM segments s WHERE s.segment = ANY ($1) AND s.segment <> ALL ($2)
             EXCEPT
             SELECT unnest(s.chunks) FROM segments s WHERE s.segment = ANY ($2) AND s.segment <> ALL ($1)
         ) AS c (chunk_id)
         WHERE (SELECT a.file FROM %I a WHERE a.chunk_id = c.chunk_id) IS NULL', _tables.active_table
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

-- The chunks among those of embedded events, of those files, that no needed and no active manifest names, by
-- file: their versions were superseded while they were with the model (rule 18). A file's only version needs no
-- look.
CREATE FUNCTION idle_chunks(_model integer, _files bigint[], _chunks bigint[])
RETURNS TABLE (file bigint, chunks bigint[])
STABLE LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _renewed bigint[] := ARRAY(SELECT file FROM files WHERE file = ANY (_files) AND last_version > 1);
BEGIN
    IF _renewed = '{}' THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH embedded AS MATERIALIZED (
        SELECT c.file, c.chunk_id
        FROM chunks c
        WHERE c.chunk_id = ANY (_chunks) AND c.file = ANY (_renewed)
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
    GROUP BY e.file;
END
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
