"""Damaged pictures, bombs, and large pictures all at once."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from embed.pictures import FORMATS
from embed.scenes import SCENES, render
from tests.embed.helpers import encoded
from tests.torture.bombs import bombs, costly, heavy, png
from tests.torture.conftest import MB, Counts, Service

Note = Callable[[str, str], None]


def good_pictures() -> dict[str, bytes]:
    """Each format, plain and with features that make its decoder work harder."""
    picture = Image.fromarray(render(next(iter(SCENES)), 1)).resize((96, 80))
    frames = [picture.rotate(angle) for angle in (90, 180)]
    options: dict[str, dict] = {
        "JPEG": {"quality": 80},
        "JPEG progressive": {"progressive": True},
        "PNG": {},
        "WEBP": {"quality": 60},
        "WEBP lossless": {"lossless": True},
        "GIF animated": {"save_all": True, "append_images": frames},
        "BMP": {},
        "TIFF": {},
        "TIFF packed": {"compression": "tiff_lzw"},
        "TIFF deflated": {"compression": "tiff_adobe_deflate"},
        "HEIF": {},
        "HEIF in tiles": {"tile_size": 64},
        "AVIF": {"speed": 10},
        "JPEG2000": {},
        "JPEG2000 in tiles": {"tile_size": (32, 32), "no_jp2": True},
        "ICO": {"sizes": [(32, 32), (96, 80)]},
        "ICO of bitmaps": {"bitmap_format": "bmp"},
        "PPM": {},
        "DIB": {},
    }
    assert {name.split()[0] for name in options} == set(FORMATS)
    found = {}
    for name, how in options.items():
        buffer = io.BytesIO()
        picture.save(buffer, name.split()[0], **how)
        found[name] = buffer.getvalue()
    for mode in ("P", "1", "LA", "RGBA", "I;16"):
        buffer = io.BytesIO()
        source = picture.convert("L") if mode == "I;16" else picture
        source.convert(mode).save(buffer, "PNG")
        found[f"PNG {mode}"] = buffer.getvalue()
    return found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """``data`` after one to four accidents."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(64) % len(changed)
        match rng.randrange(6):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + rng.randint(1, 8)] = rng.randbytes(rng.randint(1, 8))
            case 2:
                del changed[max(1, at) :]
            case 3:
                del changed[at : at + rng.randint(1, 64)]
                changed = changed or bytearray(b"\0")
            case 4:
                changed[at:at] = changed[at : at + rng.randint(1, 512)]
            case _:
                changed[at : at + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"]
                )
    return bytes(changed)


