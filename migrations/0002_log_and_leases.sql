-- The steps of the log and of the leases that must lock first and read afterwards (rule 1). Each statement
-- inside a VOLATILE function takes a new snapshot, so that is one round trip.

-- READ COMMITTED only: under a snapshot that is older than the lock, everything below would be wrong (rule 1).
CREATE FUNCTION require_read_committed() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'transaction isolation is %, chunkstore works under READ COMMITTED only',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'CS001';
    END IF;
END
$$;

-- --- the log -----------------------------------------------------------------------------------

CREATE FUNCTION lock_partition(_partition integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM require_read_committed();
    PERFORM FROM partitions WHERE partition = _partition FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'partition % does not exist', _partition;
    END IF;
END
$$;

-- Appends events to a partition in their order and returns the offset after the last.
-- `_events` is an array of {type, n, file, version, first_chunk, chunks, data}.
CREATE FUNCTION append_events(_partition integer, _events jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _head bigint;
BEGIN
    PERFORM lock_partition(_partition);
    -- A new statement: what another writer committed while this one waited is seen (rule 1).
    SELECT coalesce(max(last_offset), -1)
    INTO _head
    FROM events
    WHERE partition = _partition;

    INSERT INTO events (partition, last_offset, n, type, file, version, first_chunk, chunks, data)
    SELECT _partition, _head + sum(e.n) OVER (ORDER BY e.position), e.n,
           e.type, e.file, e.version, e.first_chunk, e.chunks, e.data
    FROM (
        SELECT row.position, coalesce((row.event ->> 'n')::integer, 1) AS n,
               r.type, r.file, r.version, r.first_chunk, r.chunks, r.data
        FROM jsonb_array_elements(_events) WITH ORDINALITY AS row (event, position)
        CROSS JOIN LATERAL jsonb_to_record(row.event) AS r (
            type text, file bigint, version integer, first_chunk bigint, chunks bigint[], data jsonb
        )
    ) AS e
    ORDER BY e.position;

    RETURN (SELECT max(last_offset) + 1 FROM events WHERE partition = _partition);
END
$$;

-- Appends the event of one batch of embeddings; its many chunks never become text on the way.
CREATE FUNCTION append_embedded(_partition integer, _chunks bigint[], _data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_partition(_partition);
    -- A new statement, as in append_events (rule 1).
    INSERT INTO events (partition, last_offset, n, type, chunks, data)
    SELECT _partition, coalesce(max(last_offset), -1) + 1, 1, 'chunks_embedded', _chunks, _data
    FROM events
    WHERE partition = _partition;
END
$$;

-- Adding or serving a model meets every append and every activation (lock order: partitions by id).
CREATE FUNCTION lock_all_partitions() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM require_read_committed();
    PERFORM FROM partitions ORDER BY partition FOR NO KEY UPDATE;
END
$$;

-- Changes the number of partitions of a store that holds nothing yet.
CREATE FUNCTION set_partitions(_count integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE partitions, files, events IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM files) OR EXISTS (SELECT FROM events) OR EXISTS (SELECT FROM progress) THEN
        RAISE EXCEPTION 'the number of partitions is fixed once the store is in use'
            USING ERRCODE = 'object_in_use';
    END IF;
    DELETE FROM partitions;
    INSERT INTO partitions SELECT generate_series(0, _count - 1);
END
$$;

-- --- shared groups: any number of ranges in flight ---------------------------------------------

-- The offset from which nothing of the partition is claimed yet.
CREATE FUNCTION claimed_position(_group text, _partition integer) RETURNS bigint
STABLE LANGUAGE sql AS $$
    SELECT greatest(p.position, (
               SELECT l.hi
               FROM leases l
               WHERE l.consumer_group = p.consumer_group AND l.partition = p.partition
               ORDER BY l.lo DESC
               LIMIT 1
           ))
    FROM progress p
    WHERE p.consumer_group = _group AND p.partition = _partition
$$;

-- Claims one range of at most `_batch` chunks: an expired or released one first, else a new one.
-- Returns no row where nothing is to be claimed in the partition, or somebody else is claiming there.
CREATE FUNCTION claim_in(_group text, _partition integer, _batch integer, _lease interval, _owner text)
RETURNS SETOF leases
LANGUAGE plpgsql AS $$
DECLARE
    _frontier bigint;
    _from     bigint;
    _lo       bigint;
    _hi       bigint;
    _total    bigint := 0;
    _event    record;
    _lease_row leases;
BEGIN
    PERFORM FROM progress
    WHERE consumer_group = _group AND partition = _partition
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT position INTO _frontier
    FROM progress
    WHERE consumer_group = _group AND partition = _partition;

    FOR _lo IN
        SELECT l.lo
        FROM leases l
        WHERE l.consumer_group = _group AND l.partition = _partition AND l.lo >= _frontier
          AND l.expires <= clock_timestamp()
          AND NOT EXISTS (
              SELECT FROM done d
              WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
          )
        ORDER BY l.lo
        LIMIT 16
    LOOP
        SELECT * INTO _lease_row FROM take_over(_group, _partition, _lo, _lease, _owner);
        IF FOUND THEN
            RETURN NEXT _lease_row;
            RETURN;
        END IF;
    END LOOP;

    _from := claimed_position(_group, _partition);
    _lo := NULL;
    FOR _event IN
        SELECT e.last_offset, e.n
        FROM events e
        WHERE e.partition = _partition AND e.last_offset >= _from AND e.type = 'chunks_appended'
        ORDER BY e.last_offset
        LIMIT _batch
    LOOP
        -- A claim starts at the next chunk offset and may begin and end inside an event.
        _hi := greatest(_from, _event.last_offset - _event.n + 1);
        _lo := coalesce(_lo, _hi);
        _total := _total + _event.last_offset + 1 - _hi;
        _hi := _event.last_offset + 1 - greatest(_total - _batch, 0);
        EXIT WHEN _total >= _batch;
    END LOOP;
    IF _lo IS NULL THEN
        RETURN;
    END IF;

    INSERT INTO leases (consumer_group, partition, lo, hi, owner, expires)
    VALUES (_group, _partition, _lo, _hi, _owner, clock_timestamp() + _lease)
    RETURNING * INTO _lease_row;
    RETURN NEXT _lease_row;
    PERFORM move_frontier(_group, _partition, _frontier);
END
$$;

-- Takes an expired range over with a higher epoch. An expired range of several chunks is halved at its
-- second expiry; one of a single chunk counts the expiry as an attempt (rule 11).
CREATE FUNCTION take_over(_group text, _partition integer, _lo bigint, _lease interval, _owner text)
RETURNS SETOF leases
LANGUAGE plpgsql AS $$
DECLARE
    _old     leases;
    _expired integer;
BEGIN
    PERFORM FROM leases
    WHERE consumer_group = _group AND partition = _partition AND lo = _lo
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- A new statement: the lock may have been had because its holder just completed or renewed (rule 1).
    SELECT * INTO _old
    FROM leases l
    WHERE l.consumer_group = _group AND l.partition = _partition AND l.lo = _lo
      AND l.expires <= clock_timestamp()
      AND NOT EXISTS (
          SELECT FROM done d
          WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
      );
    IF NOT FOUND THEN
        RETURN;
    END IF;
    _expired := CASE WHEN _old.owner IS NULL THEN 0 ELSE 1 END;

    IF _expired = 1 AND _old.attempts >= 1 AND _old.hi - _old.lo > 1 THEN
        PERFORM halve(_old);
        RETURN QUERY
        UPDATE leases
        SET owner = _owner, expires = clock_timestamp() + _lease
        WHERE consumer_group = _group AND partition = _partition AND lo = _lo
        RETURNING *;
    ELSE
        RETURN QUERY
        UPDATE leases
        SET epoch = epoch + 1, attempts = attempts + _expired, owner = _owner,
            expires = clock_timestamp() + _lease
        WHERE consumer_group = _group AND partition = _partition AND lo = _lo
        RETURNING *;
    END IF;
END
$$;

-- Splits a range in two that anybody may claim; both get the parent's epoch plus one (rule 11).
-- The caller holds the lease's lock.
CREATE FUNCTION halve(_range leases) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _middle bigint := (_range.lo + _range.hi) / 2;
BEGIN
    UPDATE leases
    SET hi = _middle, epoch = _range.epoch + 1, attempts = 0, owner = NULL, expires = '-infinity'
    WHERE consumer_group = _range.consumer_group AND partition = _range.partition AND lo = _range.lo;

    INSERT INTO leases (consumer_group, partition, lo, hi, epoch, owner, expires)
    VALUES (_range.consumer_group, _range.partition, _middle, _range.hi, _range.epoch + 1, NULL, '-infinity');
END
$$;

-- Deletes finished ranges, 32 or more at a time, and moves the frontier to the first unfinished one.
-- The last range stays: it holds the claimed position. The caller holds the progress row's lock.
CREATE FUNCTION move_frontier(_group text, _partition integer, _frontier bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    _finished bigint[];
    _last     bigint;
BEGIN
    IF (
        SELECT count(*) < 32
        FROM (
            SELECT FROM done
            WHERE consumer_group = _group AND partition = _partition AND lo >= _frontier
            LIMIT 32
        ) AS finished
    ) THEN
        RETURN;
    END IF;

    SELECT max(lo) INTO _last
    FROM leases
    WHERE consumer_group = _group AND partition = _partition;

    SELECT array_agg(lo) INTO _finished
    FROM done
    WHERE consumer_group = _group AND partition = _partition AND lo < _last;

    DELETE FROM leases
    WHERE consumer_group = _group AND partition = _partition AND lo = ANY (_finished);
    DELETE FROM done
    WHERE consumer_group = _group AND partition = _partition AND lo = ANY (_finished);
    UPDATE progress
    SET position = (
        SELECT min(lo)
        FROM leases
        WHERE consumer_group = _group AND partition = _partition
    )
    WHERE consumer_group = _group AND partition = _partition;
END
$$;

-- Whether a claim in the partition would find something; asked without a lock, so only a hint.
CREATE FUNCTION has_work(_group text, _partition integer) RETURNS boolean
STABLE LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT FROM events e
        WHERE e.partition = _partition AND e.type = 'chunks_appended'
          AND e.last_offset >= claimed_position(_group, _partition)
    ) OR EXISTS (
        SELECT FROM progress p
        JOIN leases l USING (consumer_group, partition)
        WHERE p.consumer_group = _group AND p.partition = _partition
          AND l.lo >= p.position AND l.expires <= clock_timestamp()
          AND NOT EXISTS (
              SELECT FROM done d
              WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
          )
    )
$$;

-- Claims in the first partition, from `_start` round, that has something to claim.
CREATE FUNCTION claim(_group text, _batch integer, _lease interval, _owner text, _start integer)
RETURNS SETOF leases
LANGUAGE plpgsql AS $$
DECLARE
    _partition integer;
    _claimed   leases;
BEGIN
    PERFORM require_read_committed();
    FOR _partition IN
        SELECT p.partition
        FROM progress p
        WHERE p.consumer_group = _group
        ORDER BY p.partition < _start, p.partition
    LOOP
        CONTINUE WHEN NOT has_work(_group, _partition);
        SELECT * INTO _claimed FROM claim_in(_group, _partition, _batch, _lease, _owner);
        IF FOUND THEN
            RETURN NEXT _claimed;
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- Locks a lease that is still the caller's by epoch; a zombie is refused here (invariant 8).
CREATE FUNCTION lock_lease(_group text, _partition integer, _lo bigint, _epoch integer) RETURNS leases
LANGUAGE plpgsql AS $$
DECLARE
    _held leases;
BEGIN
    PERFORM require_read_committed();
    SELECT * INTO _held
    FROM leases
    WHERE consumer_group = _group AND partition = _partition AND lo = _lo AND epoch = _epoch
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'range % of partition % is not held under epoch % any more', _lo, _partition, _epoch
            USING ERRCODE = 'CS002';
    END IF;
    RETURN _held;
END
$$;

CREATE FUNCTION mark_done(_group text, _partition integer, _lo bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO done (consumer_group, partition, lo)
    VALUES (_group, _partition, _lo)
    ON CONFLICT DO NOTHING
$$;

-- --- ordered groups: one range at a time -------------------------------------------------------

-- Locks a checkpoint that is still the caller's by epoch.
CREATE FUNCTION lock_checkpoint(_group text, _partition integer, _epoch integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM require_read_committed();
    PERFORM FROM progress
    WHERE consumer_group = _group AND partition = _partition AND epoch = _epoch
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the checkpoint of partition % is not held under epoch % any more', _partition, _epoch
            USING ERRCODE = 'CS002';
    END IF;
END
$$;
