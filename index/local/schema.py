"""The catalogue's tables, and upgrading older formats.

``images`` holds what is indexed. ``sequence`` is the number of the write that last changed a row,
``embedded_at`` that of the write that stored its current embedding. ``deletions`` records every
deleted id, for readers that follow the changes; a ``tombstone`` keeps the corpus from adding the
source again. ``staged`` holds embeddings of a model that is not in use yet. ``trash`` holds rows of
``images`` as they were when they were deleted, at ``deleted_at`` seconds since 1970 by the write
``deletion``. ``usage`` counts added pictures and the trash, with the ``sizes`` of their bytes.
``stamps`` holds size and time of the corpus's files when the content ``content_hash`` was read.
"""

import sqlite3
import zlib

SqlValue = str | int | float | bytes | None

FORMAT_VERSION = 3
FIELDS = (
    "id, source, split, label, payload, content_hash, origin, edited, sequence, embedded_at, "
    "model_digest"
)
FIELDS_CRC = f"crc({FIELDS})"
EMBEDDING_CRC = "crc(id, model_digest, embedding)"
DELETION_CRC = "crc(id, source, sequence, tombstone)"
TRASH_CRC = "crc(id, deleted_at, deletion)"

# Over all other rows of meta; written with every change of the catalogue.
META_CRC = (
    "(SELECT crc(group_concat(key || '=' || value, char(10))) "
    "FROM (SELECT key, value FROM meta WHERE key <> 'checksum' ORDER BY key))"
)
# The number of committed transactions of any kind; see `index.local.commit_watermark`.
COUNT_COMMIT = (
    "INSERT INTO meta VALUES ('commits', '1') ON CONFLICT (key) DO UPDATE "
    "SET value = CAST(value AS INTEGER) + 1 RETURNING CAST(value AS INTEGER)"
)
COMMITS = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'commits'"
META_CHECKSUMS = (
    "SELECT (SELECT value FROM meta WHERE key = 'checksum'), "  # noqa: S608 - fixed words
    f"CAST({META_CRC} AS TEXT)"
)
UPDATE_META_CHECKSUM = f"INSERT OR REPLACE INTO meta VALUES ('checksum', {META_CRC})"  # noqa: S608 - fixed words

_META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
# The embedding comes after the fields that filters read, so that reading those does not traverse
# its overflow pages.
_IMAGES = """CREATE TABLE IF NOT EXISTS {name} (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL UNIQUE,
        split TEXT,
        label TEXT,
        payload TEXT NOT NULL,
        content_hash TEXT,
        origin TEXT NOT NULL,
        edited INTEGER NOT NULL DEFAULT 0,
        sequence INTEGER NOT NULL,
        embedded_at INTEGER NOT NULL,
        model_digest TEXT NOT NULL,
        fields_crc INTEGER NOT NULL DEFAULT 0,
        embedding_crc INTEGER NOT NULL DEFAULT 0,
        embedding BLOB NOT NULL
    )"""
STAMPS = """CREATE TABLE IF NOT EXISTS stamps (
        id INTEGER PRIMARY KEY,
        size INTEGER NOT NULL,
        modified_ns INTEGER NOT NULL,
        content_hash TEXT
    )"""
"""Made when it is first needed, so that a store without it need not be written to be opened."""
_SIZE = "coalesce((SELECT bytes FROM sizes WHERE content_hash = {row}.content_hash), 0)"


def _counted(table: str, name: str, condition: str = "") -> list[str]:
    """Triggers that keep the row ``name`` of ``usage``."""

    def trigger(event: str, row: str, change: str) -> str:
        update = f"UPDATE usage SET {change} WHERE name = '{name}'"  # noqa: S608 - fixed words
        return (
            f"CREATE TRIGGER IF NOT EXISTS {table}_{event.split()[0].lower()} AFTER {event} "
            f"ON {table} {condition.format(row=row)} BEGIN {update}; END"
        )

    new, old = _SIZE.format(row="NEW"), _SIZE.format(row="OLD")
    return [
        trigger("INSERT", "NEW", f"pictures = pictures + 1, bytes = bytes + {new}"),
        trigger("DELETE", "OLD", f"pictures = pictures - 1, bytes = bytes - {old}"),
        trigger("UPDATE OF content_hash", "NEW", f"bytes = bytes + {new} - {old}"),
    ]


