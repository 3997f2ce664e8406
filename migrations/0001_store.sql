-- The tables of a store. One schema holds them all; names are unqualified, the search_path decides.
-- Columns that hold content, keys, vectors or metadata keep no statistics (rule 20): Postgres would
-- keep samples of erased values in pg_statistic.

-- --- the log -----------------------------------------------------------------------------------

-- A partition's row is its lock and never changes: a counter here would bloat under an old snapshot.
CREATE TABLE partitions (
    partition integer PRIMARY KEY
);

INSERT INTO partitions
SELECT generate_series(0, 15);

CREATE TABLE events (
    partition   integer     NOT NULL,
    last_offset bigint      NOT NULL,
    n           integer     NOT NULL CHECK (n BETWEEN 1 AND 1024),
    type        text        NOT NULL,
    file        bigint,
    version     integer,
    first_chunk bigint,
    chunks      bigint[],
    data        jsonb,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, last_offset)
);

-- Claims step from one run of chunks to the next and never read what lies between.
CREATE INDEX events_chunks_appended ON events (partition, last_offset) WHERE type = 'chunks_appended';

-- --- collections and models --------------------------------------------------------------------

CREATE TABLE models (
    model      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text    NOT NULL UNIQUE,
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 16000),
    distance   text    NOT NULL CHECK (distance IN ('cosine', 'l2', 'ip'))
);

CREATE TABLE collections (
    collection integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    keep_last  integer     NOT NULL DEFAULT 3 CHECK (keep_last >= 1),
    keep_for   interval,
    -- Whether a chunk's heading path is part of the text that the models are given.
    headings   boolean     NOT NULL DEFAULT true,
    -- Part of every hash of a chunk, so that no tenant can work out what the index holds of another's texts.
    salt       bytea       NOT NULL DEFAULT decode(replace(gen_random_uuid()::text, '-', ''), 'hex'),
    serving    integer     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE collection_models (
    collection   integer     NOT NULL,
    model        integer     NOT NULL,
    search_table text        NOT NULL,
    active_table text        NOT NULL,
    -- The last file that a back-fill has logged; NULL when there is none to do.
    backfilled   bigint,
    -- A rebuild is filling `<search_table>_rebuild` and `<active_table>_rebuild`.
    rebuilding   boolean     NOT NULL DEFAULT false,
    added_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection, model)
);

-- --- files, versions, manifests ----------------------------------------------------------------

CREATE TABLE files (
    file         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection   integer     NOT NULL,
    -- NULL once erased; the row and its counter stay (rule 6).
    key          text,
    partition    integer     NOT NULL,
    last_version integer     NOT NULL DEFAULT 0,
    latest       integer     NOT NULL DEFAULT 0,
    target       integer     NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (collection, key)
) WITH (fillfactor = 80);

CREATE TABLE versions (
    file          bigint      NOT NULL,
    version       integer     NOT NULL,
    state         text        NOT NULL CHECK (state IN ('open', 'committed', 'abandoned', 'collected')),
    tombstone     boolean     NOT NULL DEFAULT false,
    pinned        boolean     NOT NULL DEFAULT false,
    chunks        integer     NOT NULL DEFAULT 0,
    reused        integer     NOT NULL DEFAULT 0,
    added         integer     NOT NULL DEFAULT 0,
    -- The manifest: per segment its number and the bases that its relative places stand on.
    segments      bigint[]    NOT NULL DEFAULT '{}',
    base_ordinals integer[]   NOT NULL DEFAULT '{}',
    base_chars    integer[]   NOT NULL DEFAULT '{}',
    base_pages    integer[]   NOT NULL DEFAULT '{}',
    base_lines    integer[]   NOT NULL DEFAULT '{}',
    digest        bytea,
    metadata      jsonb       NOT NULL DEFAULT '{}',
    opened_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    committed_at  timestamptz,
    deadline      timestamptz,
    PRIMARY KEY (file, version)
);

CREATE INDEX versions_open ON versions (deadline) WHERE state = 'open';
CREATE INDEX versions_to_sweep ON versions (file) WHERE state IN ('abandoned', 'collected') AND segments <> '{}';

CREATE SEQUENCE segment_ids;

CREATE TABLE segments (
    segment   bigint    PRIMARY KEY,
    file      bigint    NOT NULL,
    -- Of the chunk hashes and relative places: equal runs of one file share a segment.
    digest    bytea     NOT NULL,
    min_chunk bigint    NOT NULL,
    max_chunk bigint    NOT NULL,
    -- Whether each id is one more than the id before: then a chunk's place is known without reading them.
    consecutive boolean NOT NULL DEFAULT false,
    chunks    bigint[]  NOT NULL,
    -- 16 bytes a chunk, in the order of `chunks`.
    hashes    bytea     NOT NULL,
    starts    integer[],
    ends      integer[],
    pages     integer[],
    lines     integer[]
);

CREATE INDEX segments_by_digest ON segments (file, digest);
CREATE INDEX segments_by_range ON segments (file, min_chunk, max_chunk);

