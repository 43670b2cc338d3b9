"""Vectors for the benchmarks of large indexes, made once and kept in a folder.

    python -m benchmarks.vectors real --folder FOLDER --data ../shared
    python -m benchmarks.vectors photos --folder FOLDER --data ../shared --count 300000
    python -m benchmarks.vectors synthetic --folder FOLDER --count 10000000

``real``: embeddings, by the bundle that ships, of different pictures made from CIFAR-10's 60,000:
each picture itself, variants by `train.augment` (mirrored, shifted, rotated, brighter or darker)
and crops (a square of 18 to 31 pixels, scaled up). Their order is random, so that the first n are a
sample of all.

``photos``: embeddings of the same pictures by the photo encoder, fitted to them as a store fits it
(256 dimensions). Its network takes 224 x 224 pixels and embeds some 300 such pictures a second on
two cores; it is fully convolutional, and pictures of 32 x 32 pixels hold no more when scaled up
further, so here they are scaled to ``--side`` (96) only, which is six times as fast.

``synthetic``: more vectors than the machine can embed in reasonable time, made from the real ones.
The real ones come first. For each further one, a real vector and another one of its cell (of some
16,000 made by two-level k-means) are mixed with a random weight t below one half, and Gaussian
noise with 2 t (1 - t) times the mean covariance within a cell is added, which preserves the
measured spread within a cell; the sum is scaled to length 1. **These vectors belong to no
picture.** They have the clusters and the local dimension of the real ones.

All write float16 ``.npy`` chunk by chunk, and resume where they were interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embed.bundle import Bundle

REAL, PHOTOS, SYNTHETIC = "real", "photos", "synthetic"
QUERIES = 1000
"""The number of real vectors at the end that are queries and never indexed."""
_CHUNK = {REAL: 2000, PHOTOS: 500, SYNTHETIC: 50_000}
_CELLS = 128
_SIDES = (18, 31)


def open_vectors(folder: Path, name: str = REAL, count: int | None = None) -> np.ndarray:
    """The first ``count`` vectors, by default all, float16 (n, d), memory-mapped."""
    state = _state(folder, name)
    if state is None or state["done"] < (count or state["count"]):
        raise SystemExit(
            f"{folder} has {0 if state is None else state['done']:,} finished vectors in "
            f"{name}.npy, not {f'{count:,}' if count else 'all'}; run `python -m "
            f"benchmarks.vectors {name} --folder {folder}` first"
        )
    return np.load(folder / f"{name}.npy", mmap_mode="r")[:count]


def database_and_queries(
    folder: Path, count: int | None = None, name: str = REAL
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` real vectors, by default all, float16 memory-mapped, and the queries, float32.

    The queries are the vectors after them; without a count, the last of all.
    """
    real = open_vectors(folder, name, None if count is None else count + QUERIES)
    return real[:-QUERIES], unit(real[-QUERIES:])


