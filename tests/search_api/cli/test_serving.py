"""`lookalike up` and `lookalike serve`, mostly in a process of their own."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import httpx2
import pytest

from embed.bundle import Bundle
from embed.pictures import FORMATS
from tests.embed.helpers import encoded, noise, rgb_tags, tiff
from tests.search_api.cli.helpers import Env, Server, put, run, status
from tests.search_api.helpers import until


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
    assert sorted(event["status"] for event in searches) == sorted(statuses)


def finished_builds(stderr: str) -> list[tuple[str, int]]:
    """State of each rebuild in the log, and how many pictures it embedded."""
    events = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    ended = [event for event in events if event["message"] == "job ended"]
    return [(event["state"], event.get("embedded", 0)) for event in ended]


def test_up_builds_what_is_missing_once(fresh: Env) -> None:
    server = Server("up", fresh)
    built = server.get("/v1/index")
    _, first = server.stop()
    assert built["count"] == 24
    assert finished_builds(first) == [("succeeded", 24)]
    server = Server("up", fresh)
    again = server.get("/v1/index")
    del again["storage"]["free_bytes"], built["storage"]["free_bytes"]
    assert again == built
    _, second = server.stop()
    assert finished_builds(second) == []


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


@pytest.mark.slow
def test_the_first_build_serves_from_the_start_and_goes_on(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    (name, *_) = put(root, "boat", range(3))
    picture = (root / name).read_bytes()
    for number in range(2_600):
        (root / "boat" / f"copy-{number:04}.png").write_bytes(picture)
    env = {
        "LOOKALIKE_DATA": str(root),
        "LOOKALIKE_VAR": str(tmp_path / "var"),
        "LOOKALIKE_BUNDLE": str(trained / "bundle"),
    }
    server = Server("up", env, wait=False)
    assert "indexing 2,603 pictures" in server.line
    assert server.get("/livez") == {"status": "ok"}
    with urllib.request.urlopen(server.url) as page:
        assert b'id="building"' in page.read()
    (job,) = server.get("/v1/jobs")["jobs"]
    assert (job["kind"], job["state"]) == ("rebuild", "running")
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get("/v1/index")
    problem = json.loads(refused.value.read())
    assert (refused.value.code, problem["type"]) == (503, "urn:lookalike:problem:not-ready")
    assert problem["job"] == job["id"]
    until(lambda: code_of(server, "/readyz") == 200, 60)
    partial = server.get("/v1/index")
    assert (partial["complete"], partial["generation"]) == (False, 1)
    assert 0 < partial["count"] < 2_600
    found = server.get("/v1/images/1/similar?limit=3")
    assert [round(point["score"], 3) for point in found["points"]] == [1.0, 1.0, 1.0]
    code, stderr = server.stop(signal.SIGINT)
    assert code == 130
    assert finished_builds(stderr) == [("interrupted", 0)]
    kept = status(env)["pictures"]
    assert partial["count"] <= kept < 2_600
    # What has been embedded serves at once, and the rest follows.
    server = Server("up", env, wait=False)
    assert "indexing 2,603 pictures" in server.line
    again = server.get("/v1/index")
    assert again["complete"] is False
    assert again["count"] >= kept
    until(lambda: server.get("/v1/index")["complete"], 60)
    whole = server.get("/v1/index")
    assert (whole["count"], whole["generation"]) == (2_603, 2)
    assert whole["pending"] == {"added": 0, "deleted": 0}
    server.wait()
    _, stderr = server.stop()
    assert finished_builds(stderr) == [("succeeded", 2_603 - kept)]
    server = Server("up", env, wait=False)
    assert "indexing" not in server.line
    assert server.get("/v1/jobs")["jobs"][0]["state"] == "succeeded"
    server.stop()


def test_a_first_build_without_pictures_is_refused_at_the_start(
    trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = run(
        *("up", "--port", 0, "--data", tmp_path / "empty", "--var", tmp_path / "var"),
        *("--bundle", trained / "bundle"),
    )
    assert done.returncode == 2
    assert "no pictures in" in done.stderr


def test_two_servers_on_an_empty_store_build_it_once(fresh: Env) -> None:
    servers = [Server("up", fresh, wait=False) for _ in range(2)]
    for server in servers:
        until(lambda server=server: code_of(server, "/readyz") == 200)  # type: ignore[misc]
        assert server.get("/v1/index")["count"] == 24
    until(lambda: all(s.get("/v1/index")["complete"] for s in servers), 60)
    ended = [finished_builds(server.stop()[1]) for server in servers]
    states = [state for builds in ended for state, _ in builds]
    assert states.count("succeeded") == 1


def code_of(server: Server, path: str) -> int:
    try:
        server.get(path)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@pytest.mark.slow
def test_watch_follows_the_folder(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for label in ("boat", "tree"):
        put(root, label, range(12))
    env = {
        "LOOKALIKE_DATA": str(root),
        "LOOKALIKE_VAR": str(tmp_path / "var"),
        "LOOKALIKE_BUNDLE": str(trained / "bundle"),
        "LOOKALIKE_WATCH": "1",
    }
    server = Server("up", env)

    def sources() -> set[str]:
        points = server.get("/v1/images?limit=100")["points"]
        return {point["payload"]["source"] for point in points}

    try:
        until(lambda: server.get("/v1/index")["watch"]["last_sync"] is not None, 60)
        put(root, "house", range(3))
        until(lambda: {f"house/{n}.png" for n in range(3)} <= sources(), 60)
        (root / "boat" / "1.png").unlink()
        (root / "tree" / "1.png").rename(root / "tree" / "one.png")
        until(lambda: "tree/one.png" in sources(), 60)
        until(lambda: sources().isdisjoint({"boat/1.png", "tree/1.png"}), 60)
        info = server.get("/v1/index")
        assert (info["count"], info["watch"]["state"]) == (26, "watching")
        assert info["watch"]["problem"] is None
    finally:
        code, stderr = server.stop()
    assert code == 0
    assert "Traceback" not in stderr
    # What changes while no server runs is followed at the next start.
    put(root, "house", range(3, 6))
    server = Server("serve", env)
    try:
        until(lambda: "house/5.png" in sources(), 60)
    finally:
        assert server.stop()[0] == 0
