"""Imported networks against their own libraries, and what they cost: for `benchmarks.photographs`.

- `parity`: precision of what an imported bundle serves, and of the plain network: eager float32 in
  its own library, with that library's preprocessing of files that Pillow decoded whole. Weights
  that are not installed are random, with batch normalisation's statistics taken from 64 pictures
  of the gallery: they test the path, and say nothing about a network's quality.
- `speed`: pictures a second from files to neighbours, the photo encoder fitted to the gallery, in
  OpenVINO and in eager PyTorch, rounds alternating.
- `cost`: pictures a second through the network alone, random weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.picture_sets import PictureSet
from embed.bundle import Bundle
from embed.corpus import Item
from embed.encoder import Encoder
from embed.imported.fitting import PICTURES, fit_embedding
from embed.imported.importing import import_model
from embed.imported.packaged_weights import packaged_state, packaged_weights
from embed.imported.photo_encoder import RESIZE, SOURCE
from embed.runtime.select import make_runtime
from index.ann.exact import ExactIndex
from search_api.cli.model import SUGGESTIONS
from search_api.service.corpus_sync import batches, item_reader
from train.evaluation.similarity import group_search

PARITY = (
    "timm:tf_efficientnet_lite0",
    "timm:tf_efficientnet_lite2",
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_large",
)
SEED, BATCH = 0, 32
STORED = 60_000
"""Vectors that are searched when speed is measured."""

Embeddings = NDArray[np.float32]
Transform = Callable[[Image.Image], torch.Tensor]


def parity(
    pictures: PictureSet, sources: Sequence[str], threads: int
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Precision at 1 and 5 and smallest cosine to the plain network, by source and runtime."""
    for source in sources:
        network, transform, random = plain_network(source)
        if random:
            _calibrate(network, transform, pictures)
        state = {name: value.clone() for name, value in network.state_dict().items()}
        x = _plain_features(network, transform, pictures)
        bundle = import_model(source, state if random else None)
        name = f"{source}, random weights" if random else source
        table = {"plain network": _precision(pictures, x)}
        for kind, encoder in {
            "as served": Encoder(bundle, threads=threads),
            "OpenVINO float32": Encoder(bundle, 64, "float32", "openvino", threads),
        }.items():
            served = np.concatenate([found for _, found in _served(encoder, pictures)])
            found = _precision(pictures, served)
            found["difference at 1"] = found["P@1"] - table["plain network"]["P@1"]
            found["difference at 5"] = found["P@5"] - table["plain network"]["P@5"]
            found["smallest cosine"] = float((served * x).sum(axis=1).min())
            runtime = encoder.runtime.name, encoder.precision
            table[f"{kind} ({', '.join(runtime)})" if kind == "as served" else kind] = found
        yield name, table


