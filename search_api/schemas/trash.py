"""The trash: deleted pictures that can be restored, and deleting them for good."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from search_api.schemas.base import ImageId, Schema, Stamp


class TrashedImage(Schema):
    """A deleted picture."""

    id: ImageId
    key: str | None = Field(description="Your own name for it, or null.")
    payload: dict[str, Any] = Field(
        description="`label`, `split`, `source` and anything else stored with the picture.",
        examples=[{"label": "cat", "split": None, "source": "key:cat-1"}],
    )
    deleted: str = Field(description="ISO 8601, UTC.")
    expires: str | None = Field(
        description="When it is deleted for good, ISO 8601, UTC; null if that is under way."
    )


class Trash(Stamp):
    """A page of deleted pictures, in ascending order of id."""

    points: list[TrashedImage]
    total: int = Field(description="Number of pictures in the trash.")
    next_after: int | None = Field(description="`after` for the next page; null on the last.")


class RestoreRequest(Schema):
    """Which deleted pictures to restore: give `ids`, or `last` for those of the last delete."""

    ids: list[ImageId] | None = Field(default=None, examples=[[1, 2]])
    last: bool = False


class RestoreConflict(Schema):
    """A picture that stays in the trash, because its key or source is stored again."""

    id: ImageId
    stored_as: ImageId = Field(description="The picture that has its key or source now.")


class RestoredImages(Stamp):
    """What came back, with the same ids and fields."""

    ids: list[ImageId]
    conflicts: list[RestoreConflict]
    unembedded: int = Field(
        description="How many were embedded by an earlier model: searches find them once the"
        " compaction that was started has embedded them."
    )


class PurgeRequest(Schema):
    """Which deleted pictures to delete for good: give `ids`, or `all`."""

    ids: list[ImageId] | None = Field(default=None, examples=[[1, 2]])
    all: bool = False


class PurgedImages(Stamp):
    """What was deleted for good, and what keeps some of it."""

    purged: int = Field(description="Number of pictures.")
    files: int = Field(description="Number of files of added pictures that were removed.")
    kept_by: dict[str, int] = Field(
        description="Snapshot to how many of these pictures it still holds, with their files.",
        examples=[{"monday": 1}],
    )
    pending: bool = Field(
        description="Whether something could not be removed yet, because it is in use or, in an"
        " object store, younger than a day. The service tries again."
    )
    indexed: bool = Field(
        description="Whether files of the index may still hold their embeddings. The next"
        " compaction ends that; the service starts one within a day."
    )
