"""A store of CIFAR-10 and vectors to search, made once for each model and kept in `Work.folder`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.suite import machine
from benchmarks.suite.result import Work

QUERIES = 1000
"""Vectors that are held out of the index."""
_SHORT = 5000


def store_path(work: Work) -> Path:
    """Where `store` is, whether it exists or not."""
    return work.folder / f"store-{machine.digests()['model'][7:19]}"


def store(work: Work) -> Path:
    """The folder of a store of the 60,000 pictures by the model that ships."""
    var = store_path(work)
    if not var.exists():
        work.say("building a store of CIFAR-10, about a minute")
        new = work.folder / "store.new"
        shutil.rmtree(new, ignore_errors=True)
        lookalike("index", "build", "--data", work.data, "--var", new)
        new.rename(var)
    return var


def lookalike(*arguments: object) -> None:
    """Run the command; raises CalledProcessError with what it wrote on stderr shown."""
    command = [sys.executable, "-m", "search_api.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()


def vectors(work: Work) -> np.ndarray:
    """The embeddings of CIFAR-10 by the model that ships, float32 (n, 266)."""
    from index.local.catalogue import SqliteCatalogue

    catalogue = SqliteCatalogue(store(work) / "catalogue.sqlite")
    xb = catalogue.embeddings(machine.digests()["model"])[1]
    return xb[:_SHORT] if work.short else xb


def photo_vectors(work: Work) -> np.ndarray:
    """Those by the photo encoder, fitted to the pictures as a store does: float32 (n, 256)."""
    digest = machine.digests()["photo encoder"]
    path = work.folder / f"photo-{digest[7:19]}{'-short' if work.short else ''}.npy"
    if not path.exists():
        work.say("embedding CIFAR-10 with the photo encoder, some minutes")
        found = _embedded(work)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
    return np.load(path)


def held_out(xb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vectors without the queries, and the queries; drawn with seed 0."""
    held = np.sort(np.random.default_rng(0).permutation(len(xb))[:QUERIES])
    return np.ascontiguousarray(np.delete(xb, held, axis=0)), np.array(xb[held])


def _embedded(work: Work) -> np.ndarray:
    from embed.bundle import Bundle
    from embed.corpus import cifar10
    from embed.encoder import Encoder
    from embed.imported.fitting import PICTURES, fit_embedding
    from embed.imported.photo_encoder import photo_bundle
    from embed.private_cache import default_cache

    splits = cifar10(work.data).splits
    pictures = np.concatenate([splits[name][0] for name in ("train", "test")])
    if work.short:
        pictures = pictures[:_SHORT]
    folder = photo_bundle(default_cache())
    assert folder is not None
    bundle = Bundle.load(folder)
    sample = np.random.default_rng(0).permutation(len(pictures))[:PICTURES]
    features = Encoder(bundle).raw(pictures[np.sort(sample)]).features
    return Encoder(fit_embedding(bundle, features)).encode(pictures).embeddings
