-- Rights: what each kind of process may do, and which collections a tenant sees. Nothing here holds until
-- `chunkstore roles` has made the roles: a store that its owner alone uses pays nothing for it.

-- The role whose members alone see the collection, where tenants are kept apart.
ALTER TABLE collections ADD COLUMN tenant text;

-- The roles of this store. Roles belong to the whole cluster, so they are made by a command, not here.
CREATE TABLE roles (
    role text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('reader', 'writer', 'consumer', 'projector', 'collector'))
);

-- What a kind of role may do, as GRANT takes it. A function that stands here runs with its owner's rights, and
-- nobody else may call it; every other function runs with its caller's.
CREATE TABLE rights (
    kind       text NOT NULL,
    object     text NOT NULL,
    privileges text NOT NULL,
    PRIMARY KEY (kind, object)
);

INSERT INTO rights (kind, object, privileges)
SELECT k.kind, 'TABLE ' || t.name, 'SELECT'
FROM unnest(ARRAY['reader', 'writer', 'consumer', 'projector', 'collector']) AS k (kind)
CROSS JOIN unnest(ARRAY[
    '_yoyo_migration', 'models', 'collections', 'collection_models', 'files', 'versions'
]) AS t (name);

INSERT INTO rights (kind, object, privileges)
VALUES
    ('reader', 'TABLE partitions', 'SELECT'),
    ('reader', 'TABLE events', 'SELECT'),
    ('reader', 'TABLE segments',
     'SELECT (segment, file, min_chunk, max_chunk, consecutive, chunks, starts, ends, pages, lines)'),
    ('reader', 'TABLE chunks', 'SELECT (chunk_id, file, content, metadata)'),
    ('reader', 'TABLE embeddings', 'SELECT (chunk_id, model)'),
    ('reader', 'TABLE dead_letters', 'SELECT'),
    ('reader', 'TABLE active_versions', 'SELECT'),
    ('reader', 'TABLE progress', 'SELECT'),
    ('reader', 'TABLE leases', 'SELECT'),
    ('reader', 'TABLE done', 'SELECT'),
    ('reader', 'TABLE active_chunks', 'SELECT'),
    ('reader', 'TABLE file_states', 'SELECT'),
    ('reader', 'TABLE waiting', 'SELECT'),
    ('reader', 'TABLE failed', 'SELECT'),

    ('writer', 'TABLE partitions', 'SELECT'),
    ('writer', 'TABLE files', 'SELECT, INSERT (collection, key, partition), UPDATE (last_version, latest, target)'),
    ('writer', 'TABLE versions',
     'SELECT, INSERT, UPDATE (state, tombstone, chunks, reused, added, segments, base_ordinals, base_chars,'
     ' base_pages, base_lines, digest, deadline, committed_at)'),
    ('writer', 'TABLE segments',
     'SELECT (segment, file, min_chunk, max_chunk, consecutive, chunks, hashes, starts, ends, pages, lines), INSERT'),
    ('writer', 'TABLE chunks', 'SELECT (chunk_id, file), INSERT'),
    ('writer', 'TABLE embeddings', 'SELECT (chunk_id, model)'),
    ('writer', 'TABLE idempotency_keys', 'SELECT, INSERT'),
    ('writer', 'TABLE sources', 'SELECT, INSERT, UPDATE'),
    ('writer', 'TABLE dead_letters', 'SELECT, UPDATE (state), DELETE'),
    ('writer', 'TABLE active_versions', 'SELECT, UPDATE (cursor)'),
    -- What an ingestion says at its end: how many chunks wait.
    ('writer', 'TABLE waiting', 'SELECT'),
    ('writer', 'TABLE events', 'SELECT (partition, type, file, version, recorded_at)'),
    ('writer', 'SEQUENCE chunk_id_blocks', 'USAGE'),
    ('writer', 'SEQUENCE segment_ids', 'USAGE'),
    ('writer', 'SEQUENCE files_file_seq', 'USAGE'),
    ('writer', 'FUNCTION lock_partition', 'EXECUTE'),
    ('writer', 'FUNCTION append_checked', 'EXECUTE'),
    ('writer', 'FUNCTION chunks_by_hash', 'EXECUTE'),
    ('writer', 'FUNCTION segments_by_digest', 'EXECUTE'),
    ('writer', 'FUNCTION set_pinned', 'EXECUTE'),

    ('consumer', 'TABLE events', 'SELECT'),
    ('consumer', 'TABLE segments', 'SELECT (segment, file, min_chunk, max_chunk, consecutive, chunks)'),
    ('consumer', 'TABLE chunks', 'SELECT'),
    ('consumer', 'TABLE embeddings', 'SELECT'),
    ('consumer', 'TABLE dead_letters', 'SELECT'),
    ('consumer', 'TABLE active_versions', 'SELECT'),
    ('consumer', 'TABLE progress', 'SELECT'),
    ('consumer', 'TABLE leases', 'SELECT, INSERT, UPDATE (hi, epoch, attempts, owner, expires)'),
    ('consumer', 'TABLE done', 'SELECT'),
    ('consumer', 'FUNCTION claim', 'EXECUTE'),
    ('consumer', 'FUNCTION complete', 'EXECUTE'),
    ('consumer', 'FUNCTION dead_letter', 'EXECUTE'),

    ('projector', 'TABLE events', 'SELECT'),
    ('projector', 'TABLE segments', 'SELECT (segment, file, min_chunk, max_chunk, consecutive, chunks)'),
    ('projector', 'TABLE chunks', 'SELECT (chunk_id, file)'),
    ('projector', 'TABLE active_versions', 'SELECT'),
    ('projector', 'TABLE progress', 'SELECT, UPDATE (position, epoch, owner, expires)'),
    ('projector', 'TABLE leases', 'SELECT'),
    ('projector', 'FUNCTION activate', 'EXECUTE'),
    ('projector', 'FUNCTION stage_target', 'EXECUTE'),
    ('projector', 'FUNCTION remove_superseded', 'EXECUTE'),
    ('projector', 'FUNCTION build_index', 'EXECUTE'),
    ('projector', 'FUNCTION drop_leftovers', 'EXECUTE'),

    -- A lock asks for the right to update some column: this one decides nothing.
    ('collector', 'TABLE files', 'SELECT, UPDATE (created_at)'),
    ('collector', 'TABLE active_versions', 'SELECT'),
    ('collector', 'TABLE versions', 'SELECT, UPDATE (state, deadline)'),
    ('collector', 'FUNCTION lock_partition', 'EXECUTE'),
    ('collector', 'FUNCTION append_checked', 'EXECUTE'),
    ('collector', 'FUNCTION sweep_segments', 'EXECUTE'),
    ('collector', 'FUNCTION erase_file', 'EXECUTE'),
    ('collector', 'FUNCTION drop_leftovers', 'EXECUTE')
