"""Wrong uploads, told in the words of whoever sent them."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from embed.pictures import PictureLimits
from search_api.api.app import create_app
from search_api.api.intake.uploads import is_picture, is_stripped, is_urlencoded
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import colour, png
from tests.search_api.helpers import assert_problem

RED = png(colour("red", 3))
ENCODED = base64.b64encode(RED).decode()
CURLS = "application/x-www-form-urlencoded"
FORMS = {
    "/v1/search": "image",
    "/v1/classify": "images",
    "/v1/search/batch": "images",
    "/v1/images": "images",
    "/v1/recommend/images": "positive_images",
}


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour("red", 3)).save(buffer, "JPEG")
    return buffer.getvalue()


def stripped(data: bytes) -> bytes:
    """What curl's -d @FILE sends."""
    return data.translate(None, b"\0\r\n")


def send(client: TestClient, path: str, data: bytes, kind: str | None) -> Any:
    headers = {} if kind is None else {"content-type": kind}
    return client.post(path, content=data, headers=headers)


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("my cat.jpg", "image@ is the text 'my cat.jpg', not a file; -F image@=@my cat.jpg"),
        ("cat", "image@ is the text 'cat', not a file; -F image@=@cat.jpg"),
        ("", "image@ is text, not a file"),
        ("https://example.org/cat.jpg", "image@ is a URL, and this server fetches none"),
        ("s3://bucket/cat.jpg", "a URL"),
        (f"data:image/png;base64,{ENCODED}", "image@ is a data: URL"),
        (ENCODED, "image@ is base64, which has to be decoded first"),
        ("\x00\x01\x02", "must give the field a file name"),
    ],
)
def test_text_instead_of_a_file(client: TestClient, path: str, text: str, words: str) -> None:
    field = FORMS[path]
    # A form of text only is sent in the older notation, unless something makes it multipart.
    for options in ({"data": {field: text}}, {"files": {field: (None, text)}}):
        problem = assert_problem(client.post(path, **options), 422, f"-F {field}=@")
        assert problem["type"] == "urn:lookalike:problem:not-a-file"
        assert "=@http" not in problem["detail"]
        for part in words.replace("image@", field).split("; "):
            assert part in problem["detail"]


def test_a_file_instead_of_text(client: TestClient) -> None:
    files = {"images": ("a.png", RED), "payload": ("payload.json", b"{}")}
    problem = assert_problem(client.post("/v1/images", files=files), 422, "-F 'payload=<FILE'")
    assert problem["type"] == "urn:lookalike:problem:not-text"


@pytest.mark.parametrize(
    "kind",
    [None, "application/octet-stream", CURLS, "binary/octet-stream", "text/plain", "image/x"],
)
def test_a_picture_as_the_body_whatever_it_is_called(client: TestClient, kind: str | None) -> None:
    for data in (RED, jpeg()):
        expected = client.post("/v1/search?limit=3", files={"image": ("q", data)}).json()
        found = send(client, "/v1/search?limit=3", data, kind)
        assert found.status_code == 200, found.text
        assert {**found.json(), "time": 0} == {**expected, "time": 0}
        for path in ("/v1/classify", "/v1/search/batch"):
            (result,) = send(client, path, data, kind).json()["results"]
            assert result["error"] is None
    added = send(client, "/v1/images?key=one", png((70, 90, 200)), kind)
    assert (added.status_code, added.json()["results"][0]["key"]) == (201, "one")
    problem = send(client, "/v1/recommend/images", RED, kind)
    assert_problem(problem, 415, "the fields positive_images and negative_images")


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b'{"image": "iVBOR"}', "application/json", "the body is JSON"),
        (b'["https://example.org/cat.jpg"]', CURLS, "the body is JSON"),
        (b"https://example.org/cat.jpg?a=b", CURLS, "the body is a URL"),
        (ENCODED.encode(), "text/plain", "the body is base64"),
        (f'"{ENCODED}"'.encode(), "application/json", "the body is base64"),
        (f"data:image/png;base64,{ENCODED}".encode(), CURLS, "the body is a data: URL"),
        (stripped(RED), CURLS, "without its line ends and NULs, which curl's -d removes"),
        (stripped(jpeg()), CURLS, "curl's -d removes"),
        (stripped(jpeg()), "image/jpeg", "curl's -d removes"),
        (b"hello", "text/plain", "the 5 bytes of the body (text/plain) are neither a form nor"),
        (bytes(range(256)), CURLS, "the 256 bytes of the body"),
        (bytes(9), "application/octet-stream", "(application/octet-stream)"),
    ],
)
def test_bodies_that_are_no_picture(client: TestClient, data: bytes, kind: str, words: str) -> None:
    for path, field in FORMS.items():
        problem = assert_problem(send(client, path, data, kind), 415, words, f"-F {field}=@cat.jpg")
        assert problem["type"] == "urn:lookalike:problem:not-a-picture"


