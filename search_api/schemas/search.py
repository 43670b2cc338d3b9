"""Responses of searches, classification and recommendation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from search_api.schemas.base import ImageId, ItemError, Schema
from search_api.schemas.images import Image
from search_api.schemas.page import PageParams


class Prediction(Schema):
    """The classifier's prediction."""

    label: str = Field(alias="class", examples=["cat"])
    confidence: float = Field(description="Calibrated probability of the class, 0..1.")
    probabilities: dict[str, float] = Field(examples=[{"cat": 0.93, "dog": 0.07}])


class Vote(Schema):
    """The class that most of the ten nearest neighbours have."""

    label: str = Field(alias="class", examples=["cat"])
    share: float = Field(description="Share of those neighbours that have it, 0..1.")


class Point(Image):
    """A neighbour."""

    score: float = Field(description="Cosine similarity to the query, -1..1.", examples=[0.987])


class Group(Schema):
    """Neighbours with the same value in the field they are grouped by."""

    value: bool | int | float | str = Field(
        description="The value that they share.", examples=["cat"], union_mode="left_to_right"
    )
    points: list[Point] = Field(description="The nearest of them, best first.")


class Points(Schema):
    """Neighbours, best first."""

    points: list[Point] = Field(description="Empty with `group_by`.")
    groups: list[Group] | None = Field(
        description="The nearest groups, ordered by their nearest points; null without `group_by`."
    )
    next_cursor: str | None = Field(
        description="`cursor` for the next page; null on the last, with `diversity`, and if it"
        " would be longer than the limit.",
        examples=["eyJ2IjoxLCJzY29yZSI6MC45ODd9"],
    )
    vote: Vote | None = Field(description="Null if no neighbour has a label.")
    model: str = Field(description="Digest of the model that answered.", examples=["sha256:8c4e…"])
    generation: int = Field(description="Number of the index generation that answered.")
    sequence: int = Field(
        description="Number of the last write that the answer reflects: pages by `offset` are"
        " consistent while it stays the same."
    )
    time: dict[str, float] = Field(
        description="Milliseconds per stage.", examples=[{"search": 2.1, "payload": 0.4}]
    )


class SearchResponse(Points):
    """Class and neighbours of an uploaded picture."""

    prediction: Prediction


class Classified(Schema):
    """The result for one of several pictures: its prediction, or why there is none."""

    filename: str | None
    prediction: Prediction | None = None
    tags: dict[str, float] = Field(
        default={},
        description="Finer tags of the nearest stored pictures, each with the share of them that"
        " have it, largest first; only with `tags=true`.",
        examples=[{"tabby": 0.6}],
    )
    error: ItemError | None = None


class ClassifyResponse(Schema):
    """One result for each picture, in the order sent."""

    results: list[Classified]
    model: str = Field(description="Digest of the model that answered.")
    generation: int = Field(description="Number of the index generation in use.")
    time: dict[str, float]


class Found(Schema):
    """The result for one of several pictures: its class and neighbours, or why there are none."""

    filename: str | None
    result: SearchResponse | None = None
    error: ItemError | None = None


class BatchResponse(Schema):
    """One result for each picture, in the order sent."""

    results: list[Found]


class RecommendRequest(PageParams, Schema):
    """Stored pictures to recommend by, and which part of the ranking to return."""

    positive: list[ImageId] = Field(min_length=1, examples=[[1, 2]])
    negative: list[ImageId] = Field(default=[], examples=[[3]])
    strategy: Literal["average_vector", "best_score"] = "average_vector"
    limit: int = Field(default=12, ge=1)
    offset: int = Field(default=0, ge=0)
    filter: dict[str, Any] | None = Field(
        default=None, examples=[{"must": [{"key": "split", "match": {"value": "test"}}]}]
    )
