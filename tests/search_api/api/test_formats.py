"""Every format over HTTP: searched with, added and shown like a PNG; what is not read is named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from embed.pictures import FORMATS
from tests.embed.decoding.headers.test_camera_raw import raw
from tests.embed.helpers import encoded, slope

PICTURE = slope(96, 128) // 4 + np.array([150, 0, 0], np.uint8)
RAW = raw("NIKON")
NAMED = "is a camera RAW file (Nikon NEF), which is not read; export it as JPEG, PNG or TIFF"


def made(form: str) -> bytes:
    return encoded(PICTURE, form, **({"quality": 95} if form in ("HEIF", "AVIF", "JPEG") else {}))


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_found_whatever_its_format(client: TestClient, form: str) -> None:
    png = client.post("/v1/search", content=made("PNG"))
    data = made(form)
    as_file = client.post("/v1/search", files={"image": ("a", data)})
    as_body = client.post(
        "/v1/search", content=data, headers={"content-type": "application/octet-stream"}
    )
    scores = [point["score"] for point in png.json()["points"]]
    for answer in (as_file, as_body):
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert [point["score"] for point in found["points"]] == pytest.approx(scores, abs=0.05)
        assert found["prediction"]["class"] == png.json()["prediction"]["class"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_added_and_shown_whatever_its_format(client: TestClient, form: str) -> None:
    answer = client.post("/v1/images", files={"images": ("IMG_0001", made(form))})
    assert answer.status_code == 201, answer.text
    (added,) = answer.json()["results"]
    try:
        shown = client.get(f"/v1/images/{added['id']}/file")
        assert shown.status_code == 200
        with Image.open(io.BytesIO(shown.content)) as image:
            assert image.format == "PNG"
            assert np.abs(np.asarray(image).astype(int) - PICTURE).mean() < 3
    finally:
        client.delete(f"/v1/images/{added['id']}")


def test_camera_raw_is_named_however_it_is_sent(client: TestClient) -> None:
    as_file = client.post("/v1/search", files={"image": ("DSC_0001.NEF", RAW)})
    for kind in ("image/x-nikon-nef", "application/octet-stream", None):
        headers = {} if kind is None else {"content-type": kind}
        as_body = client.post("/v1/search", content=RAW, headers=headers)
        assert as_body.status_code == 415
        assert as_body.json()["type"] == "urn:lookalike:problem:not-a-picture"
        assert NAMED in as_body.json()["detail"]
    assert as_file.status_code == 415
    assert NAMED in as_file.json()["detail"]


def test_camera_raw_is_not_added(client: TestClient) -> None:
    answer = client.post("/v1/images", files={"images": ("DSC_0001.NEF", RAW)})
    assert NAMED in answer.text
    assert answer.status_code in (207, 415, 422)
