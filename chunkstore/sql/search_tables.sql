-- name: create_search_table
-- The vectors of one collection and model; their index comes when there are enough of them.
CREATE TABLE {search} (
    chunk_id  bigint PRIMARY KEY,
    embedding {type} NOT NULL
);

-- name: keep_no_samples
-- Keeps no samples of vectors in the statistics (rule 20).
ALTER TABLE {search} ALTER COLUMN embedding SET STATISTICS 0;

-- name: create_active_table
-- Membership alone: what a switch writes.
CREATE TABLE {active} (
    chunk_id bigint PRIMARY KEY,
    file     bigint NOT NULL
);

-- name: grant_search_tables
-- Lets those read the tables of a collection who may.
SELECT grant_search_tables(%(collection)s);