CREATE TABLE idempotency_keys (
    file    bigint  NOT NULL,
    key     text    NOT NULL,
    version integer NOT NULL,
    digest  bytea   NOT NULL,
    PRIMARY KEY (file, key)
);

-- --- payload -----------------------------------------------------------------------------------

-- One value of the sequence is a block of 1,024 ids, so that a run of chunks is one event.
CREATE SEQUENCE chunk_id_blocks;

CREATE TABLE chunks (
    chunk_id  bigint PRIMARY KEY,
    file      bigint NOT NULL,
    hash      bytea  NOT NULL,
    text_hash bytea  NOT NULL,
    content   text   NOT NULL,
    metadata  jsonb  NOT NULL
);

-- Keys are random, so a small index counts: docs/decisions/0017-index-of-texts.md.
CREATE INDEX chunks_by_text ON chunks USING hash (text_hash);

CREATE TABLE embeddings (
    chunk_id  bigint  NOT NULL,
    model     integer NOT NULL,
    embedding vector  NOT NULL,
    PRIMARY KEY (chunk_id, model)
);

CREATE TABLE dead_letters (
    chunk_id  bigint      NOT NULL,
    model     integer     NOT NULL,
    file      bigint      NOT NULL,
    state     text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'discarded')),
    attempts  integer     NOT NULL,
    error     text        NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chunk_id, model)
);

CREATE INDEX dead_letters_by_file ON dead_letters (file, model);
-- Few or none, so that a range asks once whether it has to look for any.
CREATE INDEX dead_letters_discarded ON dead_letters (model) WHERE state = 'discarded';

-- --- consumers and projections -----------------------------------------------------------------

-- A shared group's frontier, or an ordered group's checkpoint with its lease in the same row (rule 22).
CREATE TABLE progress (
    consumer_group text        NOT NULL,
    partition      integer     NOT NULL,
    position       bigint      NOT NULL DEFAULT 0,
    epoch          integer     NOT NULL DEFAULT 0,
    owner          text,
    expires        timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (consumer_group, partition)
) WITH (fillfactor = 50);

-- Claims of a shared group. An owner of NULL was released, halved or failed: no expiry to count.
CREATE TABLE leases (
    consumer_group text        NOT NULL,
    partition      integer     NOT NULL,
    lo             bigint      NOT NULL,
    hi             bigint      NOT NULL CHECK (hi > lo),
    epoch          integer     NOT NULL DEFAULT 1,
    attempts       integer     NOT NULL DEFAULT 0,
    owner          text,
    expires        timestamptz NOT NULL,
    PRIMARY KEY (consumer_group, partition, lo)
);

CREATE TABLE done (
    consumer_group text    NOT NULL,
    partition      integer NOT NULL,
    lo             bigint  NOT NULL,
    PRIMARY KEY (consumer_group, partition, lo)
);

-- What searches see, and how far the next target is known to be complete (rule 16).
CREATE TABLE active_versions (
    file    bigint  NOT NULL,
    model   integer NOT NULL,
    version integer,
    target  integer NOT NULL DEFAULT 0,
    cursor  integer NOT NULL DEFAULT 0,
    PRIMARY KEY (file, model)
) WITH (fillfactor = 80);

-- --- storage -----------------------------------------------------------------------------------

ALTER TABLE segments
    ALTER COLUMN chunks SET STORAGE EXTERNAL,
    ALTER COLUMN hashes SET STORAGE EXTERNAL,
    ALTER COLUMN hashes SET STATISTICS 0,
    ALTER COLUMN digest SET STATISTICS 0;

ALTER TABLE collections ALTER COLUMN salt SET STATISTICS 0;

ALTER TABLE files ALTER COLUMN key SET STATISTICS 0;

ALTER TABLE versions
    ALTER COLUMN metadata SET STATISTICS 0,
    ALTER COLUMN digest SET STATISTICS 0;

ALTER TABLE idempotency_keys
    ALTER COLUMN key SET STATISTICS 0,
    ALTER COLUMN digest SET STATISTICS 0;

ALTER TABLE chunks
    ALTER COLUMN hash SET STATISTICS 0,
    ALTER COLUMN text_hash SET STATISTICS 0,
    ALTER COLUMN content SET STATISTICS 0,
    ALTER COLUMN metadata SET STATISTICS 0;

ALTER TABLE embeddings ALTER COLUMN embedding SET STATISTICS 0;

ALTER TABLE dead_letters ALTER COLUMN error SET STATISTICS 0;

-- --- immutability (invariant 2) ----------------------------------------------------------------

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows never change once committed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER events_are_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_immutable;

CREATE TRIGGER chunks_are_immutable
    BEFORE UPDATE OR TRUNCATE ON chunks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE chunks ENABLE ALWAYS TRIGGER chunks_are_immutable;

CREATE TRIGGER embeddings_are_immutable
    BEFORE UPDATE OR TRUNCATE ON embeddings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE embeddings ENABLE ALWAYS TRIGGER embeddings_are_immutable;

CREATE TRIGGER segments_are_immutable
    BEFORE UPDATE OR TRUNCATE ON segments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE segments ENABLE ALWAYS TRIGGER segments_are_immutable;
