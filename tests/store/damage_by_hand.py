"""Damage done by hand to the store of `fix_lived`, and what `verify` must say of it.

`{key}` stands for a file's number, `{search}` and `{active}` for the tables of its model.
"""

from typing import Any, NamedTuple


class Damage(NamedTuple):
    """Statements that break a sound store, the checks that must report it, a part of a row that they show."""

    statements: str
    breaks: set[str]
    shows: dict[str, Any]
    """Values by column; where the column names a file, its key."""


DAMAGE = {
    "a gap in the log": Damage(
        """INSERT INTO events (partition, last_offset, n, type)
           SELECT 3, count(*) + 999, 1, 'pinned' FROM events""",
        {"dense_offsets"},
        {"partition": 3},
    ),
    "two events at one offset": Damage(
        """INSERT INTO events (partition, last_offset, n, type, file, version, first_chunk)
           SELECT e.partition, max(e.last_offset) + 1, 2, 'chunks_appended', {long}, 1, 1
           FROM events e JOIN files f ON f.file = {long} AND f.partition = e.partition
           GROUP BY e.partition""",
        {"dense_offsets"},
        {},
    ),
    "an event whose run is not as long as it says": Damage(
        """UPDATE events SET chunks = '{{1}}', first_chunk = NULL
           WHERE file = {long} AND type = 'chunks_appended' AND n > 1""",
        {"event_shapes"},
        {"file": "long", "chunks": 1},
    ),
    "an event of one thing that covers more": Damage(
        """INSERT INTO events (partition, last_offset, n, type)
           SELECT 0, coalesce(max(last_offset), -1) + 2, 2, 'pinned' FROM events WHERE partition = 0""",
        {"event_shapes"},
        {"n": 2},
    ),
    "an event whose data nobody can read": Damage(
        """UPDATE events SET data = '{{"target": "yes"}}'
           WHERE file = {long} AND type = 'version_committed' AND version = 1""",
        {"event_shapes"},
        {"file": "long", "version": 1},
    ),
    "an event in a partition that is not its file's": Damage(
        """UPDATE events e SET file = (SELECT min(file) FROM files f WHERE f.partition <> e.partition)
           WHERE type = 'pinned'""",
        {"event_partitions"},
        {"type": "pinned"},
    ),
    "a trigger that was dropped": Damage(
        "DROP TRIGGER chunks_are_immutable ON chunks",
        {"immutability"},
        {"table_name": "chunks", "problem": "missing"},
    ),
    "a trigger that a replica's role passes": Damage(
        "ALTER TABLE events ENABLE TRIGGER events_are_immutable",
        {"immutability"},
        {"table_name": "events", "problem": "not enabled for every role"},
    ),
    "a trigger that lets deletions pass": Damage(
        """DROP TRIGGER events_are_immutable ON events;
           CREATE TRIGGER events_are_immutable BEFORE UPDATE ON events
           FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
           ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_immutable""",
        {"immutability"},
        {"problem": "does not refuse all that it should"},
    ),
    "a manifest that lists a segment that is not there": Damage(
        """UPDATE versions SET segments = segments || 999999, base_ordinals = base_ordinals || 0,
               base_chars = base_chars || 0, base_pages = base_pages || 0, base_lines = base_lines || 0
           WHERE file = {pinned} AND version = 1""",
        {"manifest_segments"},
        {"file": "pinned", "version": 1, "segment": 999999, "file_of_segment": None},
    ),
    "a segment that is gone": Damage(
        "DELETE FROM segments WHERE segment = (SELECT segments[1] FROM versions WHERE file = {long})",
        {"manifest_segments", "manifest_lengths", "orphan_chunks", "active_manifests"},
        {"file": "long"},
    ),
    "a version with more bases than segments": Damage(
        "UPDATE versions SET base_pages = base_pages || 0 WHERE file = {pinned} AND version = 1",
        {"manifest_arrays"},
        {"file": "pinned", "version": 1, "segments": 1, "base_pages": 2},
    ),
    "a version that miscounts its chunks": Damage(
        "UPDATE versions SET chunks = chunks + 1 WHERE file = {pinned} AND version = 1",
        {"manifest_lengths"},
        {"file": "pinned", "chunks": 3, "chunks_of_segments": 2},
    ),
    "a segment that does not begin where the last one ends": Damage(
        "UPDATE versions SET base_ordinals[2] = base_ordinals[2] + 1 WHERE file = {long}",
        {"manifest_lengths"},
        {"file": "long", "wrong_bases": 1},
    ),
    "a segment with wrong bounds": Damage(
        "UPDATE segments SET min_chunk = min_chunk - 1 WHERE file = {rolled_back} AND chunks[1] = min_chunk",
        {"segment_arrays"},
        {"file": "rolled_back"},
    ),
    "a segment that calls its chunks consecutive, which they are not": Damage(
        "UPDATE segments SET consecutive = true WHERE file = {changed} AND NOT consecutive",
        {"segment_arrays"},
        {"file": "changed", "consecutive": True},
    ),
    "a segment with places for fewer chunks": Damage(
        "UPDATE segments SET starts = starts[2:] WHERE file = {pinned}",
        {"segment_arrays"},
        {"file": "pinned", "chunks": 2, "starts": 1},
    ),
    "a segment whose hashes are cut": Damage(
        "UPDATE segments SET hashes = substring(hashes FROM 1 FOR 16) WHERE file = {discarded}",
        {"segment_arrays", "manifest_chunks"},
        {"file": "discarded"},
    ),
    "a chunk that changed": Damage(
        "UPDATE chunks SET hash = '\\x00' WHERE file = {rolled_back} AND content = 'after'",
        {"manifest_chunks"},
        {"file": "rolled_back", "file_of_chunk": "rolled_back"},
    ),
    "a chunk that is gone": Damage(
        "DELETE FROM chunks WHERE file = {rolled_back} AND content = 'before'",
        {"manifest_chunks", "embeddings_of_chunks", "search_rows", "active_rows"},
        {"file": "rolled_back", "file_of_chunk": None},
    ),
    "a chunk of another file": Damage(
        "UPDATE chunks SET file = {pinned} WHERE file = {rolled_back} AND content = 'before'",
        {"manifest_chunks", "orphan_chunks", "active_rows"},
        {"file": "rolled_back", "file_of_chunk": "pinned"},
    ),
    "a chunk that stands twice in its file": Damage(
        """INSERT INTO chunks (chunk_id, file, hash, text_hash, content, metadata)
           SELECT 999999, file, hash, text_hash, content, metadata
           FROM chunks WHERE file = {long} ORDER BY chunk_id LIMIT 1""",
        {"chunks_once", "orphan_chunks"},
        {"file": "long", "chunk_versions": 2},
    ),
    "a latest version that is not the highest": Damage(
        "UPDATE files SET latest = latest - 1 WHERE file = {changed}",
        {"latest_versions"},
        {"file": "changed", "latest": 3, "highest_committed": 4},
    ),
    "a counter that would give a number again": Damage(
        "UPDATE files SET last_version = 1 WHERE file = {changed}",
        {"latest_versions"},
        {"file": "changed", "last_version": 1},
    ),
    "an embedding without its chunk": Damage(
        "INSERT INTO embeddings VALUES (999999, 1, '[1,0,0,0,0,0,0,0]')",
        {"embeddings_of_chunks"},
        {"chunk_id": 999999, "model": 1},
    ),
    "two embeddings of a chunk": Damage(
        """ALTER TABLE embeddings DROP CONSTRAINT embeddings_pkey;
           INSERT INTO embeddings SELECT e.* FROM embeddings e
           JOIN chunks c USING (chunk_id) WHERE c.content = 'after'""",
        {"embeddings_once"},
        {"embeddings": 2},
    ),
    "an embedding of the wrong length": Damage(
        """UPDATE embeddings SET embedding = '[1,2]'
           WHERE chunk_id = (SELECT chunk_id FROM chunks WHERE content = 'second')""",
        {"embedding_shapes"},
        {"dimensions": 2, "dimensions_of_model": 8},
    ),
    "an embedding of zero under cosine distance": Damage(
        """UPDATE embeddings SET embedding = '[0,0,0,0,0,0,0,0]'
           WHERE chunk_id = (SELECT chunk_id FROM chunks WHERE content = 'second')""",
        {"embedding_shapes"},
        {"norm": 0},
    ),
    "a dead letter without its chunk": Damage(
        """INSERT INTO dead_letters (chunk_id, model, file, attempts, error)
           VALUES (999999, 1, {long}, 3, 'no')""",
        {"dead_letters_of_chunks"},
        {"chunk_id": 999999, "file_of_chunk": None},
    ),
    "a dead letter beside the embedding": Damage(
        """INSERT INTO dead_letters (chunk_id, model, file, attempts, error)
           SELECT chunk_id, 1, file, 3, 'no' FROM chunks WHERE content = 'after'""",
        {"dead_letters_of_chunks"},
        {"embedded": True},
    ),
    "a search row without its chunk": Damage(
        "INSERT INTO {search} VALUES (999999, '[1,0,0,0,0,0,0,0]')",
        {"search_rows"},
        {"chunk_id": 999999, "collection_of_chunk": None},
    ),
    "a search row of another collection's chunk": Damage(
        """INSERT INTO {search} SELECT chunk_id, embedding FROM embeddings
           JOIN chunks USING (chunk_id) WHERE content = 'elsewhere'""",
        {"search_rows"},
        {"collection_of_chunk": 2, "embedded": True},
    ),
    "a search row without its embedding": Damage(
        """INSERT INTO {search}
           SELECT chunk_id, '[1,0,0,0,0,0,0,0]' FROM dead_letters WHERE state = 'discarded'""",
        {"search_rows"},
        {"collection_of_chunk": 1, "embedded": False},
    ),
    "a vector that an unfinished rebuild kept of a chunk that is gone": Damage(
        """UPDATE collection_models SET rebuilding = true WHERE collection = 1;
           CREATE TABLE {search}_rebuild (LIKE {search});
           ALTER TABLE {search}_rebuild ALTER COLUMN embedding SET STATISTICS 0;
           CREATE TABLE {active}_rebuild (LIKE {active});
           INSERT INTO {search}_rebuild VALUES (999999, '[1,0,0,0,0,0,0,0]')""",
        {"search_rows"},
        {"search_table": "search_1_1_rebuild", "chunk_id": 999999},
    ),
    "a member without its chunk": Damage(
        "INSERT INTO {active} VALUES (999999, {long})",
        {"active_rows", "active_manifests", "active_complete"},
        {"chunk_id": 999999},
    ),
    "a needed chunk that nobody embedded": Damage(
        "DELETE FROM dead_letters WHERE state = 'open'",
        {"needed_chunks", "active_targets"},
        {"file": "failed"},
    ),
    "a partition without consumers": Damage(
        "DELETE FROM progress WHERE consumer_group = 'project:1' AND partition = 7",
        {"groups"},
        {"consumer_group": "project:1", "partition": 7, "position": None},
    ),
    "a checkpoint beyond the head": Damage(
        "UPDATE progress SET position = 99999 WHERE consumer_group = 'project:1' AND partition = 7",
        {"groups"},
        {"consumer_group": "project:1", "position": 99999},
    ),
    "an active chunk that is not a member": Damage(
        "DELETE FROM {active} WHERE file = {rolled_back}",
        {"active_manifests"},
        {"file": "rolled_back", "problem": "missing"},
    ),
    "a member that no active version names": Damage(
        "INSERT INTO {active} SELECT chunk_id, file FROM chunks WHERE file = {pinned} AND content = 'second'",
        {"active_manifests", "active_searchable"},
        {"file": "pinned", "problem": "in no active version"},
    ),
    "an active chunk that no search finds": Damage(
        "DELETE FROM {search} WHERE chunk_id = (SELECT chunk_id FROM {active} WHERE file = {rolled_back})",
        {"active_searchable"},
        {"file": "rolled_back"},
    ),
    "an active chunk that nobody embedded or discarded": Damage(
        "DELETE FROM dead_letters WHERE state = 'discarded'",
        {"active_complete", "needed_chunks"},
        {"file": "discarded"},
    ),
    "a search table that is gone": Damage(
        "DROP TABLE {search}",
        {"search_tables"},
        {"search_table": "search_1_1"},
    ),
    "a version that became active backwards": Damage(
        """INSERT INTO events (partition, last_offset, n, type, file, version, data)
           SELECT f.partition, max(e.last_offset) + v.version - 2, 1, 'version_activated', f.file, v.version,
                  '{{"model": 1}}'
           FROM files f JOIN events e USING (partition) CROSS JOIN (VALUES (3), (4)) AS v (version)
           WHERE f.file = {pinned} GROUP BY f.partition, f.file, v.version""",
        {"activations"},
        {"file": "pinned", "version": 3, "previous": 4},
    ),
    "two ranges that overlap": Damage(
        """INSERT INTO leases (consumer_group, partition, lo, hi, expires)
           SELECT 'test', partition, v.lo, v.hi, 'infinity'
           FROM files CROSS JOIN (VALUES (0, 2), (1, 3)) AS v (lo, hi) WHERE file = {long};
           INSERT INTO done SELECT consumer_group, partition, lo FROM leases WHERE consumer_group = 'test'""",
        {"lease_ranges"},
        {"lo": 0, "hi": 2, "next_lo": 1},
    ),
    "a range that ends beyond the log": Damage(
        """INSERT INTO leases (consumer_group, partition, lo, hi, expires)
           VALUES ('test', 0, 0, 99999, 'infinity');
           INSERT INTO done VALUES ('test', 0, 0)""",
        {"lease_ranges"},
        {"hi": 99999},
    ),
    "an unfinished range that nobody can claim": Damage(
        """INSERT INTO progress (consumer_group, partition, position) SELECT 'test', partition, 5
           FROM files WHERE file = {long};
           INSERT INTO leases (consumer_group, partition, lo, hi, expires)
           SELECT 'test', partition, 1, 2, '-infinity' FROM files WHERE file = {long}""",
        {"leases_in_reach"},
        {"lo": 1, "position": 5},
    ),
    "a done mark without its range": Damage(
        "INSERT INTO done VALUES ('embed:1', 0, 99999)",
        {"done_marks"},
        {"lo": 99999},
    ),
    "a pinned version that was collected": Damage(
        "UPDATE versions SET pinned = true WHERE state = 'collected'",
        {"kept_versions"},
        {"file": "changed", "role": "pinned", "state": "collected"},
    ),
    "a target that was collected": Damage(
        "UPDATE files SET target = 1 WHERE file = {changed}",
        {"kept_versions", "active_targets"},
        {"file": "changed", "version": 1, "role": "target", "state": "collected"},
    ),
    "a version that was collected though it is one of the last that are kept": Damage(
        "UPDATE collections SET keep_last = 100",
        {"removals"},
        {"file": "changed", "keep_last": 100},
    ),
    "a version that was collected before its time": Damage(
        "UPDATE collections SET keep_for = '1 day'",
        {"removals"},
        {"file": "changed", "keep_for": "1 day"},
    ),
    "a version that was collected without a word in the log": Damage(
        "UPDATE events SET type = 'forgotten' WHERE type = 'version_collected' AND file = {changed}",
        {"removals"},
        {"file": "changed", "decided_at": None},
    ),
    "a chunk that no segment names": Damage(
        "INSERT INTO chunks VALUES (999999, {long}, '\\x00', '\\x00', 'lost', '{{}}')",
        {"orphan_chunks"},
        {"file": "long", "chunk_id": 999999},
    ),
    "a segment that no version lists": Damage(
        """INSERT INTO segments (segment, file, digest, min_chunk, max_chunk, chunks, hashes)
           SELECT 999999, file, digest, min_chunk, max_chunk, chunks, hashes FROM segments
           WHERE file = {rolled_back} LIMIT 1""",
        {"orphan_segments"},
        {"file": "rolled_back", "segment": 999999},
    ),
    "an activation that the projection does not show": Damage(
        """INSERT INTO events (partition, last_offset, n, type, file, version, data)
           SELECT f.partition, max(e.last_offset) + 1, 1, 'version_activated', f.file, 99, '{{"model": 1}}'
           FROM files f JOIN events e USING (partition) WHERE f.file = {changed}
           GROUP BY f.partition, f.file""",
        {"replay"},
        {"file": "changed", "active": 4, "replayed": 99},
    ),
    "a projection that the log does not tell of": Damage(
        "UPDATE active_versions SET version = NULL WHERE file = {deleted}",
        {"replay", "active_targets"},
        {"file": "deleted", "active": None, "replayed": 2},
    ),
    "a search vector that is not the embedding": Damage(
        """UPDATE {search} SET embedding = '[1,0,0,0,0,0,0,0]'
           WHERE chunk_id = (SELECT chunk_id FROM {active} WHERE file = {rolled_back})""",
        {"search_vectors"},
        {"search_table": "search_1_1"},
    ),
    "an erased file's idempotency key": Damage(
        "INSERT INTO idempotency_keys VALUES ({erased}, 'once', 1, '\\x00')",
        {"erased_files"},
        {"file": "erased", "table_name": "idempotency_keys", "rows": 1},
    ),
    "an erased file's stamp": Damage(
        "INSERT INTO sources VALUES ({erased}, 1, 3, NULL, '\\x00', 'text/1', 'chunker 1')",
        {"erased_files"},
        {"file": "erased", "table_name": "sources", "rows": 1},
    ),
    "an erased file's content": Damage(
        "INSERT INTO chunks VALUES (999999, {erased}, '\\x00', '\\x00', 'secret', '{{}}')",
        {"erased_files", "orphan_chunks"},
        {"file": "erased", "table_name": "chunks"},
    ),
    "an erased file that searches still join": Damage(
        "INSERT INTO {active} VALUES (999999, {erased})",
        {"erased_members", "active_rows", "active_manifests", "active_complete"},
        {"file": "erased", "chunk_id": 999999},
    ),
    "an erased file whose key is back": Damage(
        "UPDATE files SET key = 'back' WHERE file = {erased}",
        {"erasures", "replay"},
        {"file": "erased", "erased": False, "logged": True},
    ),
    "samples of content in the statistics": Damage(
        "ALTER TABLE chunks ALTER COLUMN content SET STATISTICS 10; ANALYZE chunks",
        {"no_samples"},
        {"table_name": "chunks", "column_name": "content", "samples": True},
    ),
    "samples of file hashes in the statistics": Damage(
        "ALTER TABLE sources ALTER COLUMN hash SET STATISTICS 10",
        {"no_samples"},
        {"table_name": "sources", "column_name": "hash", "samples": False},
    ),
    "a table of vectors that an erasure would not find": Damage(
        "CREATE TABLE forgotten (embedding halfvec(3))",
        {"vector_tables"},
        {"table_name": "forgotten"},
    ),
    "a target that is complete and not active": Damage(
        "UPDATE dead_letters SET state = 'discarded'",
        {"active_targets"},
        {"file": "failed", "target": 1, "active": None},
    ),
}
