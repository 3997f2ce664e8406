-- name: create_group
-- Gives a group a progress row in every partition; a new group starts at offset 0. One that is there already
-- is not tried: a conflict waits for whoever changes the row, and may hold what he waits for.
INSERT INTO progress (consumer_group, partition)
SELECT %(group)s, partition
FROM partitions p
WHERE NOT EXISTS (
    SELECT FROM progress g
    WHERE g.consumer_group = %(group)s
      AND g.partition = p.partition
)
ON CONFLICT DO NOTHING;

-- name: claim
-- Claims one range of a shared group, trying partitions from `start` round.
SELECT partition, lo, hi, epoch, attempts
FROM claim(%(group)s, %(batch)s, %(lease)s::interval, %(owner)s, %(start)s);

-- name: renew
-- Extends a lease that is still held under that epoch. No row: it was taken over or given back.
UPDATE leases
SET expires = clock_timestamp() + %(lease)s::interval
WHERE consumer_group = %(group)s
  AND partition = %(partition)s
  AND lo = %(lo)s
  AND epoch = %(epoch)s
  AND owner IS NOT NULL
RETURNING lo;

-- name: release
-- Gives a range back unfinished; no attempt is counted. No row where it was given back already.
UPDATE leases
SET owner = NULL, expires = clock_timestamp() + %(delay)s::interval
WHERE consumer_group = %(group)s
  AND partition = %(partition)s
  AND lo = %(lo)s
  AND epoch = %(epoch)s
  AND owner IS NOT NULL
RETURNING lo;

-- name: halve
-- Splits a failed range of several chunks in two (rule 11).
SELECT halve(lock_lease(%(group)s, %(partition)s, %(lo)s, %(epoch)s));

-- name: count_attempt
-- Counts a failure of a range of one chunk and lets anybody claim it after the delay.
UPDATE leases
SET attempts = attempts + 1, owner = NULL, expires = clock_timestamp() + %(delay)s::interval
WHERE consumer_group = %(group)s
  AND partition = %(partition)s
  AND lo = %(lo)s
  AND epoch = %(epoch)s
  AND owner IS NOT NULL
RETURNING attempts;

-- name: idle
-- Whether nothing of the group is in flight and no chunk waits to be claimed.
SELECT NOT EXISTS (
    SELECT FROM progress p
    WHERE p.consumer_group = %(group)s
      AND (
          has_work(%(group)s, p.partition)
          OR EXISTS (
              SELECT FROM leases l
              WHERE l.consumer_group = %(group)s
                AND l.partition = p.partition
                AND l.lo >= p.position
                AND NOT EXISTS (
                    SELECT FROM done d
                    WHERE (d.consumer_group, d.partition, d.lo) = (l.consumer_group, l.partition, l.lo)
                )
          )
      )
);

-- name: partitions_behind
-- The partitions where an ordered group's checkpoint is behind the head and nobody holds it.
SELECT p.partition
FROM progress p
WHERE p.consumer_group = %(group)s
  AND p.expires <= clock_timestamp()
  AND EXISTS (
      SELECT FROM events e
      WHERE e.partition = p.partition
        AND e.last_offset >= p.position
  )
ORDER BY p.partition;

-- name: claim_checkpoint
-- Claims an ordered group's checkpoint: the lease is columns of the row that is locked (rule 22). The owner
-- may claim it again, under a new epoch: its last batch ended in an error.
UPDATE progress
SET epoch = epoch + 1, owner = %(owner)s, expires = clock_timestamp() + %(lease)s::interval
WHERE (consumer_group, partition) IN (
    SELECT consumer_group, partition
    FROM progress
    WHERE consumer_group = %(group)s
      AND partition = %(partition)s
      AND (expires <= clock_timestamp() OR owner = %(owner)s)
    FOR UPDATE SKIP LOCKED
)
RETURNING partition, position, epoch;

-- name: renew_checkpoint
-- Extends a checkpoint's lease that is still held under that epoch.
UPDATE progress
SET expires = clock_timestamp() + %(lease)s::interval
WHERE consumer_group = %(group)s
  AND partition = %(partition)s
  AND epoch = %(epoch)s
RETURNING partition;

-- name: release_checkpoint
-- Moves a checkpoint, if it is still held under that epoch, and gives its lease back.
UPDATE progress
SET position = %(position)s, owner = NULL, expires = '-infinity'
WHERE consumer_group = %(group)s
  AND partition = %(partition)s
  AND epoch = %(epoch)s
RETURNING partition;

-- name: ordered_idle
-- Whether every checkpoint of an ordered group has reached the head of its partition.
SELECT NOT EXISTS (
    SELECT FROM progress p
    JOIN events e ON e.partition = p.partition AND e.last_offset >= p.position
    WHERE p.consumer_group = %(group)s
);
