-- Removal: sweep what was collected, erase a file; every step is a statement of its own (rule 3).

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

-- The versions of a file that its collection's retention does not keep: older than the last so many, and than
-- so long. Active, target, latest, pinned and open versions are never among them (rule 19).
CREATE FUNCTION due_versions(_file bigint) RETURNS SETOF integer
STABLE LANGUAGE sql AS $$
    SELECT v.version
    FROM versions v
    JOIN files f ON f.file = v.file
    JOIN collections c ON c.collection = f.collection
    WHERE v.file = _file
      AND v.state = 'committed'
      AND NOT v.pinned
      AND v.version NOT IN (f.latest, f.target)
      AND (c.keep_for IS NULL OR clock_timestamp() - v.committed_at > c.keep_for)
      AND NOT EXISTS (
          SELECT FROM active_versions a
          WHERE a.file = v.file
            AND a.version = v.version
      )
      AND (
          SELECT count(*)
          FROM versions newer
          WHERE newer.file = v.file
            AND newer.state = 'committed'
            AND newer.version > v.version
      ) >= c.keep_last
$$;

-- Sweeps up to `_limit` chunks of up to `_segments` garbage segments of a file: those that no open or uncollected
-- version lists. What is reachable is found once for all of them, because it costs a look through the file.
-- Chunks that somebody holds are skipped; a segment goes only with its last unreachable chunk, so that an
-- interrupted sweep loses nothing. `finished` says that the file has no garbage left.
-- Chunks that stay may have superseded search rows on the swept versions' account. The projector, where it has
-- still to read of the switch, cannot tell any more which, so they go here (rule 18).
CREATE FUNCTION sweep_segments(
    _file bigint, _segments integer, _limit integer, OUT swept integer, OUT skipped integer, OUT finished boolean
)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    _collection  integer;
    _live        bigint[];
    _garbage     bigint[];
    _named       bigint[];
    _reachable   bigint[];
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

    _garbage := ARRAY(
        SELECT DISTINCT g.segment
        FROM versions v
        CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
        JOIN segments g ON g.segment = s.segment AND g.file = v.file
        WHERE v.file = _file AND v.state IN ('abandoned', 'collected') AND s.segment <> ALL (_live)
        ORDER BY g.segment
        LIMIT _segments
    );
    IF _garbage = '{}' THEN
        PERFORM remove_superseded(cm.model, _file, departed(_file, ARRAY(
            SELECT DISTINCT s.segment
            FROM versions v
            CROSS JOIN LATERAL unnest(v.segments) AS s (segment)
            WHERE v.file = _file AND v.state IN ('abandoned', 'collected')
        ), needed_segments(_file)))
        FROM collection_models cm
        WHERE cm.collection = _collection
        ORDER BY cm.model;
        UPDATE versions
        SET segments = '{}', base_ordinals = '{}', base_chars = '{}', base_pages = '{}', base_lines = '{}'
        WHERE file = _file AND state IN ('abandoned', 'collected') AND segments <> '{}';
        finished := true;
        RETURN;
    END IF;

    _named := ARRAY(SELECT DISTINCT unnest(s.chunks) FROM segments s WHERE s.segment = ANY (_garbage));
    _reachable := named_by(_file, _live, _named);
    _unreachable := ARRAY(SELECT unnest(_named) EXCEPT SELECT unnest(_reachable));
    SELECT coalesce(array_agg(locked.chunk_id), '{}')
    INTO _locked
    FROM (
        SELECT chunk_id
        FROM chunks
        -- Of this file alone, whatever its segments name: a writer may have named what is another's.
        WHERE chunk_id = ANY (_unreachable) AND file = _file
        ORDER BY chunk_id
        LIMIT _limit
        FOR UPDATE SKIP LOCKED
    ) AS locked;
    PERFORM delete_chunks(_collection, _locked);
    swept := cardinality(_locked);
    -- Now, not before: delete_chunks() has taken what keeps a swap away from the search tables.
    PERFORM remove_superseded(cm.model, _file, _reachable)
    FROM collection_models cm
    WHERE cm.collection = _collection AND _reachable <> '{}'
    ORDER BY cm.model;

    _unreachable := ARRAY(SELECT chunk_id FROM chunks WHERE chunk_id = ANY (_unreachable) AND file = _file);
    IF swept < _limit THEN
        skipped := cardinality(_unreachable);
    END IF;
    DELETE FROM segments s
    WHERE s.segment = ANY (_garbage)
      AND NOT EXISTS (
          SELECT FROM unnest(s.chunks) AS c (chunk_id)
          WHERE c.chunk_id = ANY (_unreachable)
      );
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
        JOIN chunks k ON k.chunk_id = c.chunk_id AND k.file = _file
        WHERE s.file = _file
        ORDER BY c.chunk_id
    );
    PERFORM FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR UPDATE;
    PERFORM delete_chunks(_collection, _chunks);
    DELETE FROM active_versions WHERE file = _file;
    DELETE FROM segments WHERE file = _file;
    DELETE FROM idempotency_keys WHERE file = _file;
    DELETE FROM sources WHERE file = _file;
    DELETE FROM versions WHERE file = _file;
    UPDATE files SET key = NULL, latest = 0, target = 0 WHERE file = _file;
    PERFORM append_events(
        (SELECT partition FROM files WHERE file = _file),
        jsonb_build_array(jsonb_build_object('type', 'file_erased', 'file', _file))
    );
    RETURN _file;
END
$$;