ON CONFLICT (kind, object) DO UPDATE SET privileges = excluded.privileges;

-- What a policy asks runs with the owner's rights, so that it sees the rows that decide.
INSERT INTO rights (kind, object, privileges)
SELECT k.kind, 'FUNCTION ' || f.name, 'EXECUTE'
FROM unnest(ARRAY['reader', 'writer']) AS k (kind)
CROSS JOIN unnest(ARRAY[
    'is_own', 'is_own_model', 'is_own_collection', 'is_own_file', 'is_own_chunk', 'names_own_chunks',
    'names_own_segments'
]) AS f (name);

-- An ordered group has its lease in its checkpoint (rule 22): no consumer can claim a projector's ranges.
ALTER TABLE leases ADD CONSTRAINT leases_of_shared_groups CHECK (NOT starts_with(consumer_group, 'project:'));

-- A view asks for its reader's rights, not for those of whoever made it.
ALTER VIEW active_chunks SET (security_invoker = true);
ALTER VIEW file_states SET (security_invoker = true);
ALTER VIEW waiting SET (security_invoker = true);
ALTER VIEW failed SET (security_invoker = true);

-- --- whose is it ---------------------------------------------------------------------------------

-- Who asks: the role of the session, also inside a function that runs with its owner's rights. No setting that
-- a session may make freely: SET ROLE takes roles that the session has.
CREATE FUNCTION caller() RETURNS name
STABLE LANGUAGE sql AS $$
    SELECT CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END
