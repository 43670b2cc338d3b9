"""The index over HTTP: description, rebuilding, recall, documents."""

from __future__ import annotations

import threading
from pathlib import Path

from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus, sample
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from tests.search_api.conftest import MeanColour, colour, png, rebuild
from tests.search_api.helpers import wait


def test_index_info(client: TestClient, engine: SearchEngine, encoder: MeanColour) -> None:
    info = client.get("/v1/index").json()
    assert info.pop("built") == engine.manifest.created
    assert info == {
        "count": 24,
        "kind": "exact",
        "dimension": 3,
        "metric": "cosine",
        "model": encoder.digest,
        "generation": 1,
        "sequence": 1,
        "pending": {"added": 0, "deleted": 0},
        "complete": True,
        "watch": None,
        "parameters": {},
        "recall": None,
        "corpus": "pictures",
        "sample": False,
        "notice": None,
        "classes": ["blue", "green", "red"],
        "classifier": None,
        "labels": {"blue": 8, "green": 8, "red": 8},
        "splits": {"test": 6, "train": 18},
        "limits": {
            "max_upload_bytes": 64 * 2**20,
            "max_pixels": 55_000_000,
            "max_images": 256,
            "max_limit": 1000,
            "max_offset": 10_000,
            "max_examples": 100,
            "max_candidates": 2000,
        },
        "storage": {
            **{
                f"{what}_{unit}": {"used": 0, "limit": 0}
                for what in ("added", "trash")
                for unit in ("pictures", "bytes")
            },
            "snapshots": {"used": 0, "limit": 0},
            "snapshot_bytes": {"used": 0, "limit": 0},
            "free_bytes": info["storage"]["free_bytes"],
        },
    }


def test_sample_is_labelled(tmp_path: Path) -> None:
    engine = SearchEngine(MeanColour(), sample(per_class=5), tmp_path / "var")
    rebuild(engine)
    with TestClient(create_app(engine)) as client:
        info = client.get("/v1/index").json()
    assert info["sample"] is True
    assert "sample" in info["notice"]
    assert info["count"] == 50
    assert info["splits"] == {"test": 10, "train": 40}


def test_rebuild_adds_and_removes_pictures(
    client: TestClient, folder: Path, encoder: MeanColour
) -> None:
    embedded = encoder.encoded
    (folder / "train" / "red" / "new.png").write_bytes(png((250, 5, 5)))
    (folder / "train" / "red" / "0.png").unlink()
    (folder / "train" / "red" / "broken.png").write_bytes(b"not a picture")
    response = client.post("/v1/index/rebuild")
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    job = wait(client, response.json()["id"])
    assert job["state"] == "succeeded", job
    assert job["kind"] == "rebuild"
    assert job["error"] is None
    assert job["result"] == {
        "generation": 2,
        "total": 24,
        "embedded": 1,
        "changed": 0,
        "moved": 0,
        "removed": 1,
        "unreachable": 0,
        "skipped": 1,
        "skipped unreadable pictures": 1,
    }
    assert encoder.encoded == embedded + 1
    answer = client.post(
        "/v1/search", files={"image": ("q.png", png((250, 5, 5)))}, params={"limit": 24}
    ).json()
    assert answer["generation"] == 2
    sources = [p["payload"]["source"] for p in answer["points"]]
    assert sources[0] == "train/red/new.png"
    assert "train/red/0.png" not in sources
    assert len(sources) == 24


def test_a_rebuild_that_would_remove_too_much_fails_unless_it_is_allowed(
    client: TestClient, folder: Path
) -> None:
    for shade in range(3):
        (folder / "train" / "red" / f"{shade}.png").unlink()
    (folder / "train" / "blue" / "0.png").write_bytes(png((250, 5, 5)))
    (folder / "train" / "blue" / "1.png").rename(folder / "train" / "blue" / "one.png")
    job = wait(client, client.post("/v1/index/rebuild").json()["id"])
    assert job["state"] == "failed"
    assert "would remove 3 of the 24 pictures" in job["error"]
    assert "allow_removal=true" in job["error"]
    assert client.get("/v1/index").json()["count"] == 24
    allowed = client.post("/v1/index/rebuild", params={"allow_removal": True})
    job = wait(client, allowed.json()["id"])
    assert job["result"] == {
        "generation": 2,
        "total": 21,
        "embedded": 1,
        "changed": 1,
        "moved": 1,
        "removed": 3,
        "unreachable": 0,
        "skipped": 0,
    }


def test_ids_are_stable_across_a_rebuild(client: TestClient) -> None:
    def ids() -> dict[str, int]:
        points = client.get("/v1/images", params={"limit": 100}).json()["points"]
        return {p["payload"]["source"]: p["id"] for p in points}

    before = ids()
    wait(client, client.post("/v1/index/rebuild").json()["id"])
    wait(client, client.post("/v1/index/rebuild", params={"reembed": True}).json()["id"])
    assert ids() == before


class Gate(MeanColour):
    """Blocks while encoding until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.shut = False

    def encode(self, pictures, *, spare=False):
        if self.shut and len(pictures) > 1:
            self.entered.set()
            assert self.opened.wait(30)
        return super().encode(pictures)


def test_searches_continue_and_a_second_rebuild_is_refused(folder: Path, tmp_path: Path) -> None:
    gate = Gate()
    engine = SearchEngine(gate, FolderCorpus(folder), tmp_path / "var")
    rebuild(engine)
    with TestClient(create_app(engine)) as client:
        gate.shut = True
        first = client.post("/v1/index/rebuild", params={"reembed": True}).json()
        assert gate.entered.wait(30)
        job = client.get(f"/v1/jobs/{first['id']}").json()
        assert job["state"] == "running"
        assert job["progress"] == {"stage": "embedding", "done": 0, "total": 24}

        second = client.post("/v1/index/rebuild")
        assert second.status_code == 409
        assert second.json()["job"] == first["id"]
        assert first["id"] in second.json()["detail"]

        answer = client.post("/v1/search", files={"image": ("q", png(colour("red", 1)))}).json()
        assert answer["generation"] == 1
        assert answer["points"][0]["payload"]["source"] == "train/red/1.png"

        gate.opened.set()
        assert wait(client, first["id"])["state"] == "succeeded"
        answer = client.post("/v1/search", files={"image": ("q", png(colour("red", 1)))}).json()
        assert answer["generation"] == 2


def test_failed_rebuild_leaves_the_old_index(client: TestClient, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()
    job = wait(client, client.post("/v1/index/rebuild").json()["id"])
    assert job["state"] == "failed"
    assert "no pictures" in job["error"]
    answer = client.post("/v1/search", files={"image": ("q", png(colour("red", 1)))}).json()
    assert answer["generation"] == 1
    assert len(answer["points"]) == 12
