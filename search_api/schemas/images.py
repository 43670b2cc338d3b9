"""Stored pictures: listing, adding, changing, deleting."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from search_api.schemas.base import ImageId, ItemError, Schema, Stamp


class Image(Schema):
    """A stored picture."""

    id: ImageId
    payload: dict[str, Any] = Field(
        description="`label`, `split`, `source` and anything else stored with the picture.",
        examples=[{"label": "cat", "split": "train", "source": "train/00123"}],
    )
    image_url: str = Field(examples=["/v1/images/123/file"])


class StoredImage(Image, Stamp):
    """One stored picture and its payload."""


class Images(Stamp):
    """A page of stored pictures, in ascending order of id or as `order_by` says."""

    points: list[Image]
    total: int = Field(description="Number of matching pictures in total.")
    next_after: int | None = Field(
        description="`after` for the next page; null on the last, and with `order_by`."
    )
    next_cursor: str | None = Field(
        default=None,
        description="With `order_by`: `cursor` for the next page; null on the last.",
    )


class Examples(Stamp):
    """Stored pictures to try a search with."""

    points: list[Image]


class Added(Schema):
    """The result for one of several pictures: its id, or why it was not stored."""

    filename: str | None
    key: str | None = None
    id: int | None = None
    status: Literal["added", "replaced", "updated", "unchanged"] | None = Field(
        default=None,
        description="`unchanged`: it was stored already, with the same content under this key;"
        " `updated`: so it was, and has got another label or payload. Null with an `error`.",
    )
    existing: int | None = Field(
        default=None,
        description="With an `error`: the id of the picture that is stored under this key.",
    )
    error: ItemError | None = None


class AddResponse(Stamp):
    """One result for each picture, in the order sent."""

    results: list[Added]


class ChangeRequest(Schema):
    """Changes to a picture's payload."""

    payload: dict[str, Any] = Field(
        description="`label` and `split` (text or null) and anything else to store.",
        examples=[{"label": "cat", "price": 9.5}],
    )
    replace: bool = Field(
        default=False,
        description="Discard what was stored apart from label and split, instead of merging.",
    )


class DeleteRequest(Schema):
    """Which pictures to delete: give `ids` or `filter`."""

    ids: list[ImageId] | None = Field(default=None, examples=[[1, 2]])
    filter: dict[str, Any] | None = Field(
        default=None,
        description="All pictures that match, in the language of the query parameter `filter`.",
        examples=[{"must": [{"is_null": {"key": "label"}}]}],
    )


class DeletedResponse(Stamp):
    """How many pictures were deleted."""

    deleted: int
    restorable_until: str | None = Field(
        default=None,
        description="How long `POST /v1/images/restore` can undo it, ISO 8601, UTC; null if it is"
        " final.",
    )
