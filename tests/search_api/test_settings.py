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
    limits = Limits(max_filter_depth=1, max_filter_conditions=2, max_filter_values=3)
    assert limits.filter_bounds == FilterBounds(1, 2, 3)


def test_only_a_milvus_lite_file_is_single_process() -> None:
    assert StoreLocation(milvus=MilvusSettings("var/milvus.db")).single_process
    assert not StoreLocation(milvus=MilvusSettings("http://127.0.0.1:19530")).single_process
    assert not StoreLocation().single_process
