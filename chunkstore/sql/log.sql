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

-- name: append_unless_late
-- Locks the partition and appends the events; returns the models that came meanwhile, and then appends none (rule 9).
SELECT append_unless_late(%(partition)s, %(collection)s, %(models)s, %(events)s::jsonb);

-- name: partitions
-- How many partitions the log has.
SELECT count(*)
FROM partitions;

-- name: set_partitions
-- Gives a log that nobody has used yet so many.
SELECT set_partitions(%(count)s);
