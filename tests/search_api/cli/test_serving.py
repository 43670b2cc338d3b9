"""`lookalike up` and `lookalike serve`, mostly in a process of their own."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from embed.bundle import Bundle
from embed.pictures import FORMATS
from tests.embed.helpers import encoded, noise, rgb_tags, tiff
from tests.search_api.cli.helpers import Env, Server, run


@pytest.fixture
def fresh(store: Env, tmp_path: Path) -> Env:
    """Settings of an instance without a store."""
    return {**store, "LOOKALIKE_VAR": str(tmp_path / "var")}


def test_serve_answers_and_stops_cleanly(store: Env) -> None:
    server = Server("serve", store)
    try:
        assert server.get("/v1/index")["count"] == 24
    finally:
        code, stderr = server.stop()
    assert code == 0
    assert "Traceback" not in stderr
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert "draining" in [event["message"] for event in events]
    (request,) = [event for event in events if event["message"] == "request"]
    assert (request["route"], request["status"]) == ("/v1/index", 200)


def odd_pictures() -> list[bytes]:
    """Pictures that libtiff, Pillow and libheif have something to say about."""
    tags = rgb_tags(64, 64, 5) | {65000: (3, [1, 2, 3])}
    odd = tiff(tags, [b"\x80\x00\x20garbage" * 30])
    said = subprocess.run(
        [sys.executable, "-c", "import io, sys; from PIL import Image;"
         " Image.open(io.BytesIO(sys.stdin.buffer.read())).load()"],
        input=odd, capture_output=True,
    ).stderr.splitlines()[0]  # fmt: skip
    assert b"tempfile.tif: " in said, "libtiff no longer writes about it"
    picture = noise(64, 96)
    cut = {form: encoded(picture, form)[:-200] for form in FORMATS}
    exif = encoded(picture, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20))
    zeros = struct.pack("<ddd", *[float("nan")] * 3)
    deep = tiff(rgb_tags(1, 1, 1, 64) | {339: (3, [3, 3, 3])}, [zeros])
    return [odd, exif, deep, b"hello", *cut.values()]


def test_every_line_of_the_log_is_json_whatever_is_sent(store: Env) -> None:
    """Decoders in C write to the process's stderr, Python's warnings and errors go there too."""
    server = Server("serve", {**store, "LOOKALIKE_LOG_FORMAT": "json"})
    pictures = odd_pictures()
    statuses = []
    try:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            for picture in pictures * 2:  # in threads too: warnings are of the whole process
                statuses.append(client.post("/v1/search", content=picture).status_code)
    finally:
        code, stderr = server.stop()
    assert code == 0
    assert set(statuses) <= {200, 415, 422}
    events = [json.loads(line) for line in stderr.splitlines()]
    searches = [event for event in events if event.get("route") == "/v1/search"]
    assert [event["status"] for event in searches] == statuses


def test_up_builds_what_is_missing_once(fresh: Env) -> None:
    server = Server("up", fresh)
    built = server.get("/v1/index")
    _, first = server.stop()
    assert built["count"] == 24
    assert "24 embedded now" in first
    server = Server("up", fresh)
    again = server.get("/v1/index")
    del again["storage"]["free_bytes"], built["storage"]["free_bytes"]
    assert again == built
    _, second = server.stop()
    assert "embedded now" not in second


def test_up_with_another_model_embeds_again(fresh: Env, trained: Path, scenes: Path) -> None:
    Server("up", fresh).stop()
    other = trained.parent / "other"
    done = run(
        *(
            "train",
            "--data",
            scenes,
            "--recipe",
            "quick",
            "--epochs",
            1,
            "--seed",
            7,
            "--out",
            other,
        )
    )
    assert done.returncode == 0, done.stderr
    env = {**fresh, "LOOKALIKE_BUNDLE": str(other / "bundle")}
    refused = run("serve", "--port", 0, env=env)
    assert refused.returncode == 2
    ours = Bundle.load(trained / "bundle").digest
    theirs = Bundle.load(other / "bundle").digest
    assert ours in refused.stderr
    assert theirs in refused.stderr
    server = Server("up", env)
    assert server.get("/v1/index")["model"] == theirs
    _, stderr = server.stop()
    assert "24 embedded now" in stderr


def test_a_damaged_catalogue_is_refused_at_the_start(own: Env) -> None:
    path = Path(own["LOOKALIKE_VAR"]) / "catalogue.sqlite"
    data = path.read_bytes()
    at = data.rindex(b"boat/3.png")
    path.write_bytes(data[:at] + b"B" + data[at + 1 :])
    serve = run("serve", "--port", 0, env=own)
    assert serve.returncode == 1
    assert serve.stderr.count("\n") == 1
    assert "catalogue.sqlite" in serve.stderr


def test_port_in_use(store: Env) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", taken.getsockname()[1], env=store)
    assert done.returncode == 2
    assert "LOOKALIKE_PORT" in done.stderr
    assert done.stderr.count("\n") == 1