$$;

-- Whether the caller has the role; false for one that is not there.
CREATE FUNCTION is_own(_tenant text) RETURNS boolean
STABLE LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RETURN coalesce(pg_has_role(caller(), to_regrole(quote_ident(_tenant))::oid, 'USAGE'), false);
END
$$;

-- The next five are what policies ask. Their cost is said to be nothing so that the planner has them run before
-- any condition of the query: else EXPLAIN and a clock would show which hidden rows the condition holds for.
CREATE FUNCTION is_own_collection(_collection integer) RETURNS boolean
STABLE LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RETURN EXISTS (SELECT FROM collections c WHERE c.collection = _collection AND is_own(c.tenant));
END
$$;

-- A model's name may say where its service is.
CREATE FUNCTION is_own_model(_model integer) RETURNS boolean
STABLE LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RETURN EXISTS (SELECT FROM collection_models m WHERE m.model = _model AND is_own_collection(m.collection));
END
$$;

CREATE FUNCTION is_own_file(_file bigint) RETURNS boolean
STABLE LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM files f
        JOIN collections c ON c.collection = f.collection
        WHERE f.file = _file AND is_own(c.tenant)
    );
END
$$;

CREATE FUNCTION is_own_chunk(_chunk bigint) RETURNS boolean
STABLE LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RETURN is_own_file((SELECT file FROM chunks WHERE chunk_id = _chunk));
END
$$;

-- Whether all the chunks are the file's: a segment that named others' would have them embedded, copied, swept.
CREATE FUNCTION names_own_chunks(_file bigint, _chunks bigint[]) RETURNS boolean
STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM unnest(_chunks) AS c (chunk_id)
        WHERE NOT EXISTS (SELECT FROM chunks k WHERE k.chunk_id = c.chunk_id AND k.file = _file)
    );
END
$$;

CREATE FUNCTION names_own_segments(_file bigint, _segments bigint[]) RETURNS boolean
STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM unnest(_segments) AS s (segment)
        WHERE NOT EXISTS (SELECT FROM segments g WHERE g.segment = s.segment AND g.file = _file)
    );
END
$$;

-- Whether tenants are kept apart.
CREATE FUNCTION is_isolated() RETURNS boolean
STABLE LANGUAGE sql AS $$
    SELECT relrowsecurity FROM pg_class WHERE oid = 'files'::regclass
$$;

-- Whether the caller may do all that the one whose rights hold here may: its owner, or a superuser.
CREATE FUNCTION is_trusted() RETURNS boolean
STABLE LANGUAGE sql AS $$
    SELECT pg_has_role(caller(), current_user, 'USAGE')
$$;

