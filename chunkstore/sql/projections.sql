-- name: activate
-- Switches what is complete among the files, under the checkpoint's lease (rules 15 to 17).
SELECT file, outcome
FROM activate(%(model)s, %(partition)s, %(epoch)s, %(files)s::bigint[]);

-- name: stage_target
-- Stages a batch of search rows that a target lacks (rule 17); returns the segment to go on with.
SELECT stage_target(%(model)s, %(partition)s, %(epoch)s, %(file)s, %(first)s, %(limit)s);

-- name: left_behind
-- The chunks that a switch left behind.
SELECT left_behind(%(file)s, %(previous)s, %(active)s);

-- name: born_superseded
-- The chunks of a version that was committed after a later one, and of those between, but for the target's.
SELECT left_behind(%(file)s, %(version)s, (SELECT f.target FROM files f WHERE f.file = %(file)s));

-- name: idle_chunks
-- Embedded chunks that nothing needs any more, by file.
SELECT file, chunks
FROM idle_chunks(%(model)s, %(files)s::bigint[], %(chunks)b::bigint[]);

-- name: remove_superseded
-- Removes search rows that nothing needs any more, under the file's lock (rule 18).
SELECT remove_superseded(%(model)s, %(file)s, %(chunks)s::bigint[]);
