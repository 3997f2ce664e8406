"""What became of a scene's files, by contents: what a search, a history, a list of dead letters would say."""

from typing import Any, NamedTuple

from psycopg import AsyncConnection

from chunkstore import catalog
from tests.interleavings.scenes import Rows, Scene
from tests.interleavings.sides import Side

# Files in the order in which a scene names them, not by their keys, whose numbers differ between two scenes.
_SEARCHED = """
SELECT f.key, a.version, c.content
FROM {} m
JOIN {} s USING (chunk_id)
JOIN chunks c USING (chunk_id)
JOIN files f ON f.file = m.file
JOIN active_versions a ON a.file = m.file AND a.model = {}
WHERE f.collection = %(collection)s AND f.key = ANY (%(keys)s)
ORDER BY array_position(%(keys)s, f.key), 2, 3"""

_VERSIONS = """
SELECT f.key, v.version, v.state, v.tombstone, v.pinned, v.chunks
FROM versions v
JOIN files f USING (file)
WHERE f.collection = %(collection)s AND f.key = ANY (%(keys)s) AND v.state NOT IN ('open', 'abandoned')
ORDER BY array_position(%(keys)s, f.key), 2"""

_TARGETS = """
SELECT key, target
FROM files
WHERE collection = %(collection)s AND key = ANY (%(keys)s)
ORDER BY array_position(%(keys)s, key)"""

_DEAD_LETTERS = """
SELECT c.content, d.state
FROM dead_letters d
JOIN chunks c USING (chunk_id)
JOIN files f ON f.file = c.file
WHERE f.collection = %(collection)s AND f.key = ANY (%(keys)s)
ORDER BY 1, 2"""


async def _tuples(conn: AsyncConnection[Any], statement: str, params: dict[str, Any]) -> list[Any]:
    return await (await conn.execute(statement.encode(), params)).fetchall()


class Outcome(NamedTuple):
    """What became of a file, by contents: equal for two orders that nobody can tell apart."""

    searched: Rows
    versions: Rows
    targets: Rows
    dead_letters: Rows
    serving: str


async def outcome(side: Side, scene: Scene) -> Outcome:
    """What that side finds now."""
    collection = scene.of(side)
    await collection._read_models()
    params = {
        "collection": collection.row.collection,
        "keys": [scene.key, scene.new_key, scene.source_key],
    }
    async with side.database.transaction() as conn:
        searched = [
            row
            for model in await catalog.models_of(conn, collection.row.collection)
            for row in await _tuples(
                conn, _SEARCHED.format(model.active_table, model.search_table, model.model), params
            )
        ]
        return Outcome(
            searched=scene.anonymous(searched),
            versions=scene.anonymous(await _tuples(conn, _VERSIONS, params)),
            targets=scene.anonymous(await _tuples(conn, _TARGETS, params)),
            dead_letters=scene.anonymous(await _tuples(conn, _DEAD_LETTERS, params)),
            serving=collection.model_names[0],
        )
