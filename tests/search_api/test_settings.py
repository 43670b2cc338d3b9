"""The settings of an instance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from index.filters import FilterBounds
from index.milvus.settings import MilvusSettings
from search_api.settings import Limits, StoreLocation


@pytest.mark.parametrize(
    "location",
    [
        StoreLocation(),
        StoreLocation(Path("/srv/var"), None, "s3://bucket/pictures"),
        StoreLocation(
            Path("var"), MilvusSettings("http://127.0.0.1:19530", "user:password", "mine", False)
        ),
    ],
)
def test_a_location_survives_json(location: StoreLocation) -> None:
    assert StoreLocation.from_dict(json.loads(json.dumps(location.to_dict()))) == location


def test_bounds_of_filters_are_limits() -> None:
    limits = Limits(
        max_filter_depth=1,
        max_filter_conditions=2,
        max_filter_values=3,
        max_filter_text=4,
        max_filter_words=5,
    )
    assert limits.filter_bounds == FilterBounds(1, 2, 3, 4, 5)


def test_only_a_milvus_lite_file_is_single_process() -> None:
    assert StoreLocation(milvus=MilvusSettings("var/milvus.db")).single_process
    assert not StoreLocation(milvus=MilvusSettings("http://127.0.0.1:19530")).single_process
    assert not StoreLocation().single_process


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_images=300), "max_images is 300 and more than max_waiting, which is 256"),
        (Limits(max_waiting=10, max_images=10), "max_batch is 64 and more than max_waiting"),
        (Limits(max_payload_bytes=10**6), "more than max_form_field_bytes, which is 262,144"),
        (Limits(max_body_bytes=2**20), "max_picture_bytes is 67,108,864 and more than max_body"),
        (Limits(max_bytes_in_flight=2**20), "more than max_bytes_in_flight"),
        (Limits(max_offset=20_000), "max_offset plus max_limit is 21,000"),
        (Limits(body_seconds=5), "body_idle_seconds is 10.0 and more than body_seconds"),
    ],
)
def test_limits_that_contradict_each_other(limits: Limits, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        limits.check()


def test_a_form_has_room_for_every_picture() -> None:
    Limits().check()
    assert Limits().form_fields == 4 * 256 + 64
    assert Limits(max_images=10, max_form_fields=1).form_fields == 41
