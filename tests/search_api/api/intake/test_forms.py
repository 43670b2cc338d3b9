"""Forms that end too early lose nothing without a word; names of files in RFC 5987's notation."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.search_api.conftest import colour, png
from tests.search_api.helpers import assert_problem

RED = png(colour("red", 3))
END = b"--B--\r\n"


def part(disposition: str, data: bytes) -> bytes:
    head = f"--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + data + b"\r\n"


PICTURE = part('name="image"; filename="q.png"', RED)


def send(client: TestClient, path: str, body: bytes) -> Any:
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    return client.post(path, content=body, headers=headers)


@pytest.mark.parametrize(
    "end",
    [
        part('name="limit"', b"2"),
        part('name="filter"', b'{"must": []}')[:-2],
        part('name="limit"', b"2")[:20],
        part('name="limit"', b"2") + END[:4],
        b"",
    ],
)
def test_a_form_that_ends_too_early(client: TestClient, end: bytes) -> None:
    response = send(client, "/v1/search", PICTURE + end)
    assert_problem(response, 400, "the form ends before its last boundary")


def test_no_picture_of_a_form_that_ends_too_early_is_added(client: TestClient) -> None:
    before = client.get("/v1/images").json()["total"]
    pictures = [part(f'name="images"; filename="{i}.png"', RED + bytes([i])) for i in range(2)]
    response = send(client, "/v1/images", b"".join(pictures)[:-20])
    assert_problem(response, 400, "the form ends before its last boundary")
    assert client.get("/v1/images").json()["total"] == before


@pytest.mark.parametrize("end", [b"--B--", END, END + b"\r\n", END + b"what nobody reads"])
def test_a_form_that_is_whole(client: TestClient, end: bytes) -> None:
    response = send(client, "/v1/search", PICTURE + part('name="limit"', b"2") + end)
    assert response.status_code == 200, response.text
    assert len(response.json()["points"]) == 2


@pytest.mark.parametrize("body", [RED, b"--Q\r\n" + PICTURE[5:] + b"--Q--\r\n", b"hello"])
def test_a_body_that_is_not_the_form_of_its_boundary(client: TestClient, body: bytes) -> None:
    assert_problem(send(client, "/v1/search", body), 400, "cannot be read as a form")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("filename*=UTF-8''%e2%82%ac%20%22x%22.png", '€ "x".png'),
        ("filename*=iso-8859-1'en'%e9.png", "é.png"),
        ("filename*0=long; filename*1=name.png", "longname.png"),
        ("filename*=UTF-8''x.png; filename=plain.png", "plain.png"),
    ],
)
def test_names_of_files_in_another_notation(client: TestClient, sent: str, name: str) -> None:
    response = send(client, "/v1/search/batch", part(f"name=images; {sent}", RED) + END)
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["filename"] == name


@pytest.mark.parametrize(
    ("text", "byte"),
    [('{"label": "é"}'.encode("latin-1"), "0xE9"), ('{"label": "é"}'.encode("cp850"), "0x82")],
)
def test_text_in_another_encoding(client: TestClient, text: bytes, byte: str) -> None:
    picture = part('name="images"; filename="q.png"', png((7, 7, 7)))
    response = send(client, "/v1/images", picture + part('name="payload"', text) + END)
    assert_problem(response, 422, "payload is not text in UTF-8: its byte 11 is", byte)
    assert client.get("/v1/images").json()["total"] == 24


def test_text_in_the_encoding_that_the_form_names(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=B; charset=iso-8859-1"}
    picture = part('name="images"; filename="q.png"', png((7, 7, 7)))
    body = picture + part('name="payload"', '{"label": "é"}'.encode("latin-1")) + END
    response = client.post("/v1/images", content=body, headers=headers)
    (added,) = response.json()["results"]
    assert client.get(f"/v1/images/{added['id']}").json()["payload"]["label"] == "é"


@pytest.mark.parametrize("charset", ["hex", "idna"])
def test_encodings_that_are_none_of_text(client: TestClient, charset: str) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary=B; charset={charset}"}
    body = PICTURE + part('name="limit"', b"\xff..2") + END
    assert_problem(client.post("/v1/search", content=body, headers=headers), 422, "is not text in")


def test_a_query_string_in_another_encoding(client: TestClient) -> None:
    response = client.get("/v1/images?filter=%7B%22must%22%3A%5B%5D%7D%E9")
    assert_problem(response, 422, "the query string is not text in UTF-8", "0xE9")


def test_a_field_called_like_the_notation_is_no_file(client: TestClient) -> None:
    response = send(client, "/v1/search", PICTURE + part('name="filename*"', b"x") + END)
    assert_problem(response, 422, "unknown field 'filename*'")