def speed(pictures: PictureSet, threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Median pictures a second through decoding, network and an exact search, by runtime."""
    bundle = import_model(SOURCE, resize=RESIZE)
    plain = Encoder(bundle, threads=threads)
    gallery = pictures.gallery[:PICTURES]
    features = [plain.raw(batch).features for _, batch in _read(plain, pictures, gallery)]
    bundle = fit_embedding(bundle, np.concatenate(features))
    encoders = {
        "OpenVINO, as served": Encoder(bundle, threads=threads),
        "OpenVINO float32": Encoder(bundle, 64, "float32", "openvino", threads),
        "eager PyTorch float32": Encoder(bundle, 64, "float32", "torch", threads),
    }
    rng = np.random.default_rng(SEED)
    d = encoders["OpenVINO, as served"].dimension
    xb = rng.standard_normal((STORED, d), dtype=np.float32)
    index = ExactIndex(d)
    index.add(np.arange(STORED), xb / np.linalg.norm(xb, axis=1, keepdims=True))
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encoder in encoders.items():
            started = time.perf_counter()
            for _, embeddings in _served(encoder, pictures):
                index.search(embeddings, 10)
            times[name].append(len(pictures.items) / (time.perf_counter() - started))
    base = statistics.median(times["eager PyTorch float32"])
    return {
        name: {
            "precision": encoders[name].precision,
            "pictures/s": statistics.median(found),
            "slowest": min(found),
            "fastest": max(found),
            "ratio": statistics.median(found) / base,
        }
        for name, found in times.items()
    }


def cost(sources: Sequence[str], threads: int, rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each network costs: parameters, GFLOP (2 x MAC), dimension, pictures a second.

    Args:
        sources: of networks; those that ``lookalike model list`` suggests if empty.
        threads: of the runtime.
        rounds: timed; the median counts.
    """
    for source in sources or [suggestion.source for suggestion in SUGGESTIONS]:
        state = plain_network(source)[0].state_dict()
        bundle = import_model(source, state)
        sizes = [bundle.preprocess.input_size]
        if sizes[0] > 384:
            sizes.append(224)  # as --size 224
        for size in sizes:
            if size != sizes[0]:
                bundle = import_model(source, state, size=size)
            name = source if size == sizes[0] else f"{source} --size {size}"
            yield name, _cost(bundle, threads, rounds)


def _cost(bundle: Bundle, threads: int, rounds: int) -> dict[str, Any]:
    size = bundle.preprocess.input_size
    # The counter follows gradients, and knows a CPU's attention only on the meta device.
    network = bundle.network().requires_grad_(False).to("meta")
    counter = FlopCounterMode(display=False)
    with counter:
        dimension = network(torch.zeros(1, 3, size, size, device="meta")).features.shape[1]
    gflop = counter.get_total_flops() / 1e9
    runtime = make_runtime(bundle, "auto", "auto", threads)
    n = int(np.clip(200 / gflop, 1, 64))  # a batch takes some seconds at most
    batch = np.random.default_rng(SEED).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    runtime.run(batch)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        runtime.run(batch)
        times.append(time.perf_counter() - started)
    return {
        "pixels": size,
        "M parameters": bundle.training["parameters"] / 1e6,
        "GFLOP": gflop,
        "d": int(dimension),
        "runtime": f"{runtime.name}, {runtime.precision}",
        "batch": n,
        "pictures/s": n / statistics.median(times),
    }


def plain_network(source: str) -> tuple[nn.Module, Transform, bool]:
    """A network of its library, in evaluation mode, with its preprocessing.

    Returns:
        the network with its classifier, what makes its input of a picture, and whether its weights
        are random because none are installed.
    """
    library, _, name = source.partition(":")
    torch.manual_seed(SEED)
    if library == "timm":
        import timm

        network = timm.create_model(name)
        data = timm.data.resolve_data_config(pretrained_cfg=network.pretrained_cfg)
        transform = timm.data.create_transform(**data, is_training=False)
        path = packaged_weights(name)
        if path is not None:
            network.load_state_dict(packaged_state(name, path))
        return network.eval(), transform, path is None
    from torchvision import models

    network = models.get_model(name, weights=None)
    return network.eval(), models.get_model_weights(name).DEFAULT.transforms(), True


def _calibrate(network: nn.Module, transform: Transform, pictures: PictureSet) -> None:
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.train()
        layer.momentum = None  # the mean over all pictures
    with torch.inference_mode():
        network(torch.stack([*_inputs(transform, pictures, pictures.gallery[:64])]))
    network.eval()


def _plain_features(network: nn.Module, transform: Transform, pictures: PictureSet) -> Embeddings:
    """What the last linear layer reads, at length one."""
    read: list[torch.Tensor] = []
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    handle = last.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.inference_mode():
        for start in range(0, len(pictures.items), BATCH):
            items = pictures.items[start : start + BATCH]
            network(torch.stack([*_inputs(transform, pictures, items)]))
    handle.remove()
    found: Embeddings = nn.functional.normalize(torch.cat(read)).numpy()
    return found


def _inputs(
    transform: Transform, pictures: PictureSet, items: Sequence[Item]
) -> Iterator[torch.Tensor]:
    for item in items:
        with Image.open(pictures.corpus.root / item.source) as image:
            yield transform(image.convert("RGB"))


def _read(
    encoder: Encoder, pictures: PictureSet, items: Sequence[Item]
) -> Iterator[tuple[list[Item], list[NDArray[np.uint8]]]]:
    """Pictures prepared for the encoder, as a build reads them.

    Raises:
        ValueError: one cannot be read.
    """
    for batch in batches(items, item_reader(pictures.corpus, encoder)):
        bad = {item.source: found for item, found in batch if isinstance(found, str)}
        if bad:
            raise ValueError(f"these pictures cannot be read: {bad}; remove them")
        yield (
            [item for item, _ in batch],
            [found[0] for _, found in batch if not isinstance(found, str)],
        )


def _served(encoder: Encoder, pictures: PictureSet) -> Iterator[tuple[list[Item], Embeddings]]:
    for items, batch in _read(encoder, pictures, pictures.items):
        yield items, encoder.encode(batch).embeddings


def _precision(pictures: PictureSet, x: Embeddings) -> dict[str, Any]:
    n = len(pictures.queries)
    yq, yb = pictures.labels
    found = group_search(x[:n], yq, x[n:], yb, (1, 5)).precision_at
    return {"P@1": found[1], "P@5": found[5]}
