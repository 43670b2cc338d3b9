"""Checksums inside the catalogue: SQLite's own check does not look into values."""

import zlib

SqlValue = str | int | float | bytes | None


def crc(*values: SqlValue) -> int:
    """CRC-32 of some column values in order; finds every flipped bit and every burst of 32."""
    total = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        # The length stands between the values, so that none can take from its neighbour.
        total = zlib.crc32(data, zlib.crc32(b"%d;" % len(data), total))
    return total
