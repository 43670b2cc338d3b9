"""Requests, waiting and fakes that several test modules share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from httpx2 import Response

from embed.encoder import Encoding
from search_api.api.app import create_app
from search_api.api.server import Server
from search_api.jobs.model import Job
from search_api.jobs.runner import JobRunner
from search_api.jobs.tasks import Task
from search_api.keys import Access
from search_api.service.engine import SearchEngine
from search_api.settings import Limits, Shutdown
from tests.search_api.conftest import MeanColour, png

NEW = (200, 100, 220)
"""A colour that none of the 24 pictures has."""
OTHER = "sha256:" + "b" * 64
ODD = (250, 250, 250)
"""A colour unlike all pictures of the `garden`."""
KINDS = ("leaf", "rose", "sea")
EACH = 20
QUICK = Shutdown(drain_seconds=0.1)


class Wider(MeanColour):
    """Another model: four dimensions, the colour channels in reverse order."""

    dimension = 4

    def __init__(self, digest: str = OTHER) -> None:
        super().__init__(digest)
        self.wait = 0.0

    def encode(self, pictures, *, spare=False):
        time.sleep(self.wait)
        probabilities, embeddings = super().encode(pictures)
        reversed_ = np.hstack((embeddings[:, ::-1], np.zeros((len(embeddings), 1), np.float32)))
        return Encoding(probabilities, np.ascontiguousarray(reversed_))


def tint(kind: str, number: int) -> tuple[int, int, int]:
    """The colour of picture ``number``, 0..19, of a kind in the `garden`."""
    other = 6 * number
    return {"rose": (240, other, 0), "leaf": (0, 240, other), "sea": (other, 0, 240)}[kind]


def garden(root: Path) -> Path:
    """60 plain pictures in a folder for each kind; no label is a class of `MeanColour`."""
    for kind in KINDS:
        (root / kind).mkdir(parents=True)
        for number in range(EACH):
            (root / kind / f"{number:02}.png").write_bytes(png(tint(kind, number)))
    return root


def assert_problem(response: Response, status: int, *words: str) -> dict:
    """Assert that this is a problem whose detail contains ``words``; return its JSON."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(problem)
    assert problem["status"] == status
    assert problem["type"].startswith("urn:lookalike:problem:")
    for word in words:
        assert word in problem["detail"], problem["detail"]
    return problem


def add(client: TestClient, *pictures: bytes, **data: object) -> Response:
    """Upload pictures; ``data`` are further form fields."""
    files = [("images", (f"{i}.png", picture)) for i, picture in enumerate(pictures)]
    return client.post("/v1/images", files=files, data=data)


def search(client: TestClient, rgb: tuple[int, int, int], limit: int = 1, **params: object) -> dict:
    """The response to a search by a picture of one colour."""
    files = {"image": ("q.png", png(rgb))}
    return client.post("/v1/search", files=files, params={"limit": limit, **params}).json()


def first(client: TestClient, rgb: tuple[int, int, int]) -> dict:
    """The nearest point to a colour."""
    return search(client, rgb)["points"][0]


def wait(client: TestClient, job_id: str) -> dict:
    """The job once it has finished."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job["finished"] is not None:
            return job
        time.sleep(0.01)
    raise AssertionError(f"the job did not finish: {job}")


def finished(runner: JobRunner, job_id: str) -> Job:
    """The same of a runner without a server."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        job = runner.get(job_id)
        assert job is not None
        if job.finished is not None:
            return job
        time.sleep(0.001)
    raise AssertionError("the job did not finish")


def at_generation(client: TestClient, generation: int) -> dict:
    """The description of the index once it has reached that generation."""
    end = time.monotonic() + 60
    while (info := client.get("/v1/index").json())["generation"] < generation:
        assert time.monotonic() < end, info
        time.sleep(0.02)
    return info


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(
    engine: SearchEngine,
    limits: Limits = Limits(),
    shutdown: Shutdown = QUICK,
    build: Task | None = None,
    access: Access = Access(),
) -> Iterator[tuple[Server, tuple[str, int]]]:
    """A server in a thread, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(create_app(engine, limits, access, build=build), limits, shutdown)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    address = listener.getsockname()
    thread.start()
    try:
        yield server, address
    finally:
        server.should_exit = True
        thread.join()
