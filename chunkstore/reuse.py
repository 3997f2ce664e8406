"""Stores the segments and chunks that a file lacks, and finds those that it holds already.

Keeps invariant 3 (every chunk of a manifest exists), under the file's lock that the caller holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from chunkstore import chunks as payload
from chunkstore import manifests
from chunkstore.chunks import Prepared
from chunkstore.manifests import Draft
from chunkstore.model import ChunkId, FileId, SegmentId
from chunkstore.versions import FileState, Stored

# So many chunks cost as much to look up by index as a segment's hashes do to read.
_FEW = 64


async def store_segments(
    conn: AsyncConnection[Any],
    state: FileState,
    drafts: Sequence[Draft],
    *,
    streamed: bool,
) -> Stored:
    """Stores the segments and chunks that the file lacks, and names those that it holds."""
    is_new_file = state.last_version == 0
    known = {} if is_new_file else await manifests.known_segments(conn, state.file, drafts)
    fresh = {draft.digest: draft for draft in drafts if draft.digest not in known}
    wanted = {chunk.hash: chunk for draft in fresh.values() for chunk in draft.chunks}
    held: dict[bytes, ChunkId] = {}
    held_in: set[SegmentId] = set()
    if wanted and not is_new_file:
        if streamed:
            held = await payload.find_by_hash(conn, state.file, wanted.values())
        else:
            held, held_in = await _match(conn, state, wanted, known)
    missing = [chunk for digest, chunk in wanted.items() if digest not in held]
    added = await payload.insert(conn, state.file, missing, len(missing))
    if fresh:
        new_segments = await manifests.insert_segments(conn, state.file, list(fresh.values()), held | added)
    else:
        new_segments = {}
    numbers = known | new_segments
    return Stored(
        segments=[numbers[draft.digest] for draft in drafts],
        bases=[draft.bases for draft in drafts],
        shared=sorted({numbers[draft.digest] for draft in drafts if draft.digest in known}),
        added=list(added.values()),
        carried=[held[digest] for digest in wanted if digest in held],
        carried_from=sorted(held_in),
        chunks=sum(len(draft.chunks) for draft in drafts),
    )


async def store_first_segments(
    conn: AsyncConnection[Any], file: FileId, drafts: Sequence[Draft], chunks: Mapping[bytes, ChunkId]
) -> Stored:
    """Stores the segments of a file's first version, whose chunks are there already, by hash."""
    fresh = {draft.digest: draft for draft in drafts}
    numbers = await manifests.insert_segments(conn, file, list(fresh.values()), chunks)
    return Stored(
        segments=[numbers[draft.digest] for draft in drafts],
        bases=[draft.bases for draft in drafts],
        added=list(chunks.values()),
        chunks=sum(len(draft.chunks) for draft in drafts),
    )


async def _match(
    conn: AsyncConnection[Any],
    state: FileState,
    wanted: dict[bytes, Prepared],
    known: dict[bytes, SegmentId],
) -> tuple[dict[bytes, ChunkId], set[SegmentId]]:
    """Finds the chunks that the file holds; with them, the segments that all were found in.

    Those of the latest version and the target are matched in the client: in the segments that the append
    rewrites, then, where many are still unknown, in those that stay. The rest is looked up by index in
    whatever the file holds, or an older version's chunk would come back twice; where it finds one, no
    segments are said.
    """
    listed = {*state.latest_segments, *state.target_segments}
    staying = listed & set(known.values())
    looked_in = listed - staying
    found = await manifests.hashes_of(conn, looked_in)
    held = {digest: found[digest] for digest in wanted if digest in found}
    unknown = [chunk for digest, chunk in wanted.items() if digest not in held]
    if staying and len(unknown) > _FEW * len(staying):
        looked_in = listed
        found = await manifests.hashes_of(conn, staying)
        held |= {chunk.hash: found[chunk.hash] for chunk in unknown if chunk.hash in found}
        unknown = [chunk for chunk in unknown if chunk.hash not in held]
    if not unknown:
        return held, looked_in
    by_hash = await payload.find_by_hash(conn, state.file, unknown)
    return held | by_hash, set() if by_hash else looked_in
