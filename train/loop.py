"""The training loop: epochs, validation, checkpoints, early stopping, resuming."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from embed.bundle import Bundle
from embed.precision import autocast, has_bfloat16
from embed.preprocess import Preprocess
from train.augment import cutmix
from train.checkpoint import (
    RECIPE,
    Epoch,
    ResumeError,
    Run,
    load_checkpoint,
    save_checkpoint,
    write_log,
)
from train.data import Dataset, in_batches
from train.extras.finetune_init import recompute_batch_norm
from train.extras.probe import fit, train_probe
from train.extras.shaping import plain_weights
from train.extras.teacher import average_weights
from train.imported import embeddings
from train.recipe import Recipe
from train.setup import Setup, Start, set_up

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

    ``folder`` receives ``recipe.json`` and, after each epoch, ``log.csv``, TensorBoard events and
    ``checkpoint.pt``. All randomness in an epoch follows from the seed and the epoch's number, so
    a resumed run gives exactly the results of an uninterrupted one.

    Args:
        recipe: what to do.
        data: what to train on; its test split is not used.
        folder: where to write; created if needed.
        resume: continue from the checkpoint in ``folder`` instead of starting.
        report: called after each epoch.
        steps: wraps an epoch's batches to show progress: (batches, epoch, number of batches).

    Returns:
        The bundle of the epoch with the lowest validation loss, its temperature fitted.

    Raises:
        BundleError: the recipe's ``init`` is not a bundle.
        RecipeError: as ``train.setup.set_up``.
        TooFewLabelsError: likewise.
        ResumeError: no checkpoint in ``folder``, or one of another recipe.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    if recipe.layers == "classifier":
        if resume:
            raise ResumeError(
                f"the run in {folder} is a probe, which has no epochs; start it again"
            )
        bundle = train_probe(recipe, data, lambda batches, total: steps(batches, 0, total))
        _write_recipe(recipe, folder)
        return bundle
    setup = set_up(recipe, data, resume)
    run = Run(recipe, folder)
    if resume:
        load_checkpoint(run, setup.network, setup.stateful)
    else:
        _write_recipe(recipe, folder)
    started = time.monotonic() - (run.history[-1].seconds if run.history else 0.0)
    with SummaryWriter(str(folder)) as board:
        while not run.finished:
            epoch = len(run.history)
            train_loss = _train_epoch(setup, epoch, steps)
            if setup.init and not setup.teacher and not setup.start:
                recompute_batch_norm(setup.network, setup.preprocess, data.train.pictures)
            validation_loss, validation_accuracy, _ = _validate(setup)
            lr, seconds = setup.schedules[0].last_lr, time.monotonic() - started
            done = Epoch(epoch, train_loss, validation_loss, validation_accuracy, lr, seconds)
            _record(run, done, setup.network)
            save_checkpoint(run, setup.network, setup.stateful)
            write_log(run)
            for name, value in asdict(done).items():
                board.add_scalar(name, value, epoch)
            report(done)
    return _finish(setup, run)


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECIPE).write_text(json.dumps(recipe.to_dict(), indent=2) + "\n")


def _train_epoch(setup: Setup, epoch: int, steps: Steps) -> float:
    """Train on every picture once; returns the mean loss."""
    seed = setup.recipe.seed * 100_003 + epoch
    generator = Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for dropout
    order = torch.randperm(len(setup.labels), generator=generator)
    total = len(order) // setup.batch_size  # an incomplete last batch is left out
    batches = iter(order[: total * setup.batch_size].split(setup.batch_size))  # type: ignore[no-untyped-call]
    # An imported network keeps the statistics of its batch normalisation.
    setup.network.train(setup.start is None)
    losses = []
    for step, rows in enumerate(steps(batches, epoch, total)):
        for schedule in setup.schedules:
            schedule.step(epoch + step / total)
        x, target = _batch(setup, rows, epoch, generator)
        if setup.selector:
            hardest = setup.selector.hardest(x, target, step)
            x, target = x[hardest], target[hardest]
        losses.append(_step(setup, x, target))
    return float(torch.cat(losses).mean())


def _batch(setup: Setup, rows: Tensor, epoch: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Augmented, normalised pictures float32 ``(b, 3, h, w)`` and their target.

    The target is int64 ``(b,)``, or the share of each class, float32 ``(b, classes)``.
    """
    recipe, size = setup.recipe, setup.preprocess.input_size
    x, target = setup.augmenter.batch(rows, epoch, generator), setup.labels[rows]
    mixed = recipe.augment.cutmix
    if mixed and torch.rand((), generator=generator) < mixed:
        x, target = cutmix(x, target, len(setup.data.classes), generator)
    if epoch < round(recipe.low_share * recipe.epochs):
        low = recipe.low_resolution * size // 32
        x = F.interpolate(x, size=low, mode="bilinear", antialias=True)
    return setup.preprocess.normalise(x), target


def _step(setup: Setup, x: Tensor, target: Tensor) -> Tensor:
    """Update the network; returns the losses float32 ``(b,)``, unweighted, on the CPU."""
    smoothing = setup.recipe.label_smoothing
    if setup.teacher:
        target, smoothing = setup.teacher.target(x, target, smoothing), 0.0
    with autocast(setup.device):
        logits = setup.network(x).logits
    losses = F.cross_entropy(logits.float(), target, label_smoothing=smoothing, reduction="none")
    by_class = setup.class_weights
    weights = target @ by_class if target.ndim > 1 else by_class[target]
    (losses * weights).mean().backward()  # type: ignore[no-untyped-call]
    for optimiser in setup.optimisers:
        optimiser.step()
    setup.network.zero_grad()
    return losses.detach().cpu()


