"""Time and FLOPs to accuracy of a recipe, next to airbench94_muon on the same machine.

    git clone https://github.com/KellerJordan/cifar10-airbench
    python -m benchmarks.training --baseline cifar10-airbench/airbench94_muon.py --seeds 0 1 2

Runs of the recipe and of the baseline, each in its own process, alternate, so that a machine that
slows down slows both. Our time is from the first step to the last, including validation and
checkpoints; the baseline's excludes its evaluations. Accuracies are on the test set, single view;
the baseline's accuracy with test-time augmentation is printed as well. The baseline runs unchanged
(`--baseline-runs`) and with our process settings (`train/environment.py`, `--prepared-runs`).
Finished runs are kept in `--out` and not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from embed.architecture import Architecture
from embed.corpus import open_corpus
from embed.resnet import count_flops
from train import environment
from train.checkpoint import CHECKPOINT, LOG, Epoch
from train.data import load_dataset
from train.loop import predict, train
from train.recipe import Recipe, read_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--recipe", default="quick")
    parser.add_argument(
        "--baseline", "--anchor", type=Path, help="airbench94_muon.py; default: run only the recipe"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--baseline-runs",
        "--anchor-runs",
        type=int,
        default=1,
        help="runs of the unchanged baseline",
    )
    parser.add_argument(
        "--prepared-runs",
        type=int,
        default=1,
        help="runs of the baseline with our process settings",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(options.recipe)
    results: dict[str, list[dict[str, Any]]] = {recipe.name: []}
    baselines = {
        "airbench94_muon": (options.baseline_runs, False),
        "airbench94_muon, same process settings": (options.prepared_runs, True),
    }
    results |= {name: [] for name in baselines}
    for number, seed in enumerate(options.seeds):
        results[recipe.name].append(_kept(options.out, recipe.name, seed, ours, options, seed))
        for name, (runs, prepared) in baselines.items():
            if options.baseline and number < runs:
                results[name].append(
                    _kept(options.out, name, seed, baseline, options, seed, prepared)
                )
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'':40} {'n':>2} {'test accuracy':>22} {'minutes':>8} {'PFLOP':>6}")
    for name, runs in results.items():
        if runs:
            _print(name, runs)
    for name in baselines:
        if results[name]:
            ratio = _median(results[recipe.name], "seconds") / _median(results[name], "seconds")
            print(f"{recipe.name} takes {ratio:.2f} of the time of {name}")


def ours(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run of the recipe; an interrupted one is resumed."""
    environment.prepare()
    folder = options.out / f"{options.recipe}-{seed}"
    recipe = dataclasses.replace(read_recipe(options.recipe), seed=seed)
    data = load_dataset(open_corpus(options.data), recipe.size, recipe.validation, seed)
    assert data.test is not None
    resume = (folder / CHECKPOINT).exists()
    bundle = train(recipe, data, folder, resume=resume, report=_say)
    predicted = predict(bundle.network(), bundle.preprocess, data.test.pictures).argmax(1)
    return {
        "accuracy": float((predicted == data.test.labels).float().mean()),
        "validation": bundle.metrics["validation_accuracy"],
        "seconds": float((folder / LOG).read_text().splitlines()[-1].split(",")[-1]),
        "pflop": recipe_pflop(recipe, pictures=50_000),
        **environment.describe("cpu"),
    }


def _say(epoch: Epoch) -> None:
    print(epoch, file=sys.stderr, flush=True)


def baseline(options: argparse.Namespace, seed: int, prepared: bool) -> dict[str, Any]:
    """One run of the author's program."""
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.peers.airbench",
            options.baseline,
            options.data,
            str(seed),
        ],
        env=os.environ | {"PREPARED": "1" if prepared else "0"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def recipe_pflop(recipe: Recipe, pictures: int) -> float:
    """FLOPs of a run on so many training pictures; forward and backward count as three forwards.

    Includes the passes of the proxy and of a teacher.
    """
    trained = round(pictures * (1 - recipe.validation))
    low = round(recipe.low_share * recipe.epochs)
    total = 0.0
    for size, epochs in ((recipe.low_resolution, low), (32, recipe.epochs - low)):
        if not epochs:
            continue
        network = Architecture(recipe.architecture, widths=recipe.widths, depth=recipe.depth)
        passes = 3 + (2 if recipe.distil else 0)  # a teacher predicts two views
        total += passes * count_flops(network, size) * recipe.proxy.keep * trained * epochs
        if recipe.proxy.keep < 1:
            proxy = count_flops(Architecture(widths=recipe.proxy.widths), size)
            total += proxy * (1 + 2 / recipe.proxy.every) * trained * epochs
    return total / 1e15


def _kept(out: Path, name: str, seed: int, run: Any, *arguments: Any) -> dict[str, Any]:
    file = out / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
    if not file.exists():
        print(f"{name}, seed {seed} ...", file=sys.stderr, flush=True)
        result = run(*arguments)
        file.write_text(json.dumps(result))
    kept: dict[str, Any] = json.loads(file.read_text())
    return kept


def _median(runs: list[dict[str, Any]], field: str) -> float:
    return statistics.median(run[field] for run in runs)


def _print(name: str, runs: list[dict[str, Any]]) -> None:
    accuracies = [100 * run["accuracy"] for run in runs]
    each = " ".join(f"{value:.2f}" for value in accuracies)
    print(
        f"{name:40} {len(runs):2} {statistics.mean(accuracies):6.2f} ({each})"
        f" {_median(runs, 'seconds') / 60:8.1f} {_median(runs, 'pflop'):6.2f}"
    )
    if "augmented" in runs[0]:
        mean = statistics.mean(100 * run["augmented"] for run in runs)
        print(f"{'  with its test-time augmentation':43} {mean:6.2f}")


if __name__ == "__main__":
    main()
