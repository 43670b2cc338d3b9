"""Photographs of 12 megapixels: from a folder to an index, and from an upload to an answer.

    python -m benchmarks.ingest
    python -m benchmarks.ingest --folder ~/Pictures/holiday --pictures 100

Ours is `lookalike index build` with the photo encoder as it comes, a process of its own; the rate
is that of the pictures that the second of two folders has more, so that the program's start does
not count. The plain way (`benchmarks.peers.photographs`) decodes files whole with Pillow, scales
them with torchvision and embeds them with timm, eagerly in float32, in batches of 16: in one
process, and with a DataLoader of two worker processes. Rounds alternate; medians.

By stage, one thread, CPU time per picture: ours is what a build does to each file; the network runs
in batches of 16 on all threads. Cosines are between our embeddings and those of the plain way, as
served and in float32.

Without ``--folder`` the pictures are rendered: scenes, textures of a power spectrum as photographs
have it, and a sensor's noise; JPEGs of quality 93, colours at half the resolution, with EXIF.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import photographs as peer
from benchmarks.serving import PORT, server
from benchmarks.suite.result import Headline, Result, Work, table
from embed import scenes
from embed.bundle import Bundle
from embed.corpus import FolderCorpus
from embed.decoding.pixels import decode_with_facts, open_image
from embed.encoder import Encoder
from embed.imported.photo_encoder import photo_bundle
from embed.pictures import Opened, PictureLimits
from embed.runtime.protocol import available_cores
from search_api.service.corpus_sync import batches, item_reader

SIZE = (4000, 3000)
FEW = 8
"""Pictures of the smaller folder."""
LIMITS = PictureLimits()
Figures = dict[str, float]


def render(seed: int) -> Image.Image:
    """One picture, as described above."""
    width, height = SIZE
    rng = np.random.default_rng(seed)
    names = tuple(scenes.SCENES)
    small = Image.fromarray(scenes.render(names[seed % len(names)], seed))
    pixels = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.float32)
    side = 1024
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    texture = np.fft.irfft2(spectrum / frequency ** rng.uniform(0.9, 1.6), s=(side, side))
    texture = np.block([[texture, texture[:, ::-1]], [texture[::-1], texture[::-1, ::-1]]])
    texture = np.tile(texture / texture.std(), (2, 2))[:height, :width].astype(np.float32)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8), np.uint8))
    where = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)) / np.float32(255)
    noise = rng.standard_normal((height, width), np.float32)
    noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / np.float32(3**0.5)
    noise *= 2.4 * np.sqrt(1 + pixels.mean(2) / 64)
    pixels += (texture * rng.uniform(6, 16) * (0.3 + 0.7 * where) + noise)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def rendered(folder: Path, count: int) -> list[Path]:
    """So many rendered files in ``folder``; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Example", "Camera 12", 1
    taken = exif.get_ifd(0x8769)
    taken[0x9003], taken[0x927C] = "2024:05:06 07:08:09", bytes(20_000)
    paths = [folder / f"{seed:04d}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        if not path.exists():
            made = path.with_suffix(".part")
            render(seed).save(made, "JPEG", quality=93, subsampling=2, exif=exif.tobytes())
            made.replace(path)
    return paths


def build(folder: Path, bundle: Path) -> tuple[float, float]:
    """Seconds, elapsed and of the CPUs, of `lookalike index build` in an empty store."""
    with tempfile.TemporaryDirectory() as var:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "search_api.cli", "index", "build"]
        command += ["--data", str(folder), "--var", var, "--bundle", str(bundle)]
        subprocess.run(command, check=True, capture_output=True)
        elapsed, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime


