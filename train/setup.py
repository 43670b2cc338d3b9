"""Everything that a training run makes before its first epoch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from embed.architecture import Architecture, ArchitectureName, Backbone
from embed.backbones import BackboneNetwork
from embed.bundle import Bundle
from embed.preprocess import Preprocess
from embed.resnet import WhitenedResNet, build
from train import environment
from train.augment import Augmenter
from train.choice import check_init, read_init
from train.data import Dataset
from train.extras.batch_selection import BatchSelector
from train.extras.class_weights import class_weights
from train.extras.finetune_init import architecture_for, initialise, preprocess_for
from train.extras.probe import Features, embed, fit
from train.extras.shaping import check_shaping, plain_weights
from train.extras.teacher import BATCH_NORM_MOMENTUM, Teacher, set_batch_norm_momentum
from train.imported import freeze_all_but_last
from train.optimisers import Schedule, make_optimisers, make_schedules
from train.recipe import Recipe, RecipeError

LAST_LAYERS = 1 / 3
"""The share of an imported network's layers that fine-tuning changes, counted from the last."""


@dataclass(frozen=True)
class Start:
    """The probe that fine-tuning starts from.

    Attributes:
        features: of the training and the validation pictures, one after the other.
        probe: the classifier of the training pictures.
    """

    features: Features
    probe: Bundle


@dataclass(frozen=True)
class Setup:
    """A run before its first epoch.

    Attributes:
        recipe: the recipe.
        data: what to train on.
        environment: hardware, threads and versions at the start of the run.
        device: where the network trains.
        init: the bundle that training starts from; None for fresh weights.
        architecture: of the network.
        preprocess: of the network.
        network: the network, on ``device``.
        class_weights: of each class in the loss, float32 ``(classes,)``, on ``device``.
        teacher: makes the targets when the recipe distils.
        batch_size: pictures in a batch.
        optimisers: of the network.
        schedules: of ``optimisers`` and of the selector's.
        selector: selects the pictures of a batch to train on; None for all of them.
        augmenter: makes batches of the training pictures.
        labels: of the training pictures, int64 ``(n,)``, on ``device``.
        start: the probe that an imported network starts from, and that it must beat.
    """

    recipe: Recipe
    data: Dataset
    environment: dict[str, Any]
    device: torch.device
    init: Bundle | None
    architecture: Architecture | Backbone
    preprocess: Preprocess
    network: nn.Module
    class_weights: Tensor
    teacher: Teacher | None
    batch_size: int
    optimisers: list[Optimizer]
    schedules: list[Schedule]
    selector: BatchSelector | None
    augmenter: Augmenter
    labels: Tensor
    start: Start | None = None

    @property
    def stateful(self) -> list[Any]:
        """What a checkpoint holds besides the network, in order."""
        return [*self.optimisers, *([self.selector] if self.selector else [])]


