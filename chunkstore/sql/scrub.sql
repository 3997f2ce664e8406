-- name: may_see
-- Whether the role sees the transactions of others.
SELECT pg_has_role('pg_read_all_stats', 'USAGE');

-- name: next_transaction
-- The number before which every erasure was that has committed.
SELECT pg_snapshot_xmax(pg_current_snapshot())::xid::text;

-- name: still_seen
-- Who may still see rows that were deleted before that number; what they may see, no rewrite leaves out.
SELECT 'process ' || pid
FROM pg_stat_activity
WHERE pid <> pg_backend_pid()
  AND (datname = current_database() OR datname IS NULL)
  AND greatest(age(backend_xid), age(backend_xmin)) > age(%(before)s::xid)
UNION ALL
SELECT 'the prepared transaction ' || gid
FROM pg_prepared_xacts
WHERE database = current_database() AND age(transaction) > age(%(before)s::xid)
UNION ALL
SELECT 'the replication slot ' || slot_name
FROM pg_replication_slots
WHERE age(xmin) > age(%(before)s::xid);

-- name: tables
-- The tables with columns that keep no samples, which are those that hold content, keys or vectors (rule 20).
SELECT DISTINCT c.relname::text
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
  AND c.relkind = 'r'
  AND a.attstattarget = 0
ORDER BY 1;

-- name: rewrite
-- A new file for the table and each of its indexes; the old ones are gone at the commit.
VACUUM (FULL, ANALYZE) {table};

-- name: log_files_ahead
-- Files of the log that are still to be used, the old ones among them that were given a new name.
SELECT count(*)
FROM pg_ls_waldir()
WHERE name ~ '^[0-9A-F]{24}$'
  AND name COLLATE "C" > pg_walfile_name(pg_current_wal_insert_lsn());

-- name: next_log_file
-- Something to switch for, and the switch, which fills the rest of the file with zeros.
SELECT pg_logical_emit_message(false, 'chunkstore', ''), pg_switch_wal();

-- name: checkpoint
CHECKPOINT;
