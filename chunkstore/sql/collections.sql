-- name: collection
-- One collection by its name.
SELECT collection, name, keep_last, keep_for, headings, salt, serving
FROM collections
WHERE name = %(name)s;

-- name: collections
-- Every collection.
SELECT collection, name, keep_last, keep_for, headings, salt, serving
FROM collections
ORDER BY name;

-- name: models_of
-- The models of a collection; the serving one first.
SELECT m.model, m.name, m.dimensions, m.distance, cm.search_table, cm.active_table
FROM collections c
JOIN collection_models cm USING (collection)
JOIN models m USING (model)
WHERE c.collection = %(collection)s
ORDER BY m.model <> c.serving, m.model;

-- name: insert_model
-- Makes a model known to the store.
INSERT INTO models (name, dimensions, distance)
VALUES (%(name)s, %(dimensions)s, %(distance)s)
ON CONFLICT (name) DO NOTHING;

-- name: model
-- One model by its name.
SELECT model, name, dimensions, distance
FROM models
WHERE name = %(name)s;

-- name: models
-- Every model of the store.
SELECT model, name, dimensions, distance
FROM models
ORDER BY model;

-- name: insert_collection
-- Makes a collection; no row where the name is taken.
INSERT INTO collections (name, keep_last, keep_for, headings, serving)
VALUES (%(name)s, %(keep_last)s, %(keep_for)s::interval, %(headings)s, %(model)s)
ON CONFLICT (name) DO NOTHING
RETURNING collection;

-- name: insert_collection_model
-- Lets a collection be embedded by a model; no row where it is already.
INSERT INTO collection_models (collection, model, search_table, active_table, backfilled)
VALUES (%(collection)s, %(model)s, %(search_table)s, %(active_table)s, %(backfilled)s)
ON CONFLICT DO NOTHING
RETURNING model;

-- name: lock_all_partitions
-- Adding or serving a model meets every append and activation.
SELECT lock_all_partitions();

-- name: serve
-- Makes a model the one that searches use unless they name another.
UPDATE collections
SET serving = %(model)s
WHERE collection = %(collection)s;

-- name: waiting_for_model
-- How many files show another version under the serving model than under that one.
SELECT count(*)
FROM files f
JOIN active_versions now ON now.file = f.file AND now.model = %(serving)s AND now.version IS NOT NULL
LEFT JOIN active_versions next ON next.file = f.file AND next.model = %(model)s
WHERE f.collection = %(collection)s
  AND next.version IS DISTINCT FROM now.version
  AND next.version IS DISTINCT FROM f.target;

-- name: backfill_position
-- The file up to which a back-fill has logged; NULL where it is done.
SELECT backfilled
FROM collection_models
WHERE collection = %(collection)s
  AND model = %(model)s;

-- name: next_files
-- The next files of a collection for a back-fill.
SELECT file
FROM files
WHERE collection = %(collection)s
  AND file > %(after)s
ORDER BY file
LIMIT 100;

-- name: backfilled
-- Records how far a back-fill has come.
UPDATE collection_models
SET backfilled = %(file)s
WHERE collection = %(collection)s
  AND model = %(model)s;

-- name: open_and_target
-- The manifests of a file that are needed, under its lock.
SELECT v.version, v.segments
FROM files f
JOIN versions v ON v.file = f.file AND (v.state = 'open' OR (v.version = f.target AND v.state = 'committed'))
WHERE f.file = %(file)s
ORDER BY v.version;

-- name: keys
-- The keys of a collection whose latest version is not a tombstone.
SELECT f.key
FROM files f
JOIN versions v ON v.file = f.file AND v.version = f.latest
WHERE f.collection = %(collection)s
  AND f.key IS NOT NULL
  AND NOT v.tombstone
ORDER BY f.file;
