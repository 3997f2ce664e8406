-- name: erase_file
-- Erases a file under its lock and its chunks' locks; NULL where the key is not there.
SELECT erase_file(%(collection)s, %(key)s);
