"""The synchronous client against a real server, and whether it is up to date."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from search_api import schemas
from search_api.client import Client, ProblemError
from search_api.client.generate import TARGET, generate
from tests.search_api.conftest import colour, png

RED = png(colour("red", 1))
NEAREST = "train/red/1.png"


def test_it_is_generated_from_the_asynchronous_one(tmp_path: Path) -> None:
    generate(tmp_path / "synchronous.py")
    expected = (tmp_path / "synchronous.py").read_text("utf-8")
    assert TARGET.read_text("utf-8") == expected, "stale; run `make client` and commit the result"


def test_sync(live_server: str, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(RED)
    with Client(live_server + "/") as client:
        for picture in (RED, file):
            found = client.search(picture, limit=2)
            assert isinstance(found, schemas.SearchResponse)
            assert found.prediction.label == "red"
            assert len(found.points) == 2
            assert found.points[0].payload["source"] == NEAREST
        first = found.points[0].id
        blue = {"must": [{"key": "label", "match": {"value": "blue"}}]}
        assert {p.payload["label"] for p in client.search(RED, filter=blue).points} == {"blue"}
        assert client.search(RED, score_threshold=0.9999).points[-1].score >= 0.9999
        assert client.similar(first, limit=3).points[0].id != first
        assert len(client.recommend([first], [found.points[1].id], limit=4).points) == 4
        classified = client.classify([RED, b"rubbish"]).results
        assert classified[0].prediction is not None and classified[0].prediction.label == "red"
        assert classified[1].error is not None and classified[1].error.status == 415
        page = client.list_images(limit=10)
        assert page.total == 24 and len(page.points) == 10
        assert client.list_images(after=page.next_after or 0).points[0].id > page.points[-1].id
        last = client.list_images(limit=20, order_by="id", direction="desc")
        assert [last.points[0].id, last.next_after] == [24, None]
        rest = client.list_images(order_by="id", direction="desc", cursor=last.next_cursor)
        assert [point.id for point in rest.points] == [4, 3, 2, 1]
        assert client.get_image(first).payload["source"] == NEAREST
        assert client.get_image_file(first).startswith(b"\x89PNG")
        assert len(client.examples(2).points) == 6
        assert client.index_info().count == 24
        assert client.livez() == client.readyz() == client.healthz()
        assert "lookalike_requests_total" in client.metrics()
        job = finished(client, client.rebuild_index(reembed=True))
        assert job.state == "succeeded"
        assert job.result is not None and job.result["embedded"] == 24


def finished(client: Client, job: schemas.Job) -> schemas.Job:
    while job.finished is None:
        time.sleep(0.01)
        job = client.get_job(job.id)
    return job


def test_writes(live_server: str, tmp_path: Path) -> None:
    file = tmp_path / "new.png"
    file.write_bytes(png((200, 100, 220)))
    with Client(live_server) as client:
        added = client.add_images(
            [file, RED, b"rubbish"], keys=["a", "b", "c"], payloads=[{"label": "pink", "price": 3}]
        )
        assert isinstance(added, schemas.AddResponse)
        assert [result.filename for result in added.results] == ["new.png", "picture", "picture"]
        assert added.results[2].error is not None and added.results[2].error.status == 415
        pink, red = added.results[0].id, added.results[1].id
        assert pink is not None and red is not None
        assert client.search(file, limit=1).points[0].id == pink
        assert client.index_info().pending.added == 2

        changed = client.change_image(pink, {"price": None, "seen": True, "split": "test"})
        assert (changed.payload["split"], changed.payload["seen"]) == ("test", True)
        replaced = client.change_image(pink, {"x": 1}, replace=True).payload
        assert replaced == {"x": 1, "label": "pink", "split": "test", "source": "key:a"}

        kept = client.create_snapshot("monday")
        assert (kept.name, kept.count, kept.problem) == ("monday", 26, None)
        assert len(client.create_snapshot().name) > 6
        assert client.delete_image(red).deleted == 1
        assert client.delete_images([pink, 999_999]).deleted == 1
        blue = {"must": [{"key": "label", "match": {"value": "blue"}}]}
        assert client.delete_images(filter=blue).deleted == 8
        assert client.index_info().count == 16
        back = client.restore_snapshot("monday")
        assert (back.snapshot, back.changed, back.deleted) == ("monday", 10, 0)
        assert client.index_info().count == 26
        assert "monday" in [snapshot.name for snapshot in client.list_snapshots().snapshots]
        client.delete_snapshot("monday")
        assert "monday" not in [snapshot.name for snapshot in client.list_snapshots().snapshots]

        job = finished(client, client.compact_index(kind="exact"))
        assert (job.kind, job.state) == ("compact", "succeeded")
        assert client.index_info().pending.added == 0
        with pytest.raises(ProblemError) as caught:
            client.cancel_job(job.id)
        assert caught.value.type == "urn:lookalike:problem:job-finished"


def test_models(live_server: str) -> None:
    with Client(live_server) as client:
        models = client.list_models()
        assert models.serving == "sha256:mean-colour"
        (serving,) = models.models
        assert (serving.embedded, serving.total) == (24, 24)
        for method in (client.embed_with_model, client.switch_model):
            with pytest.raises(ProblemError) as caught:
                method("sha256:none")
            assert caught.value.type == "urn:lookalike:problem:unknown-model"
            with pytest.raises(ProblemError) as caught:
                method(models.serving)
            assert caught.value.type == "urn:lookalike:problem:model-serves"
