-- name: next_chunks
-- The next chunks that a search table has rows of.
SELECT chunk_id
FROM {search}
WHERE chunk_id > %(after)s
ORDER BY chunk_id
LIMIT %(limit)s;

-- name: lock_chunks
-- Whoever writes a vector holds its chunk (rule 20).
SELECT chunk_id
FROM chunks
WHERE chunk_id = ANY (%(chunks)s::bigint[])
ORDER BY chunk_id
FOR KEY SHARE;

-- name: lock_left_out
-- What was staged or switched to after it was copied. A chunk that somebody has locked is being swept, with its row:
-- to wait for it here would be a deadlock.
SELECT c.chunk_id
FROM chunks c
WHERE c.chunk_id IN (
        SELECT live.chunk_id
        FROM {live} live
        WHERE NOT EXISTS (SELECT FROM {search} s WHERE s.chunk_id = live.chunk_id)
    )
ORDER BY c.chunk_id
FOR KEY SHARE SKIP LOCKED;

-- name: remove_gone
-- What was superseded and removed after it was copied.
DELETE FROM {search} s
WHERE NOT EXISTS (
    SELECT FROM {live} live
    WHERE live.chunk_id = s.chunk_id
);
