"""Runs airbench94_muon on a CPU: the author's file with GPU-specific code replaced.

The file is not part of this project: clone github.com/KellerJordan/cifar10-airbench and give the
path of ``airbench94_muon.py``. As a program, it trains once and prints one line of JSON::

    python -m benchmarks.peers.airbench AIRBENCH94_MUON DATA SEED
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from embed.corpus import open_corpus
from embed.precision import autocast, has_bfloat16
from train import environment
from train.data import load_dataset

REPLACED = (
    ("with open(sys.argv[0]) as f:\n    code = f.read()\n", ""),
    ("@torch.compile\n", ""),
    ('torch.device("cuda")', '"cpu"'),
    ("self.images.half()", "self.images.float()"),
    ("mod.half()", "mod.float()"),
    (", fused=True", ""),
    ("torch.cuda.Event(enable_timing=True)", "Timer()"),
    ("torch.cuda.synchronize()", "pass"),
)
"""Text in the author's file and its replacement for a CPU; each must occur."""


class Timer:
    """A CPU's stand-in for ``torch.cuda.Event``."""

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: Timer) -> float:
        return 1e3 * (end.at - self.at)


def load(file: Path) -> dict[str, Any]:
    """The names defined by the author's file, adapted to a CPU."""
    source = file.read_text()
    for old, new in REPLACED:
        if old not in source:
            raise SystemExit(
                f"{file} does not contain {old!r}; expected airbench94_muon.py of revision"
                " f1c599c4af24"
            )
        source = source.replace(old, new)
    if not has_bfloat16("cpu"):
        source = source.replace("G.bfloat16()", "G.float()")
    names: dict[str, Any] = {"__name__": "airbench94_muon", "Timer": Timer}
    exec(compile(source, str(file), "exec"), names)
    return names


class Autocast(nn.Module):
    """Runs a network in bfloat16 if the CPU has it; other attributes are the network's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.network, name)

    def forward(self, *args: Any, **more: Any) -> Any:
        with autocast(torch.device("cpu")):
            logits = self.network(*args, **more)
        return logits.float()


def flops(network: nn.Module) -> int:
    """FLOPs (2 x MAC) of one forward pass for one picture."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, 32, 32))
    return int(counter.get_total_flops())


def main() -> None:
    file, data, seed = Path(sys.argv[1]), Path(sys.argv[2]).resolve(), int(sys.argv[3])
    if os.environ.get("PREPARED") == "1":
        environment.prepare()
    names = load(file.resolve())
    dataset = load_dataset(open_corpus(data), validation=0.001)
    corpus = {"train": _joined(dataset.train, dataset.validation), "test": dataset.test}
    torch.manual_seed(seed)
    network = Autocast(names["CifarNet"]().to(memory_format=torch.channels_last))
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("cifar10").mkdir()
        for name, split in corpus.items():
            torch.save(
                {
                    "images": split.pictures.permute(0, 2, 3, 1),
                    "labels": split.labels,
                    "classes": list(dataset.classes),
                },
                f"cifar10/{name}.pt",
            )
        with contextlib.redirect_stdout(printed):
            augmented = names["main"](0, network)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in printed.getvalue().splitlines()
        if line.startswith("|")
    ]
    epochs = [row for row in rows if row[1] != "eval"]
    forward = flops(network.network)
    print(
        json.dumps(
            {
                "accuracy": float(epochs[-1][3]),
                "augmented": augmented,
                # Training only: the author's clock stops during evaluation.
                "seconds": float(epochs[-1][5]),
                "pflop": 3 * forward * 50_000 * len(epochs) / 1e15,
                "forward_gflop": forward / 1e9,
            }
        )
    )


def _joined(one: Any, other: Any) -> Any:
    return type(one)(
        torch.cat([one.pictures, other.pictures]), torch.cat([one.labels, other.labels])
    )


if __name__ == "__main__":
    main()
