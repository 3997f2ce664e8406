-- name: holders
-- The transactions that hold a table; another session's age is not everybody's to see.
SELECT virtualtransaction
FROM pg_locks
WHERE locktype = 'relation'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = to_regclass(quote_ident(%(table)s))
  AND granted;

-- name: left_out
-- The chunks of the live table's rows that the new one has no row of.
SELECT live.chunk_id
FROM {live} live
WHERE NOT EXISTS (
    SELECT FROM {search} s
    WHERE s.chunk_id = live.chunk_id
)
ORDER BY live.chunk_id;

-- name: lock_chunks
-- Whoever writes a vector holds its chunk (rule 20).
SELECT chunk_id
FROM chunks
WHERE chunk_id = ANY (%(chunks)s::bigint[])
ORDER BY chunk_id
FOR KEY SHARE;

-- name: lock_active
-- Those that searches see.
SELECT c.chunk_id
FROM chunks c
WHERE c.chunk_id = ANY (%(chunks)s::bigint[])
  AND EXISTS (SELECT FROM {active} a WHERE a.chunk_id = c.chunk_id)
ORDER BY c.chunk_id
FOR KEY SHARE OF c;

-- name: lock_unheld
-- Those that nobody is removing.
SELECT chunk_id
FROM chunks
WHERE chunk_id = ANY (%(chunks)s::bigint[])
ORDER BY chunk_id
FOR KEY SHARE SKIP LOCKED;

-- name: remove_gone
-- What was superseded and removed after it was copied.
DELETE FROM {search} s
WHERE NOT EXISTS (
    SELECT FROM {live} live
    WHERE live.chunk_id = s.chunk_id
);
