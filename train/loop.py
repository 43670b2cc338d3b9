"""The training loop: epochs, validation, checkpoints, early stopping, resuming."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.precision import autocast, has_bfloat16
from embed.preprocess import Preprocess
from embed.resnet import WhitenedResNet, build
from train import environment
from train.augment import Augmenter, cutmix
from train.checkpoint import RECIPE, Epoch, Run, load_checkpoint, save_checkpoint, write_log
from train.data import Dataset, Split
from train.imbalance import class_weights
from train.initial import (
    adopt,
    architecture_for,
    in_batches,
    preprocess_for,
    read_init,
    settle,
)
from train.optimisers import make_optimisers, make_schedules
from train.proxy import Chooser
from train.recipe import Recipe, RecipeError
from train.shaping import check as check_shaping
from train.shaping import plain_weights
from train.teacher import DISTIL_MEMORY, Teacher, averaged, remember

Report = Callable[[Epoch], None]
Steps = Callable[[Iterator[Tensor], int, int], Iterator[Tensor]]


def train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    report: Report = lambda epoch: None,
    steps: Steps = lambda batches, epoch, total: batches,
) -> Bundle:
    """Train a network and return the weights of its best epoch.

    The folder holds ``recipe.json``, ``log.csv``, TensorBoard's events and ``checkpoint.pt``,
    written anew after each epoch. Everything random in an epoch follows from the seed and the
    epoch's number, so a resumed run repeats exactly what an uninterrupted one does.

    Args:
        recipe: what to do.
        data: what to learn from; its test split is not looked at.
        folder: where to write.
        resume: go on from the checkpoint in ``folder`` rather than start.
        report: called after each epoch.
        steps: wraps an epoch's batches to show progress: (batches, epoch, number of batches).

    Returns:
        The bundle of the epoch with the lowest validation loss, its temperature fitted.

    Raises:
        ResumeError: no checkpoint in ``folder``, or one of another recipe.
        RecipeError: ``distil`` asked for with a model of other classes, or ``shaping`` with a
            network that has not the maps for it.
    """
    from torch.utils.tensorboard import SummaryWriter  # a second to import; only needed here

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made_by = environment.describe(device.type)
    torch.manual_seed(recipe.seed)
    init = read_init(recipe.init)
    pixels, classes = data.train.pictures.shape[-1], len(data.classes)
    preprocess = preprocess_for(init, pixels) if init else _measure(data.train)
    architecture = (
        architecture_for(init, pixels, classes, recipe.dropout)
        if init
        else _architecture(recipe, pixels, classes)
    )
    if recipe.shaping.likeness:
        try:  # now, not after the training
            check_shaping(recipe.shaping, architecture)
        except ValueError as error:
            raise RecipeError(f"the recipe's shaping cannot be made: {error}") from error
    sample = preprocess.normalise(_some(data.train.pictures))
    network = _fresh(architecture, sample, device)
    weights = class_weights(data.train.labels, classes, recipe.class_balance).to(device)
    teacher = None
    if init and recipe.distil:
        if init.classes != data.classes:
            raise RecipeError(
                f"distil is {recipe.distil} and the model in init knows the classes"
                f" {', '.join(init.classes)}, the data has {', '.join(data.classes)}; expected the"
                " same, or distil 0"
            )
        network.load_state_dict(plain_weights(init))
        remember(network, DISTIL_MEMORY)
        teacher = Teacher(deepcopy(network), recipe.distil)
    elif init and not resume:
        adopt(network, init, preprocess, data.train, weights, recipe.label_smoothing)
    batch_size = fit_batch(recipe.batch_size, len(data.train))
    step_size = recipe.proxy.kept(batch_size)
    optimisers = make_optimisers(network, recipe, step_size)
    schedules = make_schedules(optimisers, recipe)
    stateful: list[Any] = list(optimisers)
    chooser = None
    if step_size < batch_size:
        small = replace(architecture, widths=recipe.proxy.widths, depth=2)
        proxy = _fresh(small, sample, device)
        theirs = make_optimisers(proxy, recipe, step_size)
        schedules += make_schedules(theirs, recipe)
        chooser = Chooser(recipe.proxy, proxy, theirs, recipe.label_smoothing)
        stateful.append(chooser)
    pictures = data.train.pictures.to(device)
    augmenter = Augmenter(pictures, recipe.augment.at(pixels), recipe.seed)
    labels = data.train.labels.to(device)
    mixes = recipe.augment.cutmix

    run = Run(recipe, folder, losses=torch.full((len(data.train),), math.inf))
    if resume:
        load_checkpoint(run, network, stateful)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(json.dumps(recipe.to_dict(), indent=2) + "\n")
    before = run.history[-1].seconds if run.history else 0.0
    started = time.monotonic()

    with SummaryWriter(str(folder)) as board:
        while not run.finished:
            epoch = len(run.history)
            generator = Generator().manual_seed(recipe.seed * 100_003 + epoch)
            torch.manual_seed(recipe.seed * 100_003 + epoch)  # dropout
            low = epoch < round(recipe.low_share * recipe.epochs)
            order = recipe.selection.choose(run.losses, epoch, recipe.epochs, generator)
            size = min(batch_size, len(order))
            total = len(order) // size  # an incomplete last batch is left out
            batches = iter(order[: total * size].split(size))  # type: ignore[no-untyped-call]
            network.train()
            seen: list[Tensor] = []
            for step, index in enumerate(steps(batches, epoch, total)):
                for schedule in schedules:
                    schedule.step(epoch + step / total)
                x, truth = augmenter.batch(index, epoch, generator), labels[index]
                if mixes and torch.rand((), generator=generator) < mixes:
                    x, truth = cutmix(x, truth, classes, generator)
                if low:
                    side = recipe.low_resolution * pixels // 32
                    x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
                x = preprocess.normalise(x)
                if chooser:
                    rows = chooser.hardest(x, truth, step)
                    x, truth, index = x[rows], truth[rows], index[rows.cpu()]
                smoothing = recipe.label_smoothing
                if teacher:
                    truth, smoothing = teacher.target(x, truth, smoothing), 0.0
                with autocast(device):
                    logits = network(x).logits
                losses = F.cross_entropy(
                    logits.float(),
                    truth,
                    label_smoothing=smoothing,
                    reduction="none",
                )
                weight = truth @ weights if truth.ndim > 1 else weights[truth]
                (losses * weight).mean().backward()  # type: ignore[no-untyped-call]
                for optimiser in optimisers:
                    optimiser.step()
                network.zero_grad()
                seen.append(losses.detach().cpu())
                run.losses[index] = seen[-1]
            if init and not teacher:
                settle(network, preprocess, data.train.pictures)
            logits = predict(network, preprocess, data.validation.pictures)
            done = Epoch(
                epoch,
                train_loss=float(torch.cat(seen).mean()),
                validation_loss=_loss(logits, data.validation.labels, weights),
                validation_accuracy=_accuracy(logits, data.validation.labels),
                lr=schedules[0].last_lr,
                seconds=before + time.monotonic() - started,
            )
            _record(run, done, network)
            save_checkpoint(run, network, stateful)
            write_log(run)
            for name, value in asdict(done).items():
                board.add_scalar(name, value, epoch)
            report(done)

    kept = {name: tensor.cpu() for name, tensor in run.best_weights.items()}
    if init and teacher:
        kept = averaged(kept, plain_weights(init), recipe.average)
    kept = {name: _as_stored(tensor) for name, tensor in kept.items()}
    network.load_state_dict(kept)
    logits = predict(network, preprocess, data.validation.pictures)
    best = run.history[run.best_epoch]
    accuracy, loss = best.validation_accuracy, best.validation_loss
    if recipe.average < 1:  # not the weights of any epoch
        accuracy = _accuracy(logits, data.validation.labels)
        loss = _loss(logits, data.validation.labels, weights)
    return Bundle(
        architecture=architecture,
        preprocess=preprocess,
        classes=data.classes,
        weights={name: tensor.numpy() for name, tensor in kept.items()},
        temperature=fit_temperature(logits, data.validation.labels),
        metrics={
            "validation_accuracy": round(accuracy, 4),
            "validation_loss": round(loss, 4),
        },
        training={
            "recipe": recipe.to_dict(),
            "pictures": {"train": len(data.train), "validation": len(data.validation)},
            "best_epoch": run.best_epoch,
            "epochs_run": len(run.history),
            "minutes": round(run.history[-1].seconds / 60, 2),
            **({"init": init.digest} if init else {}),
            "precision": "bfloat16" if has_bfloat16(device.type) else "float32",
            **made_by,
        },
    )


def _architecture(recipe: Recipe, pixels: int, classes: int) -> Architecture:
    whitened = recipe.architecture == "whitened-resnet"
    return Architecture(
        recipe.architecture,
        classes,
        recipe.widths,
        recipe.depth,
        recipe.dropout,
        shrink=max(pixels // 32, 1) if whitened else 1,
    )


def _some(pictures: Tensor) -> Tensor:
    """Enough to see what their patches look like: 5,000 of 32 pixels, fewer of larger ones.

    From the whole set: a folder's pictures come class by class.
    """
    count = max(5000 * 32 * 32 // pictures.shape[-1] ** 2, 100)
    return pictures[:: max(len(pictures) // count, 1)][:count]


def _fresh(architecture: Architecture, sample: Tensor, device: torch.device) -> nn.Module:
    """A network to train, its first layer fitted to a sample of normalised pictures."""
    network = build(architecture)
    if isinstance(network, WhitenedResNet):
        network.whiten(sample)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def fit_batch(wanted: int, pictures: int) -> int:
    """The batch size for a training set: smaller where it would leave an epoch under 20 steps.

    Not below 32, which batch normalisation needs for its statistics, unless there are fewer.
    """
    return min(wanted, max(pictures // 20, 32), pictures)


@torch.no_grad()
def predict(network: torch.nn.Module, preprocess: Preprocess, pictures: Tensor) -> Tensor:
    """Logits float32 ``(n, classes)`` of uint8 pictures ``(n, 3, size, size)``, on the CPU."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with autocast(device):
        logits = [
            network(preprocess.normalise(batch.to(device))).logits.float().cpu()
            for batch in in_batches(pictures)
        ]
    network.train(was_training)
    return torch.cat(logits)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the cross-entropy of ``logits / temperature``.

    Guo et al. 2017 (arXiv:1706.04599). On validation data, never on what was trained on. Its
    logarithm has a normal prior of deviation 1, which weighs as much as a few pictures: a dozen
    that happen to be all right should not make a model certain of everything.

    Args:
        logits: float32 ``(n, classes)``.
        labels: int64 ``(n,)``.
    """
    log_temperature = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(logits / log_temperature.exp(), labels)
        loss = loss + 0.5 * log_temperature.square() / len(labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp().clamp(0.05, 20.0))


def _as_stored(tensor: Tensor) -> Tensor:
    """Rounded as a bundle is on disk, so that what is measured is what ships."""
    tensor = tensor.cpu()
    return tensor.half().float() if tensor.is_floating_point() else tensor


def _measure(split: Split) -> Preprocess:
    """The preprocessing for these pictures: per-channel mean and deviation over all pixels."""
    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in split.pictures.split(5000):  # type: ignore[no-untyped-call]
        values = part.double() / 255
        total += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
    pixels = split.pictures.numel() / 3
    mean = total / pixels
    std = (squares / pixels - mean.square()).sqrt().clamp(min=1e-3)
    r, g, b = (round(float(v), 4) for v in mean)
    sr, sg, sb = (round(float(v), 4) for v in std)
    return Preprocess(split.pictures.shape[-1], (r, g, b), (sr, sg, sb))


def _record(run: Run, done: Epoch, network: torch.nn.Module) -> None:
    run.history.append(done)
    best = run.history[run.best_epoch].validation_loss if run.best_epoch >= 0 else math.inf
    if done.validation_loss < best or run.best_epoch < 0:
        run.best_epoch = done.epoch
        run.best_weights = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> float:
    return float(F.cross_entropy(logits, labels, weight=weights.cpu()))


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())