def _validate(setup: Setup) -> tuple[float, float, Tensor]:
    """Loss, accuracy and logits ``(n, classes)`` on the validation split.

    The loss of an imported network is that of its calibrated confidence, as it was of its probe.
    """
    logits = predict(setup.network, setup.preprocess, setup.data.validation.pictures)
    scaled = logits
    if setup.start:
        scaled = logits / fit_temperature(logits, setup.data.validation.labels)
    return *_scored(setup, scaled), logits


def _scored(setup: Setup, logits: Tensor) -> tuple[float, float]:
    """Loss and accuracy of logits ``(n, classes)`` of the validation split."""
    validation = setup.data.validation
    loss = F.cross_entropy(logits, validation.labels, weight=setup.class_weights.cpu())
    accuracy = (logits.argmax(1) == validation.labels).float().mean()
    return float(loss), float(accuracy)


def _record(run: Run, done: Epoch, network: nn.Module) -> None:
    run.history.append(done)
    best = run.history[run.best_epoch].validation_loss if run.best_epoch >= 0 else math.inf
    if done.validation_loss < best or run.best_epoch < 0:
        run.best_epoch = done.epoch
        run.best_weights = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }


def _finish(setup: Setup, run: Run) -> Bundle:
    """Make the bundle from the weights of the best epoch, or their average with those of init."""
    recipe, data, init = setup.recipe, setup.data, setup.init
    if setup.start:
        return _finish_imported(setup, run, setup.start)
    weights = {name: tensor.cpu() for name, tensor in run.best_weights.items()}
    if init and setup.teacher:
        weights = average_weights(weights, plain_weights(init), recipe.average)
    # Rounded as on disk, so that validation measures the saved weights.
    weights = {n: t.half().float() if t.is_floating_point() else t for n, t in weights.items()}
    setup.network.load_state_dict(weights)
    loss, accuracy, logits = _validate(setup)
    if recipe.average == 1:  # the weights of an epoch: report what its log says
        best = run.history[run.best_epoch]
        loss, accuracy = best.validation_loss, best.validation_accuracy
    return Bundle(
        architecture=setup.architecture,
        preprocess=setup.preprocess,
        classes=data.classes,
        weights={name: tensor.numpy() for name, tensor in weights.items()},
        temperature=fit_temperature(logits, data.validation.labels),
        metrics={
            "validation_accuracy": round(accuracy, 4),
            "validation_loss": round(loss, 4),
        },
        training=_described(setup, run),
    )


def _finish_imported(setup: Setup, run: Run, start: Start) -> Bundle:
    """The bundle of the best epoch, or of the probe unless validation has become better.

    Better by more than chance: the accuracy has risen, and the loss has fallen by more than the
    standard error of the fall. A few dozen pictures otherwise choose an epoch by its luck.
    """
    data, best = setup.data, run.history[run.best_epoch]
    labels = data.validation.labels
    validation = start.features.values[len(data.train) :]
    weight, bias = start.probe.weights["head.weight"], start.probe.weights["head.bias"]
    logits = torch.from_numpy(embeddings(start.probe, validation) @ weight.T + bias)
    scaled = logits / fit_temperature(logits, labels)
    probe_loss, probe_accuracy = _scored(setup, scaled)
    setup.network.load_state_dict(run.best_weights)
    _, _, logits = _validate(setup)
    temperature = fit_temperature(logits, labels)
    fall = F.cross_entropy(scaled, labels, reduction="none")
    fall -= F.cross_entropy(logits / temperature, labels, reduction="none")
    error = float(fall.std()) / math.sqrt(len(fall)) if len(fall) > 1 else math.inf
    better = best.validation_accuracy > probe_accuracy and float(fall.mean()) > error
    outcome = {
        "ships": "fine-tuned" if better else "probe",
        "probe_validation_accuracy": round(probe_accuracy, 4),
        "probe_validation_loss": round(probe_loss, 4),
        "validation_accuracy": round(best.validation_accuracy, 4),
        "validation_loss": round(best.validation_loss, 4),
        "standard_error": round(error, 4) if math.isfinite(error) else None,
    }
    if better:
        bundle = replace(
            start.probe,
            weights={name: tensor.cpu().numpy() for name, tensor in run.best_weights.items()},
            temperature=temperature,
            metrics={},
        )
    else:  # fitted to the validation pictures too, which no longer have to be held out
        bundle = fit(start.features, data.classes, setup.recipe.seed)
    return replace(
        bundle,
        metrics={**bundle.metrics, "fine_tuning": outcome},
        training={
            **bundle.training,
            **_described(setup, run),
            **({} if better else {"best_epoch": None}),
        },
    )


def _described(setup: Setup, run: Run) -> dict[str, Any]:
    data = setup.data
    return {
        "recipe": setup.recipe.to_dict(),
        "pictures": {"train": len(data.train), "validation": len(data.validation)},
        "best_epoch": run.best_epoch,
        "epochs_run": len(run.history),
        "minutes": round(run.history[-1].seconds / 60, 2),
        **({"init": setup.init.digest} if setup.init else {}),
        "precision": "bfloat16" if has_bfloat16(setup.device.type) else "float32",
        **setup.environment,
    }


@torch.no_grad()
def predict(network: nn.Module, preprocess: Preprocess, pictures: Tensor) -> Tensor:
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

    Guo et al. 2017 (arXiv:1706.04599). Use validation data, never training data. The logarithm of
    the temperature has a normal prior of deviation 1, which weighs as much as a few pictures, so
    that a dozen correct predictions do not make a model certain of everything.

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
