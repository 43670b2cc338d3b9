"""What several schemas share: ids, stamps, errors. The names are those of vector databases."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ImageId = Annotated[int, Field(ge=0, le=2**63 - 1, examples=[123])]


class Schema(BaseModel):
    """Rejects unknown members in requests, so that a misspelt option is not silently ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Stamp(Schema):
    """The model and index in use, and the last write that searches reflect."""

    model: str = Field(description="Digest of the model in use.")
    generation: int = Field(description="Number of the index generation in use.")
    sequence: int = Field(description="Number of the last write that searches reflect.")


class ItemError(Schema):
    """Why one of several pictures could not be used."""

    type: str
    title: str
    status: int
    detail: str


class Health(Schema):
    """Whether the process is alive, and whether it can answer searches."""

    status: Literal["ok", "starting"]


class ProblemResponse(BaseModel):
    """An error, as RFC 9457 problem+json. Some kinds have further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:lookalike:problem:not-a-picture"])
    title: str = Field(examples=["Unsupported Media Type"])
    status: int = Field(examples=[415])
    detail: str = Field(description="What was received, what was expected and what to do.")
    instance: str = Field(description="The path that was requested.", examples=["/v1/search"])
    request_id: str = Field(
        description="Also in the `X-Request-ID` header and in the server's log.",
        examples=["3f2b8c1e9a4d4b0f8e6a7c5d2b1a0f9e"],
    )


def image_url(entry_id: int) -> str:
    """The path of the picture itself."""
    return f"/v1/images/{entry_id}/file"


def payload(
    label: str | None, split: str | None, source: str, stored: dict[str, Any]
) -> dict[str, Any]:
    """A picture's payload as callers see it: what was stored with it, and the fixed fields."""
    return {**stored, "label": label, "split": split, "source": source}