def test_mutated_pictures(service: Service, counts: Counts, note: Note, red: bytes) -> None:
    rng = random.Random(0)
    good = list(good_pictures().values())

    def wave(n: int) -> Counter[int]:
        pictures = [mutated(rng.choice(good), rng) for _ in range(n)]
        with service.client() as client, ThreadPoolExecutor(4) as pool:
            statuses = pool.map(lambda data: post(client, data).status_code, pictures)
            return Counter(statuses)

    wave(max(40, counts.mutated // 10))  # the allocator has found its size after this
    before = service.memory()
    statuses = wave(counts.mutated)
    growth = service.memory() - before
    summary = ", ".join(f"{status}: {n:,}" for status, n in sorted(statuses.items()))
    note("mutated pictures", f"{counts.mutated:,}: {summary}; memory {growth / MB:+.1f} MB")
    assert set(statuses) <= {200, 413, 415, 422}
    assert growth < 100 * MB
    service.healthy(red)


def post(client: httpx2.Client, data: bytes) -> httpx2.Response:
    files = {"image": ("q", data)}
    try:
        return client.post("/v1/search", files=files)
    except (httpx2.ReadError, httpx2.RemoteProtocolError):
        # A kept-alive connection may close just as it is reused; a crash fails twice.
        return client.post("/v1/search", files=files)


def sent(
    service: Service, note: Note, what: str, data: bytes
) -> tuple[httpx2.Response, float, int]:
    """The answer to a search by ``data``, its seconds, and the bytes that all processes grew by."""
    service.reset_peak()
    before = service.memory_of_all()
    started = time.perf_counter()
    with service.client() as client:
        response = post(client, data)
    seconds = time.perf_counter() - started
    growth = service.memory_of_all("VmHWM") - before
    note(
        what,
        f"{len(data):,} bytes: {response.status_code} after {1000 * seconds:.0f} ms,"
        f" memory at most {growth / MB:+.1f} MB",
    )
    return response, seconds, growth


@pytest.mark.parametrize("name", [*bombs(), *costly()])
def test_bombs(service: Service, counts: Counts, note: Note, red: bytes, name: str) -> None:
    service.healthy(red)
    response, seconds, growth = sent(service, note, f"bomb, {name}", (bombs() | costly())[name])
    assert 400 <= response.status_code < 500
    assert not counts.timed or seconds < 1
    assert growth < 200 * MB
    service.healthy(red)


@pytest.mark.parametrize("name", list(heavy()))
def test_heavy_pictures(service: Service, note: Note, red: bytes, name: str) -> None:
    """Within the limits: they are served, at a cost that is bounded."""
    response, _, growth = sent(service, note, f"heavy, {name}", heavy()[name])
    assert response.status_code == 200, response.text
    assert growth < 600 * MB
    service.healthy(red)


def at_once(service: Service, what: Callable[[httpx2.Client], int], n: int) -> Counter[int]:
    """The statuses of ``n`` requests that are made at the same time."""
    with service.client(timeout=300) as client, ThreadPoolExecutor(n) as pool:
        return Counter(pool.map(lambda _: what(client), range(n)))


@pytest.mark.parametrize("name", list(costly()))
def test_costly_pictures_at_once(
    service: Service, counts: Counts, note: Note, red: bytes, name: str
) -> None:
    """Five at once of what took 760 MB each."""
    data = costly()[name]
    service.reset_peak()
    before = service.memory_of_all()
    statuses = at_once(service, lambda client: post(client, data).status_code, 5)
    growth = service.memory_of_all("VmHWM") - before
    note(f"5 at once, {name}", f"{dict(statuses)}, memory at most {growth / MB:+.1f} MB")
    assert set(statuses) == {413}
    assert growth < 300 * MB  # the requests themselves are up to 20 MB each
    service.healthy(red)


def large_pictures() -> dict[str, bytes]:
    """49 million pixels each."""
    return {
        "PNG": png(7000, 7000, bytes(7000 * (3 * 7000 + 1))),
        # Its shorter side is too short for it to be averaged down.
        "narrow PNG": png(200_000, 240, bytes(240 * (3 * 200_000 + 1))),
        "TIFF": encoded(Image.new("RGB", (7000, 7000)), "TIFF", compression="tiff_lzw"),
    }


@pytest.mark.parametrize("name", ["PNG", "narrow PNG", "TIFF"])
def test_many_large_pictures_at_once(
    service: Service, counts: Counts, note: Note, red: bytes, name: str
) -> None:
    """Each is within the limits; together they must not fill the memory."""
    data = large_pictures()[name]
    service.reset_peak()
    before = service.memory_of_all()
    statuses = at_once(service, lambda client: post(client, data).status_code, counts.large)
    growth = service.memory_of_all("VmHWM") - before
    note(
        f"{counts.large} {name} pictures of 49 Mpixel at once",
        f"{dict(statuses)}, memory at most {growth / MB:+.1f} MB",
    )
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200]
    assert growth < 1500 * MB
    service.healthy(red)


def test_large_pictures_are_added_and_shown_at_once(
    service: Service, counts: Counts, note: Note, red: bytes
) -> None:
    data = large_pictures()["PNG"]
    ids: list[int] = []

    def add(client: httpx2.Client) -> int:
        response = client.post("/v1/images", files={"images": ("q.png", data)})
        ids.extend(added["id"] for added in response.json().get("results", []))
        return response.status_code

    def show(client: httpx2.Client, query: str) -> int:
        response = client.get(f"/v1/images/{ids[0]}/file{query}")
        if response.status_code == 200:
            shown = Image.open(io.BytesIO(response.content))
            assert shown.size == ((7000, 7000) if not query else (4096, 4096))
        return response.status_code

    for name, what in (
        ("added", add),
        ("shown in full", lambda client: show(client, "")),
        ("shown at 4096", lambda client: show(client, "?size=4096")),
    ):
        service.reset_peak()
        before = service.memory_of_all()
        statuses = at_once(service, what, counts.large)
        growth = service.memory_of_all("VmHWM") - before
        note(
            f"{counts.large} pictures of 49 Mpixel {name} at once",
            f"{dict(statuses)}, memory at most {growth / MB:+.1f} MB",
        )
        assert set(statuses) <= {200, 201, 429, 503}
        assert statuses[200] + statuses[201]
        assert growth < 2000 * MB  # two at a time, each in a worker and then in the server
    with service.client() as client:
        for image_id in ids:
            assert client.delete(f"/v1/images/{image_id}").status_code == 200
    service.healthy(red)


def test_a_telephone_s_largest_picture_is_added_and_shown(
    service: Service, note: Note, red: bytes
) -> None:
    data = heavy()["JPEG, 200 Mpixel"]
    service.reset_peak()
    before = service.memory_of_all()
    with service.client(timeout=300) as client:
        added = client.post("/v1/images", files={"images": ("q.jpg", data)})
        image_id = added.json()["results"][0]["id"]
        for query, size in (("", (8160, 6120)), ("?size=4096", (4096, 3072))):
            shown = client.get(f"/v1/images/{image_id}/file{query}")
            assert Image.open(io.BytesIO(shown.content)).size == size
        assert client.delete(f"/v1/images/{image_id}").status_code == 200
    growth = service.memory_of_all("VmHWM") - before
    note("JPEG of 200 Mpixel added and shown", f"memory at most {growth / MB:+.1f} MB")
    assert growth < 1000 * MB  # as of any 50 million pixels: in a worker, and in the server
    service.healthy(red)


def test_a_killed_decoder_costs_one_request(service: Service, note: Note, red: bytes) -> None:
    data = large_pictures()["TIFF"]
    with service.client() as client, ThreadPoolExecutor(1) as pool:
        assert post(client, data).status_code == 200
        before = set(service.workers())
        answer = pool.submit(post, client, data)
        busy = until_one_is_busy(before)
        os.kill(busy, signal.SIGKILL)
        response = answer.result()
        assert response.status_code == 413
        assert response.json()["type"] == "urn:lookalike:problem:too-costly"
        assert post(client, data).status_code == 200
    assert busy not in service.workers()  # not even as a zombie
    note("kill -9 of a decoder at work", "413, the next picture 200")
    service.healthy(red)


def until_one_is_busy(pids: set[int]) -> int:
    """The process that decodes a large picture, as soon as it does."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for pid in pids:
            if int(Path(f"/proc/{pid}/statm").read_text().split()[1]) > 100 * 256:  # 100 MB
                return pid
    raise AssertionError("no process decodes")
