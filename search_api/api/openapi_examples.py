"""Examples for the OpenAPI document. A test validates them against the schemas."""

from __future__ import annotations

from typing import Any

_MODEL = "sha256:8c4e1f0a"
_CLASSIFIER = "sha256:77a0e4b1"
_OTHER_MODEL = "sha256:1b77d2c9"
_IMAGE = {
    "id": 123,
    "payload": {"label": "cat", "split": "train", "source": "train/00123"},
    "image_url": "/v1/images/123/file",
}
_PREDICTION = {
    "class": "cat",
    "confidence": 0.95,
    "nearest_class": "cat",
    "grade": "like the stored pictures",
    "source": "store",
    "probabilities": {"cat": 0.97, "dog": 0.03},
}
_POINTS = {
    "points": [{**_IMAGE, "score": 0.987}],
    "groups": None,
    "next_cursor": "eyJ2IjoxLCJzY29yZSI6MC45ODd9",
    "vote": {"class": "cat", "share": 1.0},
    "model": _MODEL,
    "generation": 1,
    "sequence": 60_000,
    "time": {"decode": 0.3, "search": 2.1, "payload": 0.4, "total": 2.8},
}
_NOT_A_PICTURE = {
    "type": "urn:lookalike:problem:not-a-picture",
    "title": "not-a-picture",
    "status": 415,
    "detail": "the 12 bytes are not a picture in a known format; expected one of JPEG, PNG, WebP,"
    " GIF, BMP, TIFF, HEIC, AVIF, JPEG 2000, ICO, PNM",
}
_STAMP = {"model": _MODEL, "generation": 1, "sequence": 60_002}
_SNAPSHOT = {
    "name": "monday",
    "count": 60_001,
    "model": _MODEL,
    "sequence": 60_002,
    "created": "2026-02-02T08:00:00+00:00",
    "size": 93_323_264,
    "problem": None,
}
_TRASHED = {
    "id": 123,
    "key": "cat-1",
    "payload": {"label": "cat", "split": None, "source": "key:cat-1"},
    "deleted": "2026-02-02T08:00:00+00:00",
    "expires": "2026-03-04T08:00:00+00:00",
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
    "StoredImage": {**_IMAGE, **_STAMP},
    "Images": {
        "points": [_IMAGE],
        "total": 60_000,
        "next_after": 123,
        "next_cursor": None,
        **_STAMP,
    },
    "Examples": {"points": [_IMAGE], **_STAMP},
    "Points": _POINTS,
    "SearchResponse": {**_POINTS, "prediction": _PREDICTION},
    "ClassifyResponse": {
        "results": [
            {"filename": "cat.jpg", "prediction": _PREDICTION, "error": None},
            {"filename": "notes.txt", "prediction": None, "error": _NOT_A_PICTURE},
        ],
        "model": _MODEL,
        "generation": 1,
        "time": {"decode": 0.4, "total": 5.2},
    },
    "BatchResponse": {
        "results": [
            {
                "filename": "cat.jpg",
                "result": {**_POINTS, "prediction": _PREDICTION},
                "error": None,
            },
            {"filename": "notes.txt", "result": None, "error": _NOT_A_PICTURE},
        ]
    },
    "RecommendRequest": {"positive": [1, 2], "negative": [3], "limit": 5},
    "IndexInfo": {
        "count": 60_000,
        "kind": "ivf",
        "dimension": 256,
        "metric": "cosine",
        "model": _MODEL,
        "generation": 1,
        "built": "2026-01-31T12:00:00+00:00",
        "sequence": 60_001,
        "pending": {"added": 3, "deleted": 1},
        "parameters": {"factory": "IVF489,SQ8", "effort": 64, "rescored": 2, "mapped": False},
        "recall": {"k": 10, "value": 0.9992, "queries": 256},
        "corpus": "CIFAR-10",
        "sample": False,
        "notice": None,
        "classes": ["cat", "dog"],
        "classifier": {
            "classes": 2,
            "pictures": 60_000,
            "accuracy": 0.98,
            "ece": 0.01,
            "fitted": "2026-01-31T12:00:20+00:00",
        },
        "labels": {"cat": 30_000, "dog": 30_000},
        "splits": {"train": 50_000, "test": 10_000},
        "limits": {
            "max_upload_bytes": 67_108_864,
            "max_pixels": 55_000_000,
            "max_images": 256,
            "max_limit": 1000,
            "max_offset": 10_000,
            "max_examples": 100,
            "max_candidates": 2000,
        },
        "storage": {
            "added_pictures": {"used": 12, "limit": 0},
            "added_bytes": {"used": 1_048_576, "limit": 10_737_418_240},
            "free_bytes": {"used": 54_000_000_000, "limit": 1_073_741_824},
        },
    },
    "ClassifierInfo": {
        "source": "store",
        "digest": _CLASSIFIER,
        "reason": None,
        "fitted": "2026-01-31T12:00:20+00:00",
        "fitted_sequence": 60_001,
        "classes": {"cat": 30_000, "dog": 29_998},
        "left_out": {"fox": 2},
        "accuracy": 0.98,
        "ece": 0.01,
        "temperature": 0.9,
        "novelty": {"threshold": 0.71, "lowest": 0.52, "pictures": 10_000},
        **_STAMP,
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
    "AddResponse": {
        "results": [
            {
                "filename": "cat.jpg",
                "key": "cat-1",
                "id": 60_001,
                "status": "added",
                "existing": None,
                "error": None,
            },
            {
                "filename": "notes.txt",
                "key": "notes",
                "id": None,
                "status": None,
                "existing": None,
                "error": _NOT_A_PICTURE,
            },
        ],
        **_STAMP,
    },
    "ChangeRequest": {"payload": {"label": "cat", "price": 9.5}, "replace": False},
    "DeleteRequest": {"ids": [1, 2]},
    "DeletedResponse": {
        "deleted": 2,
        "restorable_until": "2026-03-04T08:00:00+00:00",
        **_STAMP,
    },
    "TrashedImage": _TRASHED,
    "Trash": {"points": [_TRASHED], "total": 1, "next_after": None, **_STAMP},
    "RestoreRequest": {"last": True},
    "RestoredImages": {
        "ids": [123],
        "conflicts": [{"id": 124, "stored_as": 60_001}],
        "unembedded": 0,
        **_STAMP,
    },
    "PurgeRequest": {"ids": [123]},
    "PurgedImages": {
        "purged": 1,
        "files": 0,
        "kept_by": {"monday": 1},
        "pending": False,
        "indexed": True,
        **_STAMP,
    },
    "SnapshotRequest": {"name": "monday"},
    "SnapshotInfo": _SNAPSHOT,
    "SnapshotMade": {**_SNAPSHOT, "generation": 1},
    "Snapshots": {"snapshots": [_SNAPSHOT], **_STAMP},
    "Restored": {"snapshot": "monday", "changed": 3, "deleted": 1, **_STAMP},
    "Models": {
        "serving": _MODEL,
        "generation": 1,
        "models": [
            {"model": _OTHER_MODEL, "embedded": 45_000, "total": 60_000},
            {"model": _MODEL, "embedded": 60_000, "total": 60_000},
        ],
    },
    "ModelDifference": {
        "model": _OTHER_MODEL,
        "serving": _MODEL,
        "generation": 1,
        "queries": 500,
        "k": 10,
        "overlap": 0.81,
        "unchanged": 0.12,
        "first_kept": 0.7,
        "worst": [123, 4567],
        "label_before": 0.93,
        "label_after": 0.95,
    },
}
"""By schema name."""

PARAMETERS: dict[str, Any] = {
    "image_id": 123,
    "job_id": "5f0c2a",
    "limit": 5,
    "offset": 0,
    "after": 123,
    "per_class": 2,
    "tags": True,
    "score_threshold": 0.8,
    "diversity": 0.5,
    "candidates": 200,
    "group_by": "label",
    "group_size": 3,
    "order_by": "exif.taken",
    "direction": "desc",
    "cursor": "eyJ2IjoxLCJzY29yZSI6MC45ODd9",
    "size": 128,
    "reembed": False,
    "allow_removal": False,
    "allow_missing": False,
    "kind": "auto",
    "name": "monday",
    "digest": _OTHER_MODEL,
    "queries": 500,
    "k": 10,
    "classes": "both",
    "filter": '{"must":[{"key":"label","match":{"value":"cat"}}],'
    '"must_not":[{"is_empty":{"key":"exif.taken"}}]}',
}
"""By parameter name."""

PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("bad-request", "There was an error parsing the body"),
    401: ("no-key", "the request has no API key; send one as `Authorization: Bearer KEY`"),
    403: (
        "read-only-key",
        "POST /v1/images needs a key for writing; the key of the request may only read",
    ),
    404: ("unknown-id", "no picture has the id 999999"),
    408: ("request-timeout", "the request's body stopped or was too slow after 5,120 bytes"),
    409: ("job-running", "job 5f0c2a (rebuild) is still running; wait until it has finished"),
    413: ("too-large", "the request has 99,999,999 bytes; the limit is 67,108,864"),
    415: ("not-a-picture", "the 12 bytes are not a picture in a known format"),
    422: ("limit", "limit is 0; expected 1 to 1000; page with offset or cursor"),
    429: ("queue-full", "256 pictures are waiting, the limit is 256; try again in 1 s"),
    501: (
        "not-with-this-index",
        "a store in Milvus has no snapshots; back it up with milvus-backup or your Milvus provider",
    ),
    503: ("not-ready", "no index is loaded yet; wait, or build one with `lookalike index build`"),
    507: (
        "quota-exceeded",
        "adding 3 pictures exceeds the quota of 1,000 pictures: 999 are stored, 1 left; delete"
        " pictures, or raise max_added_pictures",
    ),
}
"""Kind and detail of a problem, by status."""
