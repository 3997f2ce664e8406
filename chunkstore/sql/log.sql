-- name: append
-- Appends events to a partition under its lock, if the role may log them; returns the offset after the last.
SELECT append_checked(%(partition)s, %(events)s::jsonb);

-- name: read
-- Reads the events of a partition that cover offsets from `start` on, in their order.
SELECT last_offset, n, type, file, version, first_chunk, chunks, data
FROM events
WHERE partition = %(partition)s
  AND last_offset >= %(start)s
ORDER BY last_offset
LIMIT %(limit)s;

-- name: head
-- The offset that the next event of the partition will begin at.
SELECT coalesce(max(last_offset) + 1, 0)
FROM events
WHERE partition = %(partition)s;

-- name: models_under_lock
-- Locks the partition and returns the collection's models as they are then (rule 9).
SELECT lock_partition_and_read_models(%(partition)s, %(collection)s);
