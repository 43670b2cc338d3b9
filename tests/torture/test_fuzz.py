"""Fuzzing of the decoders: whatever the bytes are, there is a picture or an error that says why."""

from __future__ import annotations

import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from embed.decoding.workers import decoders
from embed.pictures import REASONS, PictureError, PictureLimits, decode
from tests.embed import boxed
from tests.embed.decoding.headers.test_camera_raw import CR2, raw
from tests.embed.helpers import encoded, noise, rgb_tags, tiff, zeros_deflated
from tests.torture.conftest import MB, Counts
from tests.torture.test_pictures import good_pictures

LIMITS = PictureLimits(max_pixels=2_000_000, max_memory=256 * MB, max_seconds=10)
NUMBERS = [0, 1, 2, 255, 256, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1]
HEAD = 400
"""Most of what decides what a decoder does is among so many bytes."""


def seeds() -> list[bytes]:
    """Each format with features that make its decoder work harder, and some that are refused."""
    picture = Image.fromarray(noise(48, 64))
    grey = picture.convert("L")
    tags = rgb_tags(16, 16) | {322: (4, [16]), 323: (4, [16])}
    alpha = picture.convert("RGBA")
    alpha.putalpha(grey)
    return [
        *good_pictures().values(),
        tiff(tags, [zeros_deflated(768)]),
        encoded(picture, "TIFF", compression="jpeg"),
        encoded(grey.convert("1"), "TIFF", compression="group4"),
        encoded(grey.convert("F"), "TIFF"),
        *(encoded(alpha, form) for form in ("HEIF", "AVIF", "JPEG2000", "WEBP", "TIFF")),
        *(
            encoded(picture, form, save_all=True, append_images=[grey.convert("RGB")])
            for form in ("HEIF", "AVIF", "PNG")
        ),
        boxed.grid(64, 64, (64, 64), 4),
        boxed.siz(64, 64),
        b"P2 2 2 15\n1 2 3 4\n",
        b"Pf 2 1 -1.0\n" + struct.pack("<6f", *range(6)),
        CR2,
        raw("NIKON"),
        b"<?xml version='1.0'?><svg/>",
        b"%PDF-1.7",
    ]


def after(data: bytes, accidents: list[int], pictures: list[bytes]) -> bytes:
    """A picture after accidents, each of which follows from its number."""
    changed = bytearray(data)
    for accident in accidents:
        rng = random.Random(accident)
        end = max(1, len(changed))
        at = rng.randrange(min(end, HEAD) if rng.random() < 0.7 else end)
        size = rng.randint(1, 64)
        match rng.randrange(8):
            case 0 | 1 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 2 | 3:
                code = rng.choice(["<I", ">I", "<H", ">H"])
                number = rng.choice(NUMBERS) % (2**32 if code[1] == "I" else 2**16)
                changed[at : at + struct.calcsize(code)] = struct.pack(code, number)
            case 4:
                del changed[rng.randrange(end) :]
            case 5:
                del changed[at : at + size]
            case 6:
                changed[at:at] = changed[at : at + size] * rng.randint(1, 8)
            case _:
                other = rng.choice(pictures)
                changed[at:] = other[min(at, len(other)) :]
    return bytes(changed)


def memory(pid: int) -> int:
    """The most that a process has used, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    return 1024 * int(text.partition("VmHWM:")[2].split()[0])


def test_fuzzed_pictures(
    counts: Counts, note: Callable[[str, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes: Counter[str] = Counter()
    slowest = most = 0.0
    good = encoded(noise(48, 64), "WEBP", lossless=True)
    pictures = seeds()
    capfd.readouterr()

    @settings(
        max_examples=counts.fuzzed,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(pictures), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4))
    def check(picture_before: bytes, accidents: list[int]) -> None:
        nonlocal slowest, most
        data = after(picture_before, accidents, pictures)
        started = time.perf_counter()
        try:
            picture = decode(data, LIMITS)
            outcomes["picture"] += 1
            assert picture.ndim == 3 and picture.shape[2] == 3
            assert 0 < picture.shape[0] * picture.shape[1] <= LIMITS.max_pixels
        except PictureError as error:
            outcomes[error.reason] += 1
            assert error.reason in REASONS
            assert str(error) and "\n" not in str(error)
        slowest = max(slowest, time.perf_counter() - started)
        most = max([most, *map(memory, decoders.pids)])

    before = memory(os.getpid())
    check()
    said = capfd.readouterr()
    assert (decode(good) == noise(48, 64)).all()  # a worker answers as before
    summary = ", ".join(f"{name} {n:,}" for name, n in outcomes.most_common())
    growth = memory(os.getpid()) - before
    note(
        "fuzzed pictures",
        f"{sum(outcomes.values()):,}: {summary}; slowest {slowest:.2f} s; a worker at most"
        f" {most / MB:.0f} MB, this process {growth / MB:+.0f} MB",
    )
    assert said == ("", "")
    assert outcomes["picture"] and outcomes["truncated"] and outcomes["not-a-picture"]
    assert slowest < LIMITS.max_seconds + 5
    assert most < LIMITS.max_memory + 100 * MB
    assert growth < 200 * MB
