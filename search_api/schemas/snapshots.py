"""Snapshots."""

from __future__ import annotations

from pydantic import Field

from search_api.schemas.base import Schema, Stamp


class SnapshotRequest(Schema):
    """A name for the snapshot; without one it is named after the time."""

    name: str | None = Field(default=None, examples=["before-the-sale"])
    allow_missing: bool = Field(
        default=False, description="Take it even if bytes of added pictures are missing."
    )


class SnapshotInfo(Schema):
    """A snapshot of everything indexed."""

    name: str
    count: int = Field(description="Number of pictures in it.")
    model: str | None = Field(description="Digest of the model that made its embeddings.")
    sequence: int = Field(description="Number of the last write in it.")
    created: str = Field(description="ISO 8601, UTC.")
    size: int = Field(description="Bytes.")
    problem: str | None = Field(default=None, description="Why it cannot be used, or null.")


class SnapshotMade(SnapshotInfo):
    """A new snapshot; ``model`` and ``sequence`` are those of the snapshot."""

    generation: int = Field(description="Number of the index generation in use.")


class Snapshots(Stamp):
    """All snapshots, sorted by name."""

    snapshots: list[SnapshotInfo]


class Restored(Stamp):
    """What restoring a snapshot changed."""

    snapshot: str
    changed: int = Field(description="Number of pictures added or changed.")
    deleted: int = Field(description="Number of pictures deleted because they are not in it.")