def reals_of(folder: Path) -> int:
    """The number of real vectors that the synthetic ones were made of and begin with."""
    state = _state(folder, SYNTHETIC)
    if state is None:
        raise SystemExit(f"{folder} has no {SYNTHETIC}.npy")
    return state["real"]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of any float type as float32 of length 1."""
    x = np.asarray(rows, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def make_real(folder: Path, data: Path, count: int, name: str = REAL, side: int = 96) -> None:
    """Embed ``count`` pictures and the queries; ``side`` is of the photo encoder's input."""
    from embed.bundle import PRETRAINED, Bundle
    from embed.corpus import cifar10
    from embed.encoder import Encoder

    splits = cifar10(data).splits
    pictures = np.concatenate([splits[split][0] for split in ("train", "test")])
    bundle = Bundle.load(PRETRAINED) if name == REAL else _photo_bundle(pictures, side)
    encoder = Encoder(bundle)
    total = count + QUERIES
    variants = -(-total // len(pictures))
    order = np.random.default_rng(0).permutation(variants * len(pictures))[:total]
    changed = _augmenter(pictures)

    def chunk(start: int, stop: int) -> np.ndarray:
        variant, picture = np.divmod(order[start:stop], len(pictures))
        made = pictures[picture]
        augmented, cropped = variant % 2 == 1, (variant > 0) & (variant % 2 == 0)
        if augmented.any():
            made[augmented] = changed(picture[augmented], start)
        made[cropped] = _crops(pictures[picture[cropped]], start)
        return encoder.encode(made).embeddings

    about: dict[str, object] = {"model": encoder.digest}
    if name == PHOTOS:
        # Fitted to a sample, so the digest of the fitted model is not the one that ships.
        about = {"model": bundle.training["fit"]["of"], "side": side}
    _fill(folder, name, total, encoder.dimension, about, chunk)
    _count_distinct(folder, name)


def _photo_bundle(pictures: np.ndarray, side: int) -> Bundle:
    """The photo encoder for inputs of this side, fitted to the pictures as a store does."""
    from embed.bundle import Bundle
    from embed.encoder import Encoder
    from embed.imported.fitting import PICTURES, fit_embedding
    from embed.imported.photo_encoder import photo_bundle
    from embed.private_cache import default_cache

    found = photo_bundle(default_cache())
    if found is None:
        raise SystemExit("the photo encoder is not installed: `pip install .`")
    shipped = Bundle.load(found)
    small = replace(shipped, preprocess=replace(shipped.preprocess, input_size=side))
    sample = np.sort(np.random.default_rng(0).permutation(len(pictures))[:PICTURES])
    fitted = fit_embedding(small, Encoder(small).raw(pictures[sample]).features)
    return replace(
        fitted,
        training={**fitted.training, "fit": {**fitted.training["fit"], "of": shipped.digest}},
    )


def _augmenter(pictures: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    import torch

    from train.augment import Augmenter
    from train.recipe import Augment

    settings = Augment("random", translate=4, rotate=15, brightness=0.15, contrast=0.3)
    tensor = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    augmenter = Augmenter(tensor, settings, seed=0)

    def changed(index: np.ndarray, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        batch = augmenter.batch(torch.from_numpy(index.astype(np.int64)), 0, generator)
        return batch.clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()

    return changed


def _crops(pictures: np.ndarray, seed: int) -> np.ndarray:
    """A random square of each picture uint8 (n, s, s, 3), scaled to full size, half mirrored."""
    from PIL import Image

    choose = np.random.default_rng(seed)
    size = pictures.shape[1]
    made = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        side = int(choose.integers(_SIDES[0], _SIDES[1] + 1))
        left, top = (int(choose.integers(0, size - side + 1)) for _ in range(2))
        box = (left, top, left + side, top + side)
        crop = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box)
        made[i] = np.asarray(crop)[:, :: 1 if choose.random() < 0.5 else -1]
    return made


def _count_distinct(folder: Path, name: str) -> None:
    real = open_vectors(folder, name)
    digests = {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in real}
    print(f"{len(digests):,} of {len(real):,} {name} vectors are distinct as float16")


def make_synthetic(folder: Path, count: int, reals: int | None = None) -> None:
    """``reals`` real vectors, by default all, and synthetic ones up to ``count`` in all."""
    database, _ = database_and_queries(folder, reals)
    real = np.array(database[:count])
    members, starts, cell, spread = _cells(folder, real)

    def chunk(start: int, stop: int) -> np.ndarray:
        if stop <= len(real):
            return real[start:stop]
        n = stop - start
        choose = np.random.default_rng((1, start))
        first = choose.integers(0, len(real), n)
        home = cell[first]
        size = starts[home + 1] - starts[home]
        second = members[starts[home] + (choose.random(n) * size).astype(np.int64)]
        t = (choose.random((n, 1)) / 2).astype(np.float32)
        noise = choose.standard_normal((n, spread.shape[0]), np.float32) @ spread
        mixed = (1 - t) * unit(real[first]) + t * unit(real[second])
        made = unit(mixed + np.sqrt(2 * t * (1 - t)) * noise)
        inside = max(0, len(real) - start)
        made[:inside] = real[start : start + inside]
        return made

    _fill(folder, SYNTHETIC, count, real.shape[1], {"real": len(real)}, chunk)


def _cells(folder: Path, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by cell, where each cell starts, each row's cell, and a root of the covariance.

    Standard normal rows times the root (r, d) are noise with the mean covariance within a cell;
    directions of negligible variance are left out.
    """
    import faiss

    path = folder / f"cells-{len(real)}.npz"
    if path.exists():
        with np.load(path) as kept:
            return kept["members"], kept["starts"], kept["cell"], kept["spread"]
    d = real.shape[1]
    cell = np.empty(len(real), np.int64)
    scatter = np.zeros((d, d))
    outer = faiss.Kmeans(d, _CELLS, niter=10, seed=0, max_points_per_centroid=1000)
    sample = np.random.default_rng(0).permutation(len(real))[: 1000 * _CELLS]
    outer.train(unit(real[np.sort(sample)]))
    parent = np.empty(len(real), np.int64)
    for start in range(0, len(real), 100_000):
        parent[start : start + 100_000] = outer.index.search(
            unit(real[start : start + 100_000]), 1
        )[1][:, 0]
    for number in range(_CELLS):
        rows = np.flatnonzero(parent == number)
        x = unit(real[rows])
        cells = max(1, min(_CELLS, len(rows) // 40))
        inner = faiss.Kmeans(d, cells, niter=10, seed=number, min_points_per_centroid=1)
        inner.train(x)
        nearest = inner.index.search(x, 1)[1][:, 0]
        cell[rows] = number * _CELLS + nearest
        residual = x - inner.centroids[nearest]
        scatter += residual.T @ residual
    values, vectors = np.linalg.eigh(scatter / len(real))
    keep = values > values.max() * 1e-5
    spread = (np.sqrt(values[keep])[:, None] * vectors[:, keep].T).astype(np.float32)
    members = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[members], np.arange(_CELLS**2 + 1))
    print(
        f"cells: {len(np.unique(cell)):,}, variance within them {scatter.trace() / len(real):.4f} "
        f"of 1 in {keep.sum()} directions"
    )
    np.savez(path, members=members, starts=starts, cell=cell, spread=spread)
    return members, starts, cell, spread


def _fill(
    folder: Path,
    name: str,
    count: int,
    dimension: int,
    about: dict[str, object],
    chunk: Callable[[int, int], np.ndarray],
) -> None:
    """Write ``count`` rows chunk by chunk, resuming after what is already on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    state = _state(folder, name)
    wanted = {**about, "count": count, "dimension": dimension}
    path = folder / f"{name}.npy"
    if state is not None and any(state.get(key) != value for key, value in wanted.items()):
        raise SystemExit(f"{path} was made as {state}, not as {wanted}; use another folder")
    done = 0 if state is None else state["done"]
    mode = "r+" if done and path.exists() else "w+"
    rows = np.lib.format.open_memmap(path, mode, np.float16, (count, dimension))
    started, first = time.perf_counter(), done
    while done < count:
        stop = min(done + _CHUNK[name], count)
        rows[done:stop] = chunk(done, stop)
        done = stop
        if done == count or done % (20 * _CHUNK[name]) == 0:
            rows.flush()
            (folder / f"{name}.json").write_text(json.dumps({**wanted, "done": done}) + "\n")
            rate = (done - first) / (time.perf_counter() - started)
            print(f"{name}: {done:,} of {count:,}, {rate:,.0f} per second", flush=True)


def _state(folder: Path, name: str) -> dict[str, int] | None:
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    state: dict[str, int] = json.loads(path.read_text())
    return state


def main() -> None:
    """Make one of the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[REAL, PHOTOS, SYNTHETIC])
    parser.add_argument("--folder", type=Path, required=True, help="where the vectors are")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--count", type=int, help="default: 1 million real, or 10 million in all")
    parser.add_argument("--side", type=int, default=96, help="of the photo encoder's input, pixels")
    parser.add_argument(
        "--reals", type=int, help="how many real vectors synthetic ones are made of; default: all"
    )
    arguments = parser.parse_args()
    if arguments.part != SYNTHETIC:
        count = arguments.count or 1_000_000
        make_real(arguments.folder, arguments.data, count, arguments.part, arguments.side)
    else:
        make_synthetic(arguments.folder, arguments.count or 10_000_000, arguments.reals)


if __name__ == "__main__":
    main()
