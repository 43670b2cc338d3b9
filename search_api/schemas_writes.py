"""The shapes of requests and responses that change what is stored."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from search_api.schemas import ImageId, ItemError, Schema, Stamp


class Added(Schema):
    """One picture of several: its id, or why there is none."""

    filename: str | None
    key: str | None = None
    id: int | None = None
    error: ItemError | None = None


class AddResponse(Stamp):
    """One result for each picture, in the order sent."""

    results: list[Added]


class ChangeRequest(Schema):
    """Changes to a picture's payload."""

    payload: dict[str, Any] = Field(
        description="`label` and `split` (text or null) and whatever else is to be stored.",
        examples=[{"label": "cat", "price": 9.5}],
    )
    replace: bool = Field(
        default=False, description="Drop what was stored beside label and split, do not merge."
    )


class DeleteRequest(Schema):
    """Which pictures to delete: either of the two."""

    ids: list[ImageId] | None = Field(default=None, examples=[[1, 2]])
    filter: dict[str, Any] | None = None


class DeletedResponse(Stamp):
    """How many pictures there were to delete."""

    deleted: int


class SnapshotRequest(Schema):
    """A name for the snapshot, or none for one made from the time."""

    name: str | None = Field(default=None, examples=["before-the-sale"])


class SnapshotInfo(Schema):
    """A snapshot of everything that is indexed."""

    name: str
    count: int = Field(description="Pictures in it.")
    model: str | None = Field(description="Digest of the model of its embeddings.")
    sequence: int = Field(description="Number of the last write in it.")
    created: str = Field(description="ISO 8601, UTC.")
    size: int = Field(description="Bytes.")
    problem: str | None = Field(default=None, description="Why it cannot be used, or None.")


class SnapshotMade(SnapshotInfo):
    """A new snapshot; ``model`` and ``sequence`` are its own."""

    generation: int = Field(description="Number of the index that serves.")


class Snapshots(Stamp):
    """All snapshots, by name."""

    snapshots: list[SnapshotInfo]


class Restored(Stamp):
    """What a restore did."""

    snapshot: str
    changed: int = Field(description="Pictures stored or changed.")
    deleted: int = Field(description="Pictures deleted, as the snapshot does not have them.")


class ModelInfo(Schema):
    """A model that the store could serve with."""

    model: str = Field(description="Its digest.")
    embedded: int = Field(description="Pictures that it has embedded.")
    total: int = Field(description="Pictures in all.")


class Models(Schema):
    """The models in the store."""

    serving: str = Field(description="Digest of the model that serves.")
    generation: int = Field(description="Number of the index that serves.")
    models: list[ModelInfo]


class ModelDifference(Schema):
    """How much the neighbours of stored pictures change with another model."""

    model: str = Field(description="Digest of the other model.")
    serving: str = Field(description="Digest of the model that serves.")
    generation: int = Field(description="Number of the index that serves.")
    queries: int = Field(description="Stored pictures compared, drawn at random.")
    k: int = Field(description="Neighbours of each, itself left out.")
    overlap: float = Field(description="Mean share of neighbours that stay.")
    unchanged: float = Field(description="Share of queries that keep all their neighbours.")
    first_kept: float = Field(description="Share of queries that keep the nearest.")
    worst: list[int] = Field(description="Queries that keep least, at most ten.")
    label_before: float | None = Field(description="Share of neighbours with the query's label.")
    label_after: float | None = Field(description="The same with the other model.")