def timed(steps: dict[str, Callable[[Any], Any]], paths: Sequence[Path]) -> Figures:
    """Median milliseconds of each step, which is given what the one before returned."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for path in paths:
        value: Any = path
        for name, step in steps.items():
            started = time.perf_counter()
            value = step(value)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(found) for name, found in times.items()}


def stages(encoder: Encoder, plain: peer.Plain, paths: Sequence[Path]) -> tuple[Figures, Figures]:
    """Milliseconds of one thread by stage, ours and the plain way's; the network of all threads."""

    def hashed(data: bytes) -> bytes:
        hashlib.sha256(data).digest()
        return data

    def header(data: bytes) -> bytes:
        Opened(data, LIMITS)
        return data

    def decoded(data: bytes) -> Any:
        image = open_image(data, "JPEG", LIMITS)
        return decode_with_facts(image, encoder.preprocess, LIMITS.max_pixels)[0]

    def served(data: bytes) -> Any:
        return Opened(data, LIMITS).decode_with_facts(encoder.preprocess)

    ours = timed({"read": Path.read_bytes, "hash": hashed, "header": header,
                  "decode, scale, facts": decoded}, paths)  # fmt: skip
    served(paths[0].read_bytes())
    whole = timed({"read": Path.read_bytes, "all": served}, paths)["all"]
    ours["worker process"] = max(0.0, whole - ours["header"] - ours["decode, scale, facts"])
    theirs = timed({"read": Path.read_bytes, "decode": peer.decoded, "scale": plain.resize,
                    "to a tensor": plain.to_input}, paths)  # fmt: skip
    batch = np.zeros((peer.BATCH, peer.SIDE, peer.SIDE, 3), np.uint8)
    tensor = plain.to_input(Image.fromarray(batch[0])).repeat(peer.BATCH, 1, 1, 1)
    runs: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(5):
        for name, run in (
            ("ours", lambda: encoder.raw(batch)),
            ("theirs", lambda: plain.features(tensor)),
        ):
            started = time.perf_counter()
            run()
            runs[name].append(1000 * (time.perf_counter() - started) / peer.BATCH)
    ours["network"], theirs["network"] = (statistics.median(found) for found in runs.values())
    return ours, theirs


def embeddings(encoder: Encoder, folder: Path) -> NDArray[np.float32]:
    """Of a folder, by path, as a build makes them."""
    corpus = FolderCorpus(folder)
    read = batches(corpus.items, item_reader(corpus, encoder))
    found = [[one.picture for _, one in batch if not isinstance(one, str)] for batch in read]
    return np.concatenate([encoder.encode(pictures).embeddings for pictures in found])


