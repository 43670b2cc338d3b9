"""What it costs to decode untrusted pictures in worker processes, and to check headers before.

    python -m benchmarks.decoding --repeats 30

Each picture is decoded in this process and as `embed.pictures` does it, in turn, and scaled to the
224 x 224 pixels that the photo encoder takes: elapsed time, and CPU time of all processes together,
which other programs on the machine disturb less. Ratios are those of the medians of one run. Small
PNGs and JPEGs stay in this process: theirs is the cost of reading the header first. Then the same
with four threads, as a folder of pictures is indexed, in pictures per second. The picture is a
smooth one with some noise, so that its files have the size of photographs'.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from benchmarks.suite.result import Result, Work, table
from embed.decoding.header import read_header
from embed.decoding.pixels import decode_image, open_image
from embed.decoding.workers import decoders, turn
from embed.pictures import Opened, PictureLimits, decode
from embed.preprocess import Preprocess

LIMITS = PictureLimits(max_bytes=100 * 2**20)
AT_LEAST = Preprocess(224, resize="squeeze", interpolation="bicubic")
"""As the photo encoder has it."""
THREADS = 4


def adobe_rgb() -> bytes:
    """EXIF which says that the colours are those of Adobe RGB, and need to be converted."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    return exif.tobytes()


SMALL, PHOTO, LARGE = (32, 32), (500, 375), (4000, 3000)
Kind = tuple[str, tuple[int, int], str, dict[str, object]]
KINDS: list[Kind] = [
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


@dataclass(frozen=True)
class Row:
    """One kind of picture; ``own`` and ``served`` are milliseconds, elapsed and of the CPUs."""

    name: str
    pixels: str
    size: int
    where: str
    own: list[float]
    served: list[float]
    own_rate: float
    served_rate: float


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


def measure(
    repeats: int, kinds: Sequence[Kind] = KINDS, say: Callable[[str], object] = print
) -> list[Row]:
    """Each kind of picture in turn."""
    rows = []
    for name, (width, height), form, options in kinds:
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
        own, served = map(medians, times.values())
        rates = [per_second(run, data, n * min(inner, 20)) for run in times]
        where = "server" if Opened(data, LIMITS).in_process else "worker"
        rows.append(
            Row(name, f"{width}x{height}", len(data), where, own, served, rates[0], rates[1])
        )
        say(f"{name} {width}x{height}: {own[0]:.2f}, {served[0]:.2f} ms")
    return rows


def as_table(rows: Sequence[Row]) -> str:
    """Markdown."""
    return table(
        (
            *("picture", "pixels", "kB", "decoded in", "ms: here, served, ratio"),
            *("CPU ms: here, served, ratio", f"pictures/s, {THREADS} threads: here, served"),
        ),
        (
            (
                row.name,
                row.pixels,
                f"{row.size / 1000:,.1f}",
                row.where,
                _pair(row.own[0], row.served[0]),
                _pair(row.own[1], row.served[1]),
                f"{row.own_rate:,.0f}, {row.served_rate:,.0f}",
            )
            for row in rows
        ),
    )


def _pair(own: float, served: float) -> str:
    return f"{own:.3g}, {served:.3g}, {served / own:.2f}"


def first_picture() -> float:
    """Seconds until the first picture that needs a worker process is decoded."""
    webp = io.BytesIO()
    picture(*SMALL).save(webp, "WEBP")
    started = time.perf_counter()
    decode(webp.getvalue())
    return time.perf_counter() - started


def afterwards(first: float) -> str:
    """A sentence on the worker processes."""
    sizes = [memory(pid) / 2**20 for pid in decoders.pids]
    return (
        f"The first picture that needs a worker process waits {first:.2f} s for its start;"
        f" afterwards they hold {', '.join(f'{size:.0f}' for size in sizes)} MB."
    )


def part(work: Work) -> Result:
    """For `make bench`."""
    repeats = 1 if work.short else 15
    first = first_picture()
    rows = measure(repeats, KINDS[:6] if work.short else KINDS, work.say)
    return Result(
        f"{as_table(rows)}\n\n{afterwards(first)}",
        n=f"medians of {repeats}, of {max(3, repeats // 5)} at 4000x3000",
        threads="1, and as in the last column",
        models=(),
        packages=("pillow", "numpy"),
    )


def ratios(work: Work) -> dict[str, float]:
    """For `make bench-check`: CPU time of plain Pillow, as a multiple of ours."""
    first_picture()
    chosen = [kind for kind in KINDS if kind[1] == PHOTO or (kind[1] == SMALL and kind[2] == "PNG")]
    rows = measure(1 if work.short else 9, chosen, work.say)
    return {
        f"decoding: {row.name} {row.pixels} against plain Pillow, CPU": row.own[1] / row.served[1]
        for row in rows
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    print(
        f"Python {platform.python_version()}, Pillow {PIL.__version__}, NumPy {np.__version__},"
        f" {os.cpu_count()} cores, {THREADS} threads for pictures per second, n = {repeats}"
    )
    first = first_picture()
    print(f"{as_table(measure(repeats))}\n\n{afterwards(first)}")


if __name__ == "__main__":
    main()
