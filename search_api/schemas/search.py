"""Responses of searches, classification and recommendation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from search_api.schemas.base import ImageId, ItemError, Schema
from search_api.schemas.images import Image
from search_api.schemas.page import PageParams

Source = Literal["store", "network"]
"""Whose classes a prediction chooses from."""
Classes = Literal["auto", "store", "network", "both"]
"""Whose classes to predict: ``auto`` for the store's if it has a classifier, else the network's."""
CLASSES_HELP = (
    "Whose classes to predict: those of the store's classifier, the network's own, or both;"
    " `auto` takes the store's if it has a classifier."
)


class Prediction(Schema):
    """What the picture shows."""

    label: str | None = Field(
        alias="class",
        description="Null for none of these: the picture is unlike everything stored.",
        examples=["cat"],
    )
    confidence: float = Field(
        description="Calibrated probability of `nearest_class`, times that of the picture being"
        " like the stored ones, where that has been measured; 0..1."
    )
    nearest_class: str = Field(
        description="The most probable class, also if `class` is null.", examples=["cat"]
    )
    grade: str = Field(description="How like the stored pictures it is, in words.")
    source: Source = Field(
        description="`store`: the classifier fitted on the store's labels. `network`: the model's"
        " own classes."
    )
    probabilities: dict[str, float] = Field(
        description="Of all classes; of more than 20, the 20 most probable, largest first.",
        examples=[{"cat": 0.93, "dog": 0.07}],
    )


class Predictions(Schema):
    """The predictions by both classifiers; null for one that does not exist."""

    store: Prediction | None
    network: Prediction | None


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

    prediction: Prediction | None = Field(
        description="Null if neither the store nor the model has classes."
    )
    predictions: Predictions | None = Field(default=None, description="With `classes=both`.")


class Classified(Schema):
    """The result for one of several pictures: its prediction, or why there is none."""

    filename: str | None
    prediction: Prediction | None = None
    predictions: Predictions | None = Field(default=None, description="With `classes=both`.")
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