def set_up(recipe: Recipe, data: Dataset, resume: bool) -> Setup:
    """Prepare a run. The random numbers drawn follow from the recipe's seed.

    Args:
        recipe: what to do.
        data: what to train on.
        resume: a checkpoint will be loaded, so new layers need not be fitted.

    Raises:
        BundleError: the recipe's ``init`` is not a bundle.
        RecipeError: ``distil`` with other classes than those of ``init``, ``shaping`` with a
            network that cannot be shaped, or an ``init`` of another architecture.
        TooFewLabelsError: ``init`` is an imported network, and fewer than two classes have the
            pictures that a classifier needs.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    described = environment.describe(device.type)
    torch.manual_seed(recipe.seed)
    init = read_init(recipe.init)
    if not resume:
        check_init(recipe, init)
    if init and isinstance(init.architecture, Backbone):
        return _set_up_imported(recipe, init, data, device, described)
    size, classes = data.train.pictures.shape[-1], len(data.classes)
    if init:
        preprocess = preprocess_for(init, size)
        architecture = architecture_for(init, size, classes, recipe.dropout)
    else:
        preprocess = _measure(data.train.pictures)
        architecture = _architecture(recipe, size, classes)
    _check(recipe, architecture, init, data.classes)

    sample = preprocess.normalise(_sample(data.train.pictures))
    network = _fresh(architecture, sample, device)
    weights = class_weights(data.train.labels, classes, recipe.class_balance).to(device)
    teacher = None
    if init and recipe.distil:
        network.load_state_dict(plain_weights(init))
        set_batch_norm_momentum(network, BATCH_NORM_MOMENTUM)
        teacher = Teacher(deepcopy(network), recipe.distil)
    elif init and not resume:
        initialise(network, init, preprocess, data.train, weights, recipe.label_smoothing)

    batch_size = fit_batch(recipe.batch_size, len(data.train))
    step_size = recipe.proxy.kept(batch_size)
    optimisers = make_optimisers(network, recipe, step_size)
    schedules = make_schedules(optimisers, recipe)
    selector = None
    if step_size < batch_size:
        proxy = _fresh(replace(architecture, widths=recipe.proxy.widths, depth=2), sample, device)
        proxy_optimisers = make_optimisers(proxy, recipe, step_size)
        schedules += make_schedules(proxy_optimisers, recipe)
        selector = BatchSelector(recipe.proxy, proxy, proxy_optimisers, recipe.label_smoothing)
    pictures = data.train.pictures.to(device)
    return Setup(
        recipe=recipe,
        data=data,
        environment=described,
        device=device,
        init=init,
        architecture=architecture,
        preprocess=preprocess,
        network=network,
        class_weights=weights,
        teacher=teacher,
        batch_size=batch_size,
        optimisers=optimisers,
        schedules=schedules,
        selector=selector,
        augmenter=Augmenter(pictures, recipe.augment.at(size), recipe.seed),
        labels=data.train.labels.to(device),
    )


def _set_up_imported(
    recipe: Recipe, init: Bundle, data: Dataset, device: torch.device, described: dict[str, Any]
) -> Setup:
    """Prepare to train the last layers of an imported network, from a probe's classifier."""
    features = embed(init, [data.train, data.validation])
    probe = fit(features.first(len(data.train)), data.classes, recipe.seed)
    network = probe.network()
    assert isinstance(network, BackboneNetwork) and network.head is not None
    with torch.no_grad():  # so that the loss is that of the calibrated confidence
        for parameter in network.head.parameters():
            parameter.div_(probe.temperature)
    freeze_all_but_last(network.body, LAST_LAYERS)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimisers = make_optimisers(network, recipe, recipe.batch_size)
    size = probe.preprocess.input_size
    return Setup(
        recipe=recipe,
        data=data,
        environment=described,
        device=device,
        init=init,
        architecture=probe.architecture,
        preprocess=probe.preprocess,
        network=network,
        class_weights=class_weights(data.train.labels, len(data.classes), recipe.class_balance).to(
            device
        ),
        teacher=None,
        batch_size=fit_batch(recipe.batch_size, len(data.train)),
        optimisers=optimisers,
        schedules=make_schedules(optimisers, recipe),
        selector=None,
        augmenter=Augmenter(data.train.pictures, recipe.augment.at(size), recipe.seed),
        labels=data.train.labels.to(device),
        start=Start(features, probe),
    )


def fit_batch(wanted: int, pictures: int) -> int:
    """The batch size for a training set: smaller where ``wanted`` leaves an epoch under 20 steps.

    Not below 32, which batch normalisation needs for its statistics, unless there are fewer
    pictures.
    """
    return min(wanted, max(pictures // 20, 32), pictures)


def _check(
    recipe: Recipe, architecture: Architecture, init: Bundle | None, classes: tuple[str, ...]
) -> None:
    if recipe.shaping.likeness:
        try:  # now, not after the training
            check_shaping(recipe.shaping, architecture)
        except ValueError as error:
            raise RecipeError(f"the embedding cannot be shaped: {error}") from error
    if init and recipe.distil and init.classes != classes:
        raise RecipeError(
            f"distil is {recipe.distil}, but the model in init has the classes"
            f" {', '.join(init.classes)} and the data has {', '.join(classes)}; use data with the"
            " same classes, or set distil to 0"
        )


def _architecture(recipe: Recipe, size: int, classes: int) -> Architecture:
    name: ArchitectureName = "resnet18" if recipe.architecture == "resnet18" else "whitened-resnet"
    return Architecture(
        name,
        classes,
        recipe.widths,
        recipe.depth,
        recipe.dropout,
        shrink=max(size // 32, 1) if name == "whitened-resnet" else 1,
    )


def _sample(pictures: Tensor) -> Tensor:
    """Enough pictures for the statistics of their patches: 5,000 of 32 pixels, fewer if larger.

    Spread over the whole set, because a folder's pictures come class by class.
    """
    count = max(5000 * 32 * 32 // pictures.shape[-1] ** 2, 100)
    return pictures[:: max(len(pictures) // count, 1)][:count]


def _fresh(architecture: Architecture, sample: Tensor, device: torch.device) -> nn.Module:
    """A network with fresh weights, its first layer whitened on a sample of normalised pictures."""
    network = build(architecture)
    if isinstance(network, WhitenedResNet):
        network.whiten(sample)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _measure(pictures: Tensor) -> Preprocess:
    """The preprocessing for uint8 ``pictures``: mean and deviation of each channel's pixels."""
    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in pictures.split(5000):  # type: ignore[no-untyped-call]
        values = part.double() / 255
        total += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
    pixels = pictures.numel() / 3
    mean = total / pixels
    std = (squares / pixels - mean.square()).sqrt().clamp(min=1e-3)
    r, g, b = (round(float(v), 4) for v in mean)
    sr, sg, sb = (round(float(v), 4) for v in std)
    return Preprocess(pictures.shape[-1], (r, g, b), (sr, sg, sb))
