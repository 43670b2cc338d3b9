"""Damaged pictures, bombs, and large pictures all at once."""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from PIL import Image

from embed.pictures import FORMATS
from embed.scenes import SCENES, render
from tests.torture.bombs import bombs, png
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


@pytest.mark.parametrize("name", list(bombs()))
def test_bombs(service: Service, counts: Counts, note: Note, red: bytes, name: str) -> None:
    data = bombs()[name]
    service.healthy(red)
    service.reset_peak()
    before = service.memory()
    started = time.perf_counter()
    with service.client() as client:
        response = post(client, data)
    seconds = time.perf_counter() - started
    growth = service.memory("VmHWM") - before
    note(
        f"bomb, {name}",
        f"{len(data):,} bytes: {response.status_code} after {1000 * seconds:.0f} ms,"
        f" memory at most {growth / MB:+.1f} MB",
    )
    assert 400 <= response.status_code < 500
    assert not counts.timed or seconds < 1
    assert growth < 200 * MB
    service.healthy(red)


def test_many_large_pictures_at_once(
    service: Service, counts: Counts, note: Note, red: bytes
) -> None:
    """Each is within the limits; together they must not fill the memory."""
    data = png(7000, 7000, bytes(7000 * (3 * 7000 + 1)))
    service.reset_peak()
    before = service.memory()
    with service.client(timeout=300) as client, ThreadPoolExecutor(counts.large) as pool:
        statuses = Counter(
            r.status_code for r in pool.map(lambda _: post(client, data), range(counts.large))
        )
    growth = service.memory("VmHWM") - before
    note(
        f"{counts.large} pictures of 49 Mpixel at once",
        f"{dict(statuses)}, memory at most {growth / MB:+.1f} MB",
    )
    assert set(statuses) <= {200, 429, 503}
    assert growth < 1200 * MB
    service.healthy(red)