def upload(path: Path) -> None:
    """Search by a file."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/search",
        head + path.read_bytes() + b"\r\n--b--\r\n",
        {"Content-Type": "multipart/form-data; boundary=b"},
    )
    urllib.request.urlopen(request, timeout=60).read()


def answers(command: list[str], paths: Sequence[Path]) -> float:
    """Median milliseconds from an upload to the answer, one client."""
    with server(command):
        for path in paths[:3]:
            upload(path)
        return timed({"answer": upload}, paths)["answer"]


def measure(
    paths: Sequence[Path], bundle: Path, rounds: int, say: Callable[[str], None]
) -> tuple[str, Figures, list[Headline]]:
    """Everything, as Markdown, as ratios and as headlines."""
    threads = available_cores()
    model, plain = Bundle.load(bundle), peer.Plain(threads)
    encoder = Encoder(model, threads=threads)
    with tempfile.TemporaryDirectory() as name:
        all_, few = Path(name) / "all", Path(name) / "few"
        for folder, taken in ((all_, paths), (few, paths[:FEW])):
            folder.mkdir()
            for path in taken:
                shutil.copyfile(path, folder / path.name)
        links = sorted(all_.iterdir())
        say("cosines")
        theirs = peer.embed(plain, links)
        exact = Encoder(model, precision="float32", threads=threads)
        cosines = {
            f"{what} ({one.precision})": (embeddings(one, all_) * theirs).sum(axis=1)
            for what, one in (("as served", encoder), ("exactly", exact))
        }
        times: dict[str, list[float]] = {
            "ours": [],
            "cpu": [],
            "whole": [],
            "loop": [],
            "loader": [],
        }
        for turn in range(rounds):
            say(f"round {turn + 1} of {rounds}")
            small, whole = build(few, bundle), build(all_, bundle)
            more = len(links) - FEW
            times["whole"].append(whole[0])
            times["ours"].append((whole[0] - small[0]) / more)
            times["cpu"].append((whole[1] - small[1]) / more)
            for kind, workers in (("loop", 0), ("loader", threads)):
                started = time.perf_counter()
                peer.embed(plain, links, workers)
                times[kind].append((time.perf_counter() - started) / len(links))
        say("stages")
        own, other = stages(encoder, plain, links)
        say("uploads")
        stored, var = Path(name) / "plain.npy", Path(name) / "var"
        np.save(stored, theirs)
        lookalike = [sys.executable, "-m", "search_api.cli"]
        place = ["--data", str(all_), "--var", str(var), "--bundle", str(bundle)]
        subprocess.run([*lookalike, "index", "build", *place], check=True, capture_output=True)
        ours_ms = answers([*lookalike, "serve", *place, "--port", str(PORT)], links)
        command = [sys.executable, "-m", "benchmarks.peers.photographs", str(stored), str(PORT)]
        plain_ms = answers(command, links)
    middle = {kind: statistics.median(found) for kind, found in times.items()}
    rates = {kind: 1 / middle[kind] for kind in ("ours", "loop", "loader")}
    ratios = {
        "ingest: pictures a second against the plain loop": rates["ours"] / rates["loop"],
        "ingest: pictures a second against a DataLoader": rates["ours"] / rates["loader"],
        "ingest: an upload's answer against the plain service": plain_ms / ours_ms,
    }
    size = statistics.mean(path.stat().st_size for path in paths) / 1e6
    rows = [
        ("`lookalike index build`", rates["ours"], 1.0),
        (
            "the plain way, one process",
            rates["loop"],
            ratios["ingest: pictures a second against the plain loop"],
        ),
        (
            f"the plain way, {threads} worker processes",
            rates["loader"],
            ratios["ingest: pictures a second against a DataLoader"],
        ),
    ]
    text = "\n\n".join(
        [
            f"{len(paths)} files of {size:.1f} MB on average. A whole build takes"
            f" {middle['whole']:.1f} s with the start of the program, and"
            f" {1000 * middle['cpu']:.0f} ms of CPU for each picture.",
            table(
                ("folder to index", "pictures/s", "ours is faster by"),
                [(what, f"{rate:.1f}", f"{ratio:.1f}") for what, rate, ratio in rows],
            ),
            table(
                ("stage, ms a picture", "ours", "plain"),
                [
                    (stage, *(f"{one[stage]:.1f}" if stage in one else "" for one in (own, other)))
                    for stage in dict.fromkeys([*own, *other])
                ],
            ),
            f"An upload is answered in {ours_ms:.0f} ms, by the plain service in {plain_ms:.0f}"
            f" (one client, medians): {plain_ms / ours_ms:.1f} times faster.",
            table(
                ("cosine to the plain embedding", "smallest", "median"),
                [(n, f"{c.min():.4f}", f"{np.median(c):.4f}") for n, c in cosines.items()],
            ),
        ]
    )
    headline = Headline(
        "photographs of 12 megapixels from a folder to an index",
        f"{rates['ours']:.0f} pictures/s",
        f"Pillow, torchvision and timm {rates['loop']:.0f}",
        rates["ours"] / rates["loop"],
    )
    return text, ratios, [headline]


def encoder_bundle(cache: Path) -> Path:
    """The photo encoder as it comes."""
    found = photo_bundle(cache)
    if found is None:
        raise SystemExit("the photo encoder's weights are not installed")
    return found


def part(work: Work) -> Result:
    """For `make bench`."""
    count, rounds = (FEW + 2, 1) if work.short else (48, 3)
    work.say("rendering photographs")
    paths = rendered(work.folder / "photographs-12mp", count)
    cache = work.folder / "photo-encoder"
    cache.mkdir(mode=0o700, exist_ok=True)
    text, ratios, headlines = measure(paths, encoder_bundle(cache), rounds, work.say)
    return Result(
        text,
        n=f"{count} photographs, medians of {rounds} rounds",
        threads=str(available_cores()),
        models=("photo encoder",),
        packages=("pillow", "torch", "torchvision", "timm", "openvino"),
        headlines=headlines,
        ratios=ratios,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="of JPEGs; rendered ones if not given")
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for what is rendered, to use it again")
    args = parser.parse_args()
    if args.pictures <= FEW:
        parser.error(f"--pictures is {args.pictures}; expected more than {FEW}")
    scratch = Path(tempfile.mkdtemp())
    try:
        if args.folder is None:
            paths = rendered(args.keep or scratch / "rendered", args.pictures)
        else:
            found = (p for p in args.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
            paths = sorted(found)[: args.pictures]
        text, _, _ = measure(
            paths, encoder_bundle(scratch), args.rounds, lambda what: print(what, file=sys.stderr)
        )
        print(text)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