-- Refuses another tenant's file and chunks in a function that runs with its owner's rights, where no policy holds.
CREATE FUNCTION require_own_file(_file bigint, _chunks bigint[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT is_trusted() AND is_isolated() AND NOT (is_own_file(_file) AND names_own_chunks(_file, _chunks)) THEN
        RAISE EXCEPTION 'file % is not yours', _file USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- --- what a writer may ask for but not read or write by itself -----------------------------------

-- Whether an event's data is what its type holds: what reads the log must never stumble over a row that nobody can
-- take back. Says nothing of the types that only this schema's own functions write.
CREATE FUNCTION is_data_of(_type text, _data jsonb) RETURNS boolean
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    _needed text[] := CASE _type
        WHEN 'chunks_appended' THEN '{}'
        WHEN 'version_committed' THEN '{target}'
        WHEN 'version_abandoned' THEN '{}'
        WHEN 'version_collected' THEN '{}'
        WHEN 'target_changed' THEN '{}'
        WHEN 'pinned' THEN '{}'
        WHEN 'unpinned' THEN '{}'
        WHEN 'dead_letter_retried' THEN '{model, chunk}'
        WHEN 'dead_letter_discarded' THEN '{model, chunk}'
    END;
BEGIN
    IF _needed IS NULL OR _data IS NULL OR _data = 'null' THEN
        RETURN coalesce(_needed, '{}') = '{}';
    END IF;
    RETURN jsonb_typeof(_data) = 'object' AND _data ?& _needed AND NOT EXISTS (
        SELECT FROM jsonb_each(_data) AS d (name, value)
        WHERE CASE
            WHEN d.name IN ('target', 'tombstone') THEN jsonb_typeof(d.value) = 'boolean'
            WHEN d.name IN ('replaced', 'previous') AND d.value = 'null' THEN true
            WHEN d.name IN ('replaced', 'previous', 'model', 'chunk') THEN
                jsonb_typeof(d.value) = 'number' AND d.value #>> '{}' ~ '^[0-9]{1,18}$'
            ELSE false
        END IS NOT TRUE
    );
END
$$;

-- Whether an event as a writer or a collector hands it in is one that its type may be.
CREATE FUNCTION is_well_formed(_event jsonb) RETURNS boolean
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    _chunks jsonb := coalesce(nullif(_event -> 'chunks', 'null'), '[]');
BEGIN
    IF (_event ->> 'file' ~ '^[0-9]{1,18}$') IS NOT TRUE
        OR coalesce(_event ->> 'version' ~ '^[0-9]{1,9}$', starts_with(_event ->> 'type', 'dead_letter_')) IS NOT TRUE
        OR jsonb_typeof(_chunks) <> 'array'
        OR NOT is_data_of(_event ->> 'type', _event -> 'data')
    THEN
        RETURN false;
    END IF;
    IF _event ->> 'type' <> 'chunks_appended' THEN
        RETURN coalesce(_event ->> 'n', '1') = '1' AND _event ->> 'first_chunk' IS NULL AND _chunks = '[]';
    END IF;
    IF (_event ->> 'n' ~ '^[0-9]{1,4}$' AND (_event ->> 'n')::integer BETWEEN 1 AND 1024) IS NOT TRUE THEN
        RETURN false;
    END IF;
    IF _event ->> 'first_chunk' IS NOT NULL THEN
        RETURN _event ->> 'first_chunk' ~ '^[0-9]{1,18}$' AND _chunks = '[]';
    END IF;
    RETURN jsonb_array_length(_chunks) = (_event ->> 'n')::integer AND NOT EXISTS (
        SELECT FROM jsonb_array_elements(_chunks) AS c (chunk)
        WHERE jsonb_typeof(c.chunk) <> 'number' OR c.chunk #>> '{}' !~ '^[0-9]{1,18}$'
    );
END
$$;

-- Appends events that the caller's roles may log, each of a file of its own in that file's partition; see
-- append_events.
CREATE FUNCTION append_checked(_partition integer, _events jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _types text[];
BEGIN
    IF NOT is_trusted() THEN
        SELECT array_agg(t.type)
        INTO _types
        FROM roles r
        CROSS JOIN LATERAL unnest(CASE r.kind
            WHEN 'writer' THEN ARRAY[
                'chunks_appended', 'version_committed', 'version_abandoned', 'target_changed', 'pinned', 'unpinned',
                'dead_letter_retried', 'dead_letter_discarded'
            ]
            WHEN 'collector' THEN ARRAY['version_collected', 'version_abandoned']
        END) AS t (type)
        WHERE is_own(r.role);

        IF EXISTS (
            SELECT FROM jsonb_to_recordset(_events) AS e (type text, file bigint)
            LEFT JOIN files f ON f.file = e.file
            WHERE f.partition IS DISTINCT FROM _partition OR e.type = ANY (_types) IS NOT TRUE
        ) THEN
            RAISE EXCEPTION '% may not append these events', caller() USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF EXISTS (SELECT FROM jsonb_array_elements(_events) AS e (event) WHERE NOT is_well_formed(e.event)) THEN
            RAISE EXCEPTION 'these events have not the shape of their types' USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF is_isolated() AND NOT EXISTS (SELECT FROM roles r WHERE r.kind = 'collector' AND is_own(r.role)) THEN
            PERFORM require_own_file(e.file, coalesce(
                e.chunks, ARRAY(SELECT generate_series(e.first_chunk, e.first_chunk + e.n - 1)), '{}'
            ))
            FROM jsonb_to_recordset(_events) AS e (file bigint, n integer, first_chunk bigint, chunks bigint[]);
        END IF;
    END IF;
    RETURN append_events(_partition, _events);
END
$$;

-- Appends a writer's events unless its collection has got models that the writer did not know of when it decided
-- what to log; returns those (rule 9). Runs with its caller's rights.
CREATE FUNCTION append_unless_late(_partition integer, _collection integer, _models integer[], _events jsonb)
RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
    _late integer[];
BEGIN
    PERFORM lock_partition(_partition);
    SELECT array_agg(model)
    INTO _late
    FROM collection_models
    WHERE collection = _collection AND model <> ALL (_models);
    IF _late IS NULL AND _events <> '[]' THEN
        PERFORM append_checked(_partition, _events);
    END IF;
    RETURN coalesce(_late, '{}');
END
$$;

-- The chunks of a file among those hashes; both lists are one value each, 16 bytes a hash. The columns keep
-- no statistics, so OFFSET 0 decides: one probe of the index a hash. Joined freely, 1,000 hashes took 11 s.
-- A function because no role may read the hashes: who could, would learn which texts other tenants hold.
CREATE FUNCTION chunks_by_hash(_file bigint, _hashes bytea, _text_hashes bytea)
RETURNS TABLE (chunk_id bigint, hash bytea)
STABLE LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM require_own_file(_file);
    RETURN QUERY
    SELECT min(found.chunk_id) AS chunk_id, found.hash
    FROM generate_series(0, length(_hashes) / 16 - 1) AS i
    CROSS JOIN LATERAL (
        SELECT c.chunk_id, c.hash
        FROM chunks c
        WHERE c.text_hash = substring(_text_hashes FROM i * 16 + 1 FOR 16)
          AND c.file = _file
          AND c.hash = substring(_hashes FROM i * 16 + 1 FOR 16)
        OFFSET 0
    ) AS found
    GROUP BY found.hash;
END
$$;

-- The file's segments with those digests that an open or uncollected version lists. A segment that only
-- collected versions list may be half swept already. A function for the reason that chunks_by_hash is one.
CREATE FUNCTION segments_by_digest(_file bigint, _digests bytea[])
RETURNS TABLE (digest bytea, segment bigint)
STABLE LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM require_own_file(_file);
    RETURN QUERY
    SELECT DISTINCT ON (s.digest) s.digest, s.segment
    FROM segments s
    WHERE s.file = _file
      AND s.digest = ANY (_digests)
      AND EXISTS (
          SELECT FROM versions v
          WHERE v.file = s.file
            AND v.state IN ('open', 'committed')
            AND s.segment = ANY (v.segments)
      );
END
$$;

-- Pins or unpins a version: all that a writer may change of one that is committed.
CREATE FUNCTION set_pinned(_file bigint, _version integer, _pinned boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM require_own_file(_file);
    UPDATE versions
    SET pinned = _pinned
    WHERE file = _file AND version = _version;
END
$$;

-- --- indexes for a projector that does not own their tables --------------------------------------

-- Vacuum leaves the index alone, and comes late: each one forgets how many dead rows the index still names,
-- which is what the collector goes by. Before there is an index, the table is vacuumed as any other.
CREATE FUNCTION leave_index_to_collector(_search_table text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'ALTER TABLE %I SET (
             vacuum_index_cleanup = off, autovacuum_vacuum_scale_factor = 2,
             autovacuum_vacuum_insert_threshold = -1
         )', _search_table
    );
END
$$;

-- Builds the index of a search table that has no valid one; false where it has. Unlike the owner's build, which
-- no function can run, it keeps writers of the table waiting; searches go on.
CREATE FUNCTION build_index(_search_table text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _index    text := _search_table || '_hnsw';
    _distance text;
BEGIN
    SELECT m.distance
    INTO _distance
    FROM collection_models cm
    JOIN models m ON m.model = cm.model
    WHERE cm.search_table = _search_table;
    IF NOT FOUND OR has_index(quote_ident(_search_table)) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP INDEX IF EXISTS %I', _index);
    PERFORM leave_index_to_collector(_search_table);
    PERFORM set_config('maintenance_work_mem', '512MB', true);
    EXECUTE format(
        'CREATE INDEX %I ON %I USING hnsw (embedding %I)', _index, _search_table, 'halfvec_' || _distance || '_ops'
    );
    RETURN true;
END
$$;

-- Drops the vector indexes that a killed rebuild left beside a search table's own.
CREATE FUNCTION drop_leftovers(_search_table text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _index name;
BEGIN
    FOR _index IN
        SELECT i.relname
        FROM collection_models cm
        JOIN pg_index x ON x.indrelid = to_regclass(quote_ident(cm.search_table))
        JOIN pg_class i ON i.oid = x.indexrelid AND i.relname <> cm.search_table || '_hnsw'
        JOIN pg_am am ON am.oid = i.relam AND am.amname = 'hnsw'
        WHERE cm.search_table = _search_table
    LOOP
        EXECUTE format('DROP INDEX %I', _index);
    END LOOP;
END
$$;

-- --- granting ------------------------------------------------------------------------------------

-- The roles of a kind, as GRANT and CREATE POLICY take them; NULL where there is none.
CREATE FUNCTION roles_of(VARIADIC _kinds text[]) RETURNS text
STABLE LANGUAGE sql AS $$
    SELECT string_agg(quote_ident(role), ', ' ORDER BY role) FROM roles WHERE kind = ANY (_kinds)
$$;

-- Gives the search and active tables of a collection to those who read them: every reader, or where tenants are
-- kept apart the collection's tenant alone. Whoever else had a right to them loses it.
CREATE FUNCTION grant_search_tables(_collection integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _readers text;
    _grantee text;
    _pair    record;
BEGIN
    _readers := CASE
        WHEN is_isolated() THEN (SELECT quote_ident(c.tenant) FROM collections c WHERE c.collection = _collection)
        ELSE roles_of('reader')
    END;
    FOR _pair IN
        SELECT t.search_table, t.active_table, s.relacl || a.relacl AS acl, s.relowner
        FROM search_tables(_collection) AS t
        JOIN pg_class s ON s.oid = to_regclass(quote_ident(t.search_table))
        JOIN pg_class a ON a.oid = to_regclass(quote_ident(t.active_table))
    LOOP
        FOR _grantee IN
            SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END
            FROM aclexplode(_pair.acl) AS g
            WHERE g.grantee <> _pair.relowner
        LOOP
            EXECUTE format('REVOKE ALL ON %I, %I FROM %s', _pair.search_table, _pair.active_table, _grantee);
        END LOOP;
        IF _readers IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %I, %I TO %s', _pair.search_table, _pair.active_table, _readers);
        END IF;
        IF roles_of('projector') IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %I TO %s', _pair.search_table, roles_of('projector'));
        END IF;
        IF roles_of('collector') IS NOT NULL AND current_setting('server_version_num')::integer >= 170000 THEN
            EXECUTE format('GRANT MAINTAIN ON %I TO %s', _pair.search_table, roles_of('collector'));
        END IF;
    END LOOP;
END
$$;

-- Makes the row security of a table anew: off, unless it is to hold.
CREATE FUNCTION drop_policies(_table text, _hold boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _policy name;
BEGIN
    FOR _policy IN SELECT polname FROM pg_policy WHERE polrelid = _table::regclass LOOP
        EXECUTE format('DROP POLICY %I ON %I', _policy, _table);
    END LOOP;
    EXECUTE format('ALTER TABLE %I %s ROW LEVEL SECURITY', _table, CASE WHEN _hold THEN 'ENABLE' ELSE 'DISABLE' END);
END
$$;

-- Makes the policies anew. Owner and superusers pass them all, and so do the functions that run with the owner's
-- rights. Consumers, projectors and collectors work for every tenant.
CREATE FUNCTION apply_policies(_isolated boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _table   record;
    _workers text := roles_of('consumer', 'projector', 'collector');
    _mine    text := CASE WHEN _isolated THEN 'is_own_file(file)' ELSE 'true' END;
    _whole   text := CASE WHEN _isolated THEN 'names_own_segments(file, segments)' ELSE 'true' END;
BEGIN
    FOR _table IN
        SELECT *
        FROM (
            VALUES
                ('models', 'is_own_model(model)', 'true'),
                ('collections', 'is_own(tenant)', 'true'),
                ('collection_models', 'is_own_collection(collection)', 'true'),
                ('files', 'is_own_collection(collection)', 'true'),
                ('segments', 'is_own_file(file)', 'names_own_chunks(file, chunks)'),
                ('idempotency_keys', 'is_own_file(file)', 'true'),
                ('sources', 'is_own_file(file)', 'true'),
                ('chunks', 'is_own_file(file)', 'true'),
                ('embeddings', 'is_own_chunk(chunk_id)', 'true'),
                ('dead_letters', 'is_own_file(file)', 'true'),
                ('active_versions', 'is_own_file(file)', 'true'),
                ('events', 'is_own_file(file)', 'true')
        ) AS t (name, own, whole)
    LOOP
        PERFORM drop_policies(_table.name, _isolated);
        CONTINUE WHEN NOT _isolated;
        EXECUTE format(
            'CREATE POLICY own ON %I USING (%s) WITH CHECK (%2$s AND %s)', _table.name, _table.own, _table.whole
        );
        IF _workers IS NOT NULL THEN
            EXECUTE format('CREATE POLICY workers ON %I TO %s USING (true)', _table.name, _workers);
        END IF;
    END LOOP;

    -- A writer changes open versions alone: a committed one that it could call abandoned would be swept.
    PERFORM drop_policies('versions', EXISTS (SELECT FROM roles));
    EXECUTE format('CREATE POLICY own ON versions FOR SELECT USING (%s)', _mine);
    IF roles_of('writer') IS NOT NULL THEN
        EXECUTE format(
            'CREATE POLICY added ON versions FOR INSERT TO %s
             WITH CHECK (%s AND state IN (''open'', ''committed'') AND %s)', roles_of('writer'), _mine, _whole
        );
        EXECUTE format(
            'CREATE POLICY written ON versions FOR UPDATE TO %s
             USING (%s AND state = ''open'')
             WITH CHECK (%2$s AND state IN (''open'', ''committed'', ''abandoned'') AND %3$s)',
            roles_of('writer'), _mine, _whole
        );
    END IF;
    IF _workers IS NOT NULL THEN
        EXECUTE format('CREATE POLICY workers ON versions FOR SELECT TO %s USING (true)', _workers);
    END IF;
    IF roles_of('collector') IS NOT NULL THEN
        EXECUTE format(
            'CREATE POLICY collected ON versions FOR UPDATE TO %s
             USING (state IN (''open'', ''committed''))
             WITH CHECK (state IN (''abandoned'', ''collected''))', roles_of('collector')
        );
    END IF;

    -- A projector moves its own checkpoints, not the frontiers of consumers.
    PERFORM drop_policies('progress', EXISTS (SELECT FROM roles));
    CREATE POLICY seen ON progress FOR SELECT USING (true);
    IF roles_of('projector') IS NOT NULL THEN
        EXECUTE format(
            'CREATE POLICY followed ON progress FOR UPDATE TO %s USING (consumer_group LIKE ''project:%%'')',
            roles_of('projector')
        );
    END IF;
END
$$;

-- Takes every right in the store from a role.
CREATE FUNCTION revoke_rights(_role text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', current_schema(), _role);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM %I', current_schema(), _role);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM %I', current_schema(), _role);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', current_schema(), _role);
END
$$;

-- Who else than their owners may create in the schema; NULL where nobody may. What they made there would stand in
-- for a function of the server's that fits its arguments less well.
CREATE FUNCTION others_who_create_in(_schema name) RETURNS text
STABLE LANGUAGE sql AS $$
    SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, ', ')
    FROM pg_namespace n
    CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
    WHERE n.nspname = _schema
      AND a.privilege_type = 'CREATE'
      AND a.grantee NOT IN (n.nspowner, (SELECT o.nspowner FROM pg_namespace o WHERE o.nspname = current_schema()))
      AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.grantee AND r.rolsuper);
$$;

-- Makes all rights what `rights` says, no more and no less, for every role of the store. Run it again after the
-- schema or the extension was renamed: the functions look where these were.
CREATE FUNCTION apply_rights() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _extension name := (
        SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
    );
    _path      text := format('%I, %I, pg_temp', current_schema(), _extension);
    _others    text := others_who_create_in(_extension);
    _row       record;
BEGIN
    IF _others IS NOT NULL AND EXISTS (SELECT FROM roles) THEN
        RAISE EXCEPTION '% may create functions in the schema %, which those that run with the owner''s rights'
            ' look in: REVOKE CREATE ON SCHEMA % FROM them, or have vector in a schema of its own',
            _others, _extension, _extension USING ERRCODE = 'insufficient_privilege';
    END IF;
    FOR _row IN SELECT DISTINCT object FROM rights WHERE object LIKE 'FUNCTION %' LOOP
        -- pg_temp last: a caller's temporary table must not stand before the store's own.
        EXECUTE format('ALTER %s SECURITY DEFINER SET search_path = %s', _row.object, _path);
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', _row.object);
    END LOOP;
    FOR _row IN SELECT role FROM roles LOOP
        PERFORM revoke_rights(_row.role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), _row.role);
    END LOOP;
    FOR _row IN SELECT g.privileges, g.object, r.role FROM rights g JOIN roles r USING (kind) LOOP
        EXECUTE format('GRANT %s ON %s TO %I', _row.privileges, _row.object, _row.role);
    END LOOP;
    PERFORM apply_policies(is_isolated());
    PERFORM grant_search_tables(collection) FROM collections;
END
$$;

-- Takes every right from the store's roles but for these, and forgets them.
CREATE FUNCTION forget_roles(_others text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _row record;
BEGIN
    FOR _row IN DELETE FROM roles WHERE role <> ALL (_others) RETURNING role LOOP
        CONTINUE WHEN to_regrole(quote_ident(_row.role)) IS NULL;
        PERFORM revoke_rights(_row.role);
    END LOOP;
END
$$;

-- Gives a collection to a tenant's role (NULL: to none, only the owner sees it then). The first such call keeps
-- all tenants of the store apart from then on.
CREATE FUNCTION set_tenant(_collection integer, _tenant text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _begins boolean := NOT is_isolated();
BEGIN
    UPDATE collections
    SET tenant = _tenant
    WHERE collection = _collection;
    IF _begins THEN
        PERFORM apply_policies(true);
    END IF;
    PERFORM grant_search_tables(c.collection) FROM collections c WHERE _begins OR c.collection = _collection;
END
$$;
