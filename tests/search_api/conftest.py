"""A small corpus and a fake encoder whose vectors can be worked out by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from embed.corpus import FolderCorpus
from embed.encoder import Encoding
from embed.pictures import RGB, encode_png
from embed.preprocess import Preprocess
from index.contract import JobControl, Manifest
from search_api.api.app import create_app
from search_api.keys import Access
from search_api.service.corpus_sync import Counts
from search_api.service.engine import SearchEngine
from search_api.settings import Limits

CLASSES = ("blue", "green", "red")
SHADES = 8


def colour(label: str, shade: int) -> tuple[int, int, int]:
    """The colour of picture number ``shade``, 0..7, of a class: purer for small numbers."""
    main, other = 240, 12 * shade
    return {
        "red": (main, other, 0),
        "green": (0, main, other),
        "blue": (other, 0, main),
    }[label]


def plain(rgb: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> RGB:
    """A picture of one colour, uint8 ``(height, width, 3)``; ``size`` is (width, height)."""
    return np.full((size[1], size[0], 3), rgb, dtype=np.uint8)


def png(rgb: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    """PNG bytes of a picture of one colour."""
    return encode_png(plain(rgb, size))


def unit(rgb: Sequence[float]) -> np.ndarray:
    """The fake encoder's embedding of a plain picture, float64 ``(3,)``."""
    vector = np.asarray(rgb, dtype=np.float64) + 1
    return vector / np.linalg.norm(vector)


def rebuild(
    engine: SearchEngine, control: JobControl = JobControl(), *, reembed: bool = False
) -> tuple[Manifest, Counts]:
    """Bring the store up to date with the engine's corpus and model."""
    return engine.builder.rebuild(engine.encoder, engine.corpus, control, reembed=reembed)


def compact(engine: SearchEngine, kind: str | None = None) -> Manifest:
    """Build a new generation from the catalogue alone."""
    return engine.builder.compact(engine.encoder, kind=kind)


class MeanColour:
    """An encoder whose embedding is the mean colour, its class the strongest channel."""

    classes = CLASSES
    dimension = 3
    input_size = 32
    preprocess = Preprocess()

    def __init__(self, digest: str = "sha256:mean-colour") -> None:
        self.digest = digest
        self.encoded = 0

    def fit(self, picture: RGB) -> RGB:
        return picture

    def encode(self, pictures: Sequence[RGB] | RGB, *, spare: bool = False) -> Encoding:
        self.encoded += len(pictures)
        mean = np.stack([p.reshape(-1, 3).mean(0) for p in pictures]) + 1  # (n, 3), r g b
        embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        share = mean[:, ::-1] / mean.sum(1, keepdims=True)  # b g r, as the classes are
        return Encoding(share.astype(np.float32), embeddings.astype(np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 plain pictures: 8 shades of each class, two of them in the test split."""
    root = tmp_path / "pictures"
    for label in CLASSES:
        for shade in range(SHADES):
            split = "test" if shade >= 6 else "train"
            path = root / split / label / f"{shade}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(colour(label, shade)))
    return root


@pytest.fixture
def encoder() -> MeanColour:
    return MeanColour()


@pytest.fixture
def engine(folder: Path, encoder: MeanColour, tmp_path: Path) -> Iterator[SearchEngine]:
    """An engine with the 24 pictures indexed."""
    engine = SearchEngine(encoder, FolderCorpus(folder), tmp_path / "var")
    rebuild(engine)
    yield engine
    engine.close()


@pytest.fixture
def client(engine: SearchEngine) -> Iterator[TestClient]:
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def access() -> Access:
    """What the live server allows: everything; a test module may require keys."""
    return Access()


@pytest.fixture
def live_server(engine: SearchEngine, access: Access) -> Iterator[str]:
    """The address of a running server over the 24 pictures."""
    app = create_app(engine, access=access)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def api(live_server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=live_server, timeout=10) as client:
        yield client


def source_of(label: str, shade: int) -> str:
    """The source of one of the 24 pictures."""
    return f"{'test' if shade >= 6 else 'train'}/{label}/{shade}.png"


def id_of(client: TestClient, label: str, shade: int) -> int:
    """The id of one of the 24 pictures."""
    points = client.get("/v1/images", params={"limit": 100}).json()["points"]
    source = source_of(label, shade)
    return next(p["id"] for p in points if p["payload"]["source"] == source)
