"""Models in the store."""

from __future__ import annotations

from pydantic import Field

from search_api.schemas.base import Schema


class ModelInfo(Schema):
    """A model that the store can switch to, or the one in use."""

    model: str = Field(description="Its digest.")
    embedded: int = Field(description="Number of pictures that it has embedded.")
    total: int = Field(description="Number of pictures in total.")


class Models(Schema):
    """The models in the store."""

    serving: str = Field(description="Digest of the model in use.")
    generation: int = Field(description="Number of the index generation in use.")
    models: list[ModelInfo]


class ModelDifference(Schema):
    """How much the neighbours of stored pictures would change with another model."""

    model: str = Field(description="Digest of the other model.")
    serving: str = Field(description="Digest of the model in use.")
    generation: int = Field(description="Number of the index generation in use.")
    queries: int = Field(description="Number of stored pictures compared, drawn at random.")
    k: int = Field(description="Number of neighbours of each, excluding the picture itself.")
    overlap: float = Field(description="Mean share of neighbours kept.")
    unchanged: float = Field(description="Share of queries that keep all their neighbours.")
    first_kept: float = Field(description="Share of queries that keep their nearest neighbour.")
    worst: list[int] = Field(description="Ids of the queries that keep the fewest, at most ten.")
    label_before: float | None = Field(description="Share of neighbours with the query's label.")
    label_after: float | None = Field(description="The same with the other model.")
