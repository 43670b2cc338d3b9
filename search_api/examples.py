"""Examples for the API's documents: what an answer looks like. A test holds them to the schemas."""

from __future__ import annotations

from typing import Any

_MODEL = "sha256:8c4e1f0a"
_IMAGE = {
    "id": 123,
    "payload": {"label": "cat", "split": "train", "source": "train/00123"},
    "image_url": "/v1/images/123/file",
}
_PREDICTION = {"class": "cat", "confidence": 0.97, "probabilities": {"cat": 0.97, "dog": 0.03}}
_POINTS = {
    "points": [{**_IMAGE, "score": 0.987}],
    "vote": {"class": "cat", "share": 1.0},
    "model": _MODEL,
    "generation": 1,
    "time": {"decode": 0.3, "search": 2.1, "payload": 0.4, "total": 2.8},
}

_JOB = {
    "id": "5f0c2a",
    "kind": "rebuild",
    "state": "running",
    "progress": {"stage": "embedding", "done": 500, "total": 60_000},
    "eta_seconds": 41.5,
    "skipped": 1,
    "started": 1_769_860_800.0,
    "finished": None,
    "error": None,
    "result": None,
}

SCHEMAS: dict[str, Any] = {
    "Health": {"status": "ok"},
    "Image": _IMAGE,
    "Images": {"points": [_IMAGE], "total": 60_000, "next_after": 123},
    "Examples": {"points": [_IMAGE]},
    "Points": _POINTS,
    "SearchResponse": {**_POINTS, "prediction": _PREDICTION},
    "ClassifyResponse": {
        "results": [
            {"filename": "cat.jpg", "prediction": _PREDICTION, "error": None},
            {
                "filename": "notes.txt",
                "prediction": None,
                "error": {
                    "type": "urn:lookalike:problem:not-a-picture",
                    "title": "not-a-picture",
                    "status": 415,
                    "detail": "the 12 bytes are not a picture in a known format; expected one of"
                    " JPEG, PNG, WEBP, GIF, BMP, TIFF",
                },
            },
        ],
        "model": _MODEL,
        "time": {"decode": 0.4, "total": 5.2},
    },
    "RecommendRequest": {"positive": [1, 2], "negative": [3], "limit": 5},
    "IndexInfo": {
        "count": 60_000,
        "kind": "exact",
        "dimension": 256,
        "metric": "cosine",
        "model": _MODEL,
        "generation": 1,
        "built": "2026-01-31T12:00:00+00:00",
        "corpus": "CIFAR-10",
        "sample": False,
        "notice": None,
        "classes": ["cat", "dog"],
        "labels": {"cat": 30_000, "dog": 30_000},
        "splits": {"train": 50_000, "test": 10_000},
        "limits": {
            "max_upload_bytes": 20_971_520,
            "max_pixels": 50_000_000,
            "max_images": 256,
            "max_limit": 1000,
            "max_offset": 10_000,
        },
    },
    "Job": _JOB,
    "Jobs": {"jobs": [_JOB]},
    "JobLog": {
        "entries": [
            {
                "number": 0,
                "source": "cats/7.jpg",
                "reason": "the file is empty (0 bytes); expected a picture",
            }
        ],
        "total": 1,
        "next_after": None,
    },
}
"""By the name of the schema."""

PARAMETERS: dict[str, Any] = {
    "image_id": 123,
    "job_id": "5f0c2a",
    "limit": 5,
    "offset": 0,
    "after": 123,
    "per_class": 2,
    "score_threshold": 0.8,
    "size": 128,
    "reembed": False,
    "filter": '{"must":[{"key":"label","match":{"value":"cat"}}]}',
}
"""By the name of the parameter."""

PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("bad-request", "There was an error parsing the body"),
    401: ("no-key", "the request has no API key; send one as `Authorization: Bearer KEY`"),
    403: ("read-only-key", "the request's key may only read; send a key for writing"),
    404: ("unknown-id", "no picture has the id 999999"),
    408: ("request-timeout", "the request's body stopped or is too slow after 5,120 bytes"),
    409: ("job-running", "job 5f0c2a (rebuild) is still running; wait until it is done"),
    413: ("too-large", "the request has 99,999,999 bytes, the limit is 67,108,864"),
    415: ("not-a-picture", "the 12 bytes are not a picture in a known format"),
    422: ("limit", "limit is 0; expected 1 to 1000, page with offset"),
    429: ("queue-full", "too many pictures are waiting; try again in a second"),
    503: ("not-ready", "no index is loaded yet; wait, or build one"),
}
"""Kind and detail of a problem, by its status."""
