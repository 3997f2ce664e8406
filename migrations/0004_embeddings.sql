-- Storing vectors by exact chunk version, and giving chunks up (rules 11 to 14).

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
        SELECT coalesce(array_agg(locked.chunk_id), '{}'), array_agg(DISTINCT locked.file)
        INTO _existing, _files
        FROM (
            SELECT chunk_id, file FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR KEY SHARE
        ) AS locked;

        IF _existing <> _chunks THEN
            SELECT array_agg(c.chunk_id ORDER BY c.chunk_id), array_agg(c.embedding ORDER BY c.chunk_id)
            INTO _chunks, _vectors
            FROM unnest(_chunks, _vectors) AS c (chunk_id, embedding)
            JOIN unnest(_existing) AS e (chunk_id) ON e.chunk_id = c.chunk_id;
        END IF;

        -- In the order of the chunks' locks, so that two that store the same wait for each other one way.
        WITH stored AS (
            INSERT INTO embeddings (chunk_id, model, embedding)
            SELECT c.chunk_id, _model, c.embedding
            FROM unnest(_chunks, _vectors) AS c (chunk_id, embedding)
            ON CONFLICT DO NOTHING
            RETURNING chunk_id
        )
        SELECT coalesce(array_agg(chunk_id ORDER BY chunk_id), '{}') INTO _new FROM stored;

        DELETE FROM dead_letters WHERE chunk_id = ANY (_existing) AND model = _model;
    END IF;
    IF cardinality(_new) > 0 THEN
        PERFORM stage_search_rows(_model, _new);
        PERFORM append_embedded(_partition, _new, jsonb_build_object('model', _model, 'files', _files));
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
    -- It was given up before, and nobody heard of the commit.
    IF EXISTS (SELECT FROM done WHERE consumer_group = _group AND partition = _partition AND lo = _lo) THEN
        RETURN false;
    END IF;
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
