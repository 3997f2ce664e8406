-- The file on disk that a version was made of: by it an ingestion passes over what has not changed.

-- Beside the version and not in its metadata, which is part of what 'unchanged' means: a file that is only
-- touched gets a new row here, and no version. Valid only while `version` is the latest and the target.
CREATE TABLE sources (
    file     bigint  PRIMARY KEY,
    version  integer NOT NULL,
    size     bigint  NOT NULL,
    -- NULL where it was so young that a later write might have left it the same.
    mtime_ns bigint,
    -- BLAKE2b of the content, 16 bytes.
    hash     bytea   NOT NULL,
    -- What read the file and what cut it, with their versions.
    parser   text    NOT NULL,
    chunker  text    NOT NULL
) WITH (fillfactor = 80);

ALTER TABLE sources
    ALTER COLUMN size SET STATISTICS 0,
    ALTER COLUMN mtime_ns SET STATISTICS 0,
    ALTER COLUMN hash SET STATISTICS 0;
