"""The parameters of a page of results, defined once.

The query string, the JSON body and the command line all take them from here; the client's
`PageOptions` repeats their names for static type checkers, and a test compares the two.
"""

from __future__ import annotations

from pydantic import BaseModel, Field


class PageParams(BaseModel):
    """Which part of which ranking to return; None stands for a parameter that was not given."""

    limit: int = Field(
        default=12, description="Maximum number of points, or groups, to return, 1 to 1000."
    )
    offset: int = Field(default=0, description="Points or groups to skip first.")
    score_threshold: float | None = Field(
        default=None, allow_inf_nan=False, description="Minimum cosine similarity, -1..1."
    )
    diversity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Reorder by maximal marginal relevance: 0 keeps the ranking, 1 considers only"
        " variety.",
    )
    candidates: int | None = Field(
        default=None,
        description="Number of best points that `diversity` chooses from; 200 by default.",
    )
    group_by: str | None = Field(
        default=None,
        description="Payload field to group by; `groups` then has its nearest values.",
    )
    group_size: int | None = Field(
        default=None, description="Maximum number of points in a group; 3 by default."
    )
    cursor: str | None = Field(
        default=None,
        description="`next_cursor` of the previous page, to continue after its last point.",
    )


class PageQuery(PageParams):
    """The parameters in a query string, or in a form."""

    score_threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="Minimum cosine similarity, -1..1.",
    )
    filter: str | None = Field(
        default=None,
        description="Which pictures may be returned, as JSON: `must`, `should` and `must_not` with"
        " conditions: `match` (`value`, `any`, `except`, `text`), `range` of numbers or dates,"
        " `values_count`, `is_empty`, `is_null`, `nested` or `has_id`.",
        examples=[
            '{"must":[{"key":"label","match":{"value":"cat"}}]}',
            '{"must":[{"is_null":{"key":"label"}},'
            '{"key":"exif.taken","range":{"gte":"2024-05-01","lt":"2024-06-01"}}]}',
        ],
    )
