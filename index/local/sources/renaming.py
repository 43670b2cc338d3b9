"""Giving stored pictures other sources, which may be exchanged among them."""

import json
import sqlite3
from collections.abc import Mapping

from index.local.staging import next_sequence, update_checksums


def rename(connection: sqlite3.Connection, sources: Mapping[int, str]) -> list[int]:
    """See `index.contract.Catalogue.rename`; the sources are storable and distinct."""
    stored = dict(
        connection.execute(
            "SELECT id, source FROM images WHERE origin = 'corpus' "
            "AND id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(sources)),),
        ).fetchall()
    )
    wanted = {
        id_: source for id_, source in sources.items() if id_ in stored and stored[id_] != source
    }
    taken = dict(
        connection.execute(
            "SELECT source, id FROM images WHERE source IN (SELECT value FROM json_each(?1)) "
            "UNION SELECT source, -1 FROM deletions WHERE tombstone "
            "AND source IN (SELECT value FROM json_each(?1))",
            (json.dumps(list(wanted.values())),),
        ).fetchall()
    )
    # Who keeps its source, because another has the one it wants, may keep a third from moving.
    while blocked := [id_ for id_, new in wanted.items() if taken.get(new, id_) not in wanted]:
        for id_ in blocked:
            del wanted[id_]
    if not wanted:
        return []
    sequence = next_sequence(connection)
    # Sources are unique, so each first gets one that no picture can have.
    for step in (
        [(f"\x00{id_}", sequence, id_) for id_ in wanted],
        [(source, sequence, id_) for id_, source in wanted.items()],
    ):
        connection.executemany("UPDATE images SET source = ?, sequence = ? WHERE id = ?", step)
    update_checksums(connection, sequence)
    return sorted(wanted)