_REST = (
    """CREATE TABLE IF NOT EXISTS deletions (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        tombstone INTEGER NOT NULL,
        crc INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE IF NOT EXISTS staged (
        id INTEGER PRIMARY KEY,
        model_digest TEXT NOT NULL,
        embedding_crc INTEGER NOT NULL DEFAULT 0,
        embedding BLOB NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS trash (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        split TEXT,
        label TEXT,
        payload TEXT NOT NULL,
        content_hash TEXT,
        origin TEXT NOT NULL,
        edited INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        embedded_at INTEGER NOT NULL,
        model_digest TEXT NOT NULL,
        fields_crc INTEGER NOT NULL,
        embedding_crc INTEGER NOT NULL,
        deleted_at INTEGER NOT NULL,
        deletion INTEGER NOT NULL,
        crc INTEGER NOT NULL DEFAULT 0,
        embedding BLOB NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS sizes (
        content_hash TEXT PRIMARY KEY,
        bytes INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS usage (
        name TEXT PRIMARY KEY,
        pictures INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) WITHOUT ROWID""",
    STAMPS,
    *(_counted("images", "added", "WHEN {row}.origin = 'added'")),
    *(_counted("trash", "trash")),
    "CREATE INDEX IF NOT EXISTS images_label ON images (label)",
    "CREATE INDEX IF NOT EXISTS images_split ON images (split)",
    "CREATE INDEX IF NOT EXISTS images_model_digest ON images (model_digest)",
    "CREATE INDEX IF NOT EXISTS images_sequence ON images (sequence)",
    "CREATE INDEX IF NOT EXISTS images_embedded_at ON images (embedded_at)",
    "CREATE INDEX IF NOT EXISTS deletions_sequence ON deletions (sequence)",
    "CREATE INDEX IF NOT EXISTS deletions_source ON deletions (source) WHERE tombstone",
    "INSERT OR IGNORE INTO meta VALUES ('sequence', '0')",
)


# Counts everything again, for rows stored without triggers or before their size was known.
RECOUNT = (
    "INSERT OR REPLACE INTO usage SELECT 'added', count(*), coalesce(sum(bytes), 0) "
    "FROM images LEFT JOIN sizes USING (content_hash) WHERE origin = 'added' "
    "UNION ALL SELECT 'trash', count(*), coalesce(sum(bytes), 0) "
    "FROM trash LEFT JOIN sizes USING (content_hash)"
)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables of the current format, inside the caller's transaction."""
    for statement in (_META, _IMAGES.format(name="images"), *_REST):
        connection.execute(statement)
    connection.execute(
        "INSERT OR IGNORE INTO meta VALUES ('format_version', ?), "
        "('epoch', lower(hex(randomblob(16))))",
        (str(FORMAT_VERSION),),
    )
    connection.execute(RECOUNT)


def upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade an older format, inside the caller's transaction."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()
    if int(row[0]) >= FORMAT_VERSION:
        return  # another process was first
    if int(row[0]) == 1:
        _rewrite_images(connection)
    for statement in _REST:
        connection.execute(statement)
    connection.execute(RECOUNT)
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'format_version'", (str(FORMAT_VERSION),)
    )


def _rewrite_images(connection: sqlite3.Connection) -> None:
    """From format 1, which knows no added pictures and no sequence numbers."""
    old = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'images'").fetchone()
    connection.execute(_IMAGES.format(name="images_2"))
    connection.execute(
        "INSERT INTO images_2 (id, source, split, label, payload, content_hash, origin, edited, "
        "sequence, embedded_at, model_digest, embedding) SELECT id, source, split, label, "
        "payload, NULL, 'corpus', 0, 0, 0, model_digest, embedding FROM images ORDER BY id"
    )
    connection.execute(
        f"UPDATE images_2 SET fields_crc = {FIELDS_CRC}, embedding_crc = {EMBEDDING_CRC}"  # noqa: S608 - fixed words
    )
    connection.execute("DROP TABLE images")
    connection.execute("ALTER TABLE images_2 RENAME TO images")
    if old is not None:
        # Ids are never reused, not even those deleted before the upgrade.
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'images'")
        connection.execute("INSERT INTO sqlite_sequence VALUES ('images', ?)", old)
    models = connection.execute("SELECT DISTINCT model_digest FROM images").fetchall()
    if len(models) == 1:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('model', ?)", models[0])


def crc(*values: SqlValue) -> int:
    """CRC-32 of column values in order; detects any flipped bit and any burst of up to 32 bits.

    SQLite's own integrity check does not cover values.
    """
    total = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        # The length separates values, so that bytes cannot move from one to the next unnoticed.
        total = zlib.crc32(data, zlib.crc32(b"%d;" % len(data), total))
    return total
