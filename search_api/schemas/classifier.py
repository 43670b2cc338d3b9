"""The classifier that is fitted on the store's labels."""

from __future__ import annotations

from pydantic import Field

from search_api.schemas.base import Schema, Stamp
from search_api.schemas.search import Source


class NoveltyInfo(Schema):
    """What is usual among the stored pictures: the mean similarity to the ten nearest others."""

    threshold: float = Field(description="Below it, a picture is probably none of the classes.")
    lowest: float = Field(description="Below it, it almost certainly is none of them.")
    pictures: int = Field(description="Number of stored pictures that it was measured on.")


class ClassifierSummary(Schema):
    """The store's classifier, in brief."""

    classes: int = Field(description="Number of classes.")
    pictures: int = Field(description="Number of pictures with one of these labels.")
    accuracy: float = Field(description="Cross-validated, 0..1.")
    ece: float = Field(description="Expected calibration error, cross-validated, 0..1.")
    fitted: str = Field(description="When it was fitted, ISO 8601, UTC.")


class ClassifierInfo(Stamp):
    """The store's classifier, or why there is none."""

    source: Source | None = Field(
        description="Whose classes answer with `classes=auto`; null if there are none at all."
    )
    digest: str | None = Field(description="Digest of the store's classifier; null without one.")
    reason: str | None = Field(
        description="Why the store has no classifier, or still an older one; null otherwise."
    )
    fitted: str | None = Field(description="When labels were last looked at, ISO 8601, UTC.")
    fitted_sequence: int | None = Field(description="Number of the last write considered then.")
    classes: dict[str, int] = Field(description="Number of pictures by class.")
    left_out: dict[str, int] = Field(
        description="Likewise of the labels that have too few pictures to be learnt."
    )
    accuracy: float | None = Field(description="Cross-validated, 0..1.")
    ece: float | None = Field(description="Expected calibration error, cross-validated, 0..1.")
    temperature: float | None = Field(description="Divides the logits before the softmax.")
    novelty: NoveltyInfo | None = Field(
        description="Null if the distance to the stored pictures does not count."
    )
