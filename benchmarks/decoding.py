"""What it costs to decode untrusted pictures in worker processes, and to check headers before.

    python -m benchmarks.decoding --repeats 30

Each picture is decoded in this process and as `embed.pictures` does it, in turn, for the shorter
side of 224 pixels that the photo encoder needs: elapsed time, and CPU time of all processes
together, which other programs on the machine disturb less. Ratios are those of the medians of one
run. Small PNGs and JPEGs stay in this process: theirs is the cost of reading the header first. Then
the same with four threads, as a folder of pictures is indexed, in pictures per second. The picture
is a smooth one with some noise, so that its files have the size of photographs'.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from embed.decoding.header import read_header
from embed.decoding.pixels import decode_image, open_image
from embed.decoding.workers import decoders, turn
from embed.pictures import Opened, PictureLimits, decode

LIMITS = PictureLimits(max_bytes=100 * 2**20)
AT_LEAST = 224
THREADS = 4


def adobe_rgb() -> bytes:
    """EXIF which says that the colours are those of Adobe RGB, and need to be converted."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    return exif.tobytes()


SMALL, PHOTO, LARGE = (32, 32), (500, 375), (4000, 3000)
KINDS: list[tuple[str, tuple[int, int], str, dict[str, object]]] = [
    ("PNG", SMALL, "PNG", {}),
    ("JPEG", SMALL, "JPEG", {}),
    ("PNG", PHOTO, "PNG", {}),
    ("JPEG", PHOTO, "JPEG", {}),
    ("JPEG, Adobe RGB", PHOTO, "JPEG", {"exif": adobe_rgb()}),
    ("WebP", SMALL, "WEBP", {}),
    ("WebP", PHOTO, "WEBP", {}),
    ("GIF", PHOTO, "GIF", {}),
    ("BMP", PHOTO, "BMP", {}),
    ("TIFF, LZW", PHOTO, "TIFF", {"compression": "tiff_lzw"}),
    ("JPEG", LARGE, "JPEG", {}),
    ("JPEG, Adobe RGB", LARGE, "JPEG", {"exif": adobe_rgb()}),
    ("JPEG, progressive", LARGE, "JPEG", {"progressive": True}),
    ("PNG", LARGE, "PNG", {"compress_level": 1}),
    ("WebP", LARGE, "WEBP", {"method": 0}),
    ("TIFF, Deflate", LARGE, "TIFF", {"compression": "tiff_adobe_deflate"}),
]


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 1, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def here(data: bytes) -> None:
    header = read_header(data)
    assert header is not None
    decode_image(open_image(data, header.form, LIMITS), AT_LEAST)


def as_served(data: bytes) -> None:
    with turn():
        decode(data, LIMITS, AT_LEAST)


def cpu_seconds() -> float:
    """Used so far by this process and its workers."""
    used = time.process_time()
    for pid in decoders.pids:
        used += int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9
    return used


def milliseconds(run: Callable[[bytes], None], data: bytes, inner: int) -> tuple[float, float]:
    """Elapsed, and of the CPUs."""
    started, used = time.perf_counter(), cpu_seconds()
    for _ in range(inner):
        run(data)
    elapsed, used = time.perf_counter() - started, cpu_seconds() - used
    return 1000 * elapsed / inner, 1000 * used / inner


def medians(pairs: list[tuple[float, float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*pairs, strict=True)]


def per_second(run: Callable[[bytes], None], data: bytes, n: int) -> float:
    with ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(run, [data] * n))
        return n / (time.perf_counter() - started)


def memory(pid: int) -> int:
    """Proportional set size in bytes: what is shared with other processes counts in part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line[:4] == "Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    print(
        f"Python {platform.python_version()}, Pillow {PIL.__version__}, NumPy {np.__version__},"
        f" {os.cpu_count()} cores, {THREADS} threads for pictures per second, n = {repeats}"
    )
    webp = io.BytesIO()
    picture(*SMALL).save(webp, "WEBP")
    started = time.perf_counter()
    decode(webp.getvalue())
    print(f"first picture, with the start of a process: {time.perf_counter() - started:.2f} s")
    print(
        "picture | pixels | kB | where | ms: here, served, ratio | CPU ms: here, served, ratio"
        " | 4 threads, pictures/s: here, served"
    )
    for name, (width, height), form, options in KINDS:
        buffer = io.BytesIO()
        picture(width, height).save(buffer, form, **options)  # type: ignore[arg-type]
        data = buffer.getvalue()
        inner = {SMALL: 100, PHOTO: 4, LARGE: 1}[width, height]
        for run in (here, as_served):
            run(data)
        n = max(3, repeats // 5) if (width, height) == LARGE else repeats
        times: dict[Callable[[bytes], None], list[tuple[float, float]]] = {here: [], as_served: []}
        for _ in range(n):
            for run, values in times.items():
                values.append(milliseconds(run, data, inner))
        text = " | ".join(
            f"{own:.3f}, {served:.3f}, {served / own:.2f}"
            for own, served in zip(*map(medians, times.values()), strict=True)
        )
        rates = [per_second(run, data, n * min(inner, 20)) for run in times]
        where = "here" if Opened(data, LIMITS).in_process else "worker"
        print(
            f"{name} | {width}x{height} | {len(data) / 1000:.1f} | {where} | {text} |"
            f" {rates[0]:.0f}, {rates[1]:.0f}"
        )
    sizes = [memory(pid) / 2**20 for pid in decoders.pids]
    print("memory of each process afterwards, MB:", ", ".join(f"{size:.0f}" for size in sizes))


if __name__ == "__main__":
    main()
