"""What is indexed."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from search_api.schemas.base import Schema
from search_api.schemas.classifier import ClassifierSummary


class Pending(Schema):
    """Changes since this generation was built; searches already reflect them."""

    added: int = Field(
        description="Pictures added, or embedded again, since this generation was built."
    )
    deleted: int = Field(description="Pictures of this generation that are no longer valid.")


class LimitsInfo(Schema):
    """Limits on one request."""

    max_upload_bytes: int
    max_pixels: int
    max_images: int
    max_limit: int
    max_offset: int
    max_examples: int
    max_candidates: int


class StorageAmount(Schema):
    """How much of something is used."""

    used: int
    limit: int = Field(description="0 for no limit; of `free_bytes`, what must stay free.")


class WatchInfo(Schema):
    """How the server follows its corpus."""

    state: str = Field(
        examples=["watching"],
        description="`watching`, `polling`, `away` while the folder is not there, or `starting`.",
    )
    last_sync: float | None = Field(description="When it last did, in seconds since 1970.")
    counts: dict[str, int] = Field(
        description="What it did then, as in the result of its job.",
        examples=[{"embedded": 3, "changed": 1, "moved": 0, "removed": 0}],
    )
    problem: str | None = Field(description="Why the index does not follow the corpus now.")


class IndexInfo(Schema):
    """What is indexed, and by which model."""

    count: int
    kind: str = Field(examples=["exact"])
    dimension: int
    metric: str
    model: str
    generation: int
    complete: bool = Field(
        default=True,
        description="Whether the first build has finished; until then, searches find what is"
        " embedded so far.",
    )
    built: str = Field(description="When this generation was built, ISO 8601, UTC.")
    sequence: int = Field(description="Number of the last write that searches reflect.")
    pending: Pending
    parameters: dict[str, Any] = Field(description="How this kind of index was configured.")
    recall: dict[str, float] | None = Field(
        description="Share of the `k` true nearest neighbours that it found for held-out"
        " `queries` when it was built; null for an exact index.",
        examples=[{"k": 10, "value": 0.9992, "queries": 256}],
    )
    corpus: str = Field(examples=["CIFAR-10"])
    sample: bool = Field(description="Whether the corpus is only the rendered sample.")
    notice: str | None = Field(description="A warning to show to people, or null.")
    classes: list[str] = Field(description="The classes that the model itself can predict.")
    classifier: ClassifierSummary | None = Field(
        default=None,
        description="The classifier fitted on the labels; null if the model's classes answer.",
    )
    labels: dict[str, int] = Field(description="Number of pictures by label.")
    splits: dict[str, int] = Field(description="Number of pictures by split.")
    watch: WatchInfo | None = Field(
        default=None, description="Null unless the server follows its corpus: `--watch`."
    )
    limits: LimitsInfo
    storage: dict[str, StorageAmount] = Field(
        default_factory=dict,
        description="Added pictures, trash and snapshots, by number and bytes, and the free bytes"
        " of the disk; the first six only on one machine.",
    )