def test_a_form_whose_type_was_overwritten(client: TestClient) -> None:
    form = client.build_request("POST", "/v1/search", files={"image": ("q.png", RED)})
    body = form.read()
    for kind in ("image/jpeg", "application/octet-stream", "application/json"):
        response = send(client, "/v1/search", body, kind)
        assert_problem(response, 415, f"a form, but its Content-Type is {kind}")
    response = send(client, "/v1/search", body, "multipart/form-data")
    assert_problem(response, 400, "without a boundary", "leave the header out")


def test_nothing_at_all(client: TestClient) -> None:
    for kind in (None, CURLS, "application/octet-stream"):
        assert_problem(send(client, "/v1/search", b"", kind), 422, "image", "multipart form")
    # What a browser sends for a form in which no file was chosen.
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    empty = b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n--x--\r\n'
    response = client.post("/v1/search", content=empty, headers=boundary)
    assert_problem(response, 422, "image", "required")
    assert_problem(client.post("/v1/search", files={"image": ("q.png", b"")}), 422, "empty")


@pytest.mark.parametrize("header", ["Content-Transfer-Encoding: base64", "Content-Encoding: gzip"])
def test_a_part_that_is_itself_encoded(client: TestClient, header: str) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="q"\r\n{header}\r\n\r\n'
    response = client.post(
        "/v1/search",
        content=head.encode() + ENCODED.encode() + b"\r\n--x--\r\n",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    problem = assert_problem(response, 415, "the file in image is encoded as")
    assert problem["type"] == "urn:lookalike:problem:unsupported-encoding"


def test_a_large_picture_without_a_file_name(client: TestClient) -> None:
    response = client.post("/v1/search", files={"image": (None, b"\xff\xd8\xff" + bytes(300_000))})
    assert_problem(response, 400, "a picture's part of the form needs a filename")


def test_limits_of_a_picture_as_the_body(engine: SearchEngine) -> None:
    limits = Limits(max_json_bytes=1000, picture=PictureLimits(max_bytes=5000))
    client = TestClient(create_app(engine, limits))
    for kind in ("image/png", "application/octet-stream", CURLS):
        assert send(client, "/v1/search", RED + bytes(2000), kind).status_code == 200
        assert_problem(send(client, "/v1/search", RED + bytes(6000), kind), 413, "5,000")


def test_what_counts_as_a_picture() -> None:
    assert is_picture(RED)
    assert is_picture(jpeg())
    assert is_picture(RED[:20])  # damaged, which is for the decoder to say
    assert not is_picture(b"")
    assert not is_picture(b"image=cat")
    assert is_stripped(stripped(RED))
    assert is_stripped(stripped(jpeg()))
    assert not is_stripped(RED)
    assert not is_stripped(jpeg())


def test_what_counts_as_a_form() -> None:
    assert is_urlencoded(b"positive=1&positive=2\r\n")
    for body in (b"x", b"\xff\xd8\xff=", b'{"a": "b=c"}', b"http://a/?b=c", "ä=b".encode()):
        assert not is_urlencoded(body)
