"""Embeddings of a model that does not serve yet, beside those of the one that does.

They are staged batch by batch, each durable, so that changing the model can be interrupted and
goes on where it stopped. `Staging.promote` puts all of them in place in one transaction.
"""

import sqlite3

import numpy as np

from index.checksums import crc
from index.database import CatalogueError, Database
from index.neighbours import Ids, IdsLike, IndexInputError, Vectors, as_ids, as_vectors
from index.schema import EMBEDDING_CRC, FIELDS_CRC


class Staging:
    """The staged embeddings of one catalogue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, ids: IdsLike, embeddings: Vectors, model_digest: str) -> int:
        """Stage ``embeddings`` float32 (n, d) under ids; return how many of these are stored still.

        An id that was deleted meanwhile is left out.
        """
        xb = as_vectors(embeddings, embeddings.shape[1], "embeddings").astype("<f4", copy=False)
        stored = 0
        with self._database.write() as connection:
            for id_, vector in zip(as_ids(ids).tolist(), xb, strict=True):
                data = vector.tobytes()
                stored += connection.execute(
                    "INSERT OR REPLACE INTO staged (id, model_digest, embedding, embedding_crc) "
                    "SELECT id, ?, ?, ? FROM images WHERE id = ?",
                    (model_digest, data, crc(id_, model_digest, data), id_),
                ).rowcount
        return stored

    def missing(self, model_digest: str) -> Ids:
        """Ids that this model neither made nor has staged, int64 (n,), ascending."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM images WHERE model_digest <> ?1 AND id NOT IN "
                "(SELECT id FROM staged WHERE model_digest = ?1) ORDER BY id",
                (model_digest,),
            ).fetchall()
        return np.array([row[0] for row in rows], np.int64)

    def counts(self) -> dict[str, int]:
        """Model digest to the number of embeddings staged."""
        with self._database.read() as connection:
            return dict(
                connection.execute(
                    "SELECT model_digest, count(*) FROM staged GROUP BY 1 ORDER BY 1"
                ).fetchall()
            )

    def embeddings(self, model_digest: str) -> tuple[Ids, Vectors]:
        """What this model has staged: ids int64 (n,) ascending, and float32 (n, d)."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, embedding, embedding_crc FROM staged WHERE model_digest = ? "
                "ORDER BY id",
                (model_digest,),
            ).fetchall()
        return unpack(rows, model_digest)

    def promote(self, model_digest: str) -> int:
        """Make the staged embeddings the ones in use; return how many were put in place.

        From then on the catalogue takes embeddings of this model only. Entries that the model
        could not embed keep what they had, and no index of the new model holds them.

        Raises IndexInputError if nothing of this model is staged though there is something to
        embed.
        """
        with self._database.write() as connection:
            (total,) = connection.execute("SELECT count(*) FROM images").fetchone()
            (staged,) = connection.execute(
                "SELECT count(*) FROM staged WHERE model_digest = ?", (model_digest,)
            ).fetchone()
            (done,) = connection.execute(
                "SELECT count(*) FROM images WHERE model_digest = ?", (model_digest,)
            ).fetchone()
            if total and not staged and not done:
                raise IndexInputError(
                    f"nothing is staged for the model {model_digest}; embed with it first"
                )
            sequence = next_sequence(connection)
            connection.execute(
                "UPDATE images SET embedding = staged.embedding, model_digest = ?1, sequence = ?2,"
                " embedded_at = ?2 FROM staged WHERE staged.id = images.id "
                "AND staged.model_digest = ?1",
                (model_digest, sequence),
            )
            seal(connection, sequence)
            connection.execute("DELETE FROM staged")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('model', ?)", (model_digest,))
        return int(staged)

    def discard(self) -> int:
        """Forget everything that is staged; return how much it was."""
        with self._database.write() as connection:
            return connection.execute("DELETE FROM staged").rowcount


def next_sequence(connection: sqlite3.Connection) -> int:
    """The number of the write that is going on."""
    row = connection.execute(
        "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'sequence' RETURNING value"
    ).fetchall()
    if not row:
        raise CatalogueError("the catalogue has lost its sequence number; restore it from a backup")
    return int(row[0][0])


def seal(connection: sqlite3.Connection, sequence: int) -> None:
    """Write the checksums of all rows that the write ``sequence`` has changed."""
    connection.execute(
        f"UPDATE images SET embedding_crc = {EMBEDDING_CRC} WHERE embedded_at = ?",  # noqa: S608 - fixed words
        (sequence,),
    )
    connection.execute(
        f"UPDATE images SET fields_crc = {FIELDS_CRC} WHERE sequence = ?",  # noqa: S608 - fixed words
        (sequence,),
    )


def unpack(rows: list[tuple[int, bytes, int]], model_digest: str) -> tuple[Ids, Vectors]:
    """Rows of id, embedding and checksum as ids int64 (n,) and float32 (n, d); d is 0 without any.

    Raises CatalogueError if an embedding is damaged or has another length.
    """
    ids = np.array([row[0] for row in rows], np.int64)
    size = len(rows[0][1]) if rows else 0
    for id_, data, expected in rows:
        if len(data) != size or size % 4:
            raise CatalogueError(
                f"the embedding of id {id_} is not {size} bytes long like the first one; "
                "index its picture again"
            )
        if crc(id_, model_digest, data) != expected:
            raise CatalogueError(
                f"the embedding of id {id_} is damaged: its checksum does not fit; run "
                "`lookalike index build --reembed`, or restore a snapshot"
            )
    xb = np.frombuffer(b"".join(row[1] for row in rows), "<f4").astype(np.float32)
    return ids, xb.reshape(len(rows), size // 4)
