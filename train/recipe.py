"""What a training run does, as data: every choice has a name, a unit and, where set, a reason."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embed.architecture import ArchitectureName
from train.augment import Augment
from train.proxy import Proxy
from train.selection import Selection
from train.shaping import Shaping


class RecipeError(ValueError):
    """A recipe has an unknown field or a value out of range."""


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        name: for people.
        architecture: ``whitened-resnet`` or ``resnet18``.
        widths: channels of the stages of ``whitened-resnet``.
        depth: convolutions in each of its stages, 2 or 3.
        dropout: share of features dropped before the classifier, 0..1.
        epochs: passes over the training split.
        batch_size: pictures in one step, before ``proxy`` chooses among them; fewer where the
            training set is small.
        optimiser: ``muon`` (convolutions by Muon, the rest by Nesterov SGD), ``sgd`` (Nesterov)
            or ``adamw``.
        lr: peak learning rate; of the convolutions for ``muon``, of everything otherwise. The
            loss is a mean over the batch for ``sgd`` and ``adamw``.
        momentum: of ``sgd`` and of ``muon``'s convolutions; AdamW's first beta.
        weight_decay: of ``sgd`` (coupled) and ``adamw`` (decoupled), on weights, not on biases. Of
            ``muon`` on what its Nesterov SGD trains, where 5e-4 is airbench94's.
        schedule: ``linear`` or ``cosine`` decay to zero over the run, step by step.
        warmup: share of the run over which the rate first rises linearly, 0..1.
        label_smoothing: 0..1 (Szegedy et al. 2016, arXiv:1512.00567).
        augment: what is done to training pictures.
        size: side of the network's input, 32..224 pixels. Beyond 32 ``whitened-resnet`` reduces
            the outputs of its first layer, so that the cost stays about the same.
        low_resolution: side in pixels that pictures are reduced to in the first epochs; it and
            the pixels of ``augment`` are for a size of 32 and grow with the size.
        low_share: share of the epochs, from the first on, that train at ``low_resolution``, 0..1.
        selection: which pictures the epochs in the middle of the run use.
        proxy: which pictures of a batch are trained on.
        shaping: what is done to the embedding after training.
        validation: share of the training split held out to choose by, 0..0.5; used where the
            corpus has no validation split of its own.
        test: share held out for the one test at the end, 0..0.5; likewise.
        class_balance: 0 weighs all pictures alike, values towards 1 all classes: a picture
            weighs ``(1 - b) / (1 - b**n)`` in a class of ``n`` (Cui et al. 2019,
            arXiv:1901.05555), scaled to a mean of 1.
        init: what training starts from: None for fresh weights, ``pretrained`` for the model that
            ships, or the folder of a bundle. Its architecture, mean and deviation then count.
        old_rate: learning rate of the layers that come from there, as a share of that of fresh
            ones, 0..1.
        distil: share of the target that the model of ``init`` gives, 0..1, the labels giving the
            rest (``train.teacher``). Above 0 its classifier and its statistics of batch
            normalisation are kept too: the run goes on with the same pictures and classes.
        average: share of what was learned in the weights that are kept, 0..1; the rest is what the
            run started from (Wortsman et al. 2022, arXiv:2109.01903). For a run with ``distil``.
        patience: epochs without a better validation loss after which training stops; None: never.
        seed: of the held-out split, the first weights, the order and the augmentation.
    """

    name: str = "custom"
    architecture: ArchitectureName = "whitened-resnet"
    widths: tuple[int, int, int] = (64, 256, 256)
    depth: int = 2
    dropout: float = 0.0
    epochs: int = 30
    batch_size: int = 128
    optimiser: Literal["muon", "sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["linear", "cosine"] = "cosine"
    warmup: float = 0.1
    label_smoothing: float = 0.1
    augment: Augment = Augment()
    size: int = 32
    low_resolution: int = 24
    low_share: float = 0.0
    selection: Selection = Selection()
    proxy: Proxy = Proxy()
    shaping: Shaping = Shaping()
    validation: float = 0.05
    test: float = 0.0
    class_balance: float = 0.0
    init: str | None = None
    old_rate: float = 0.1
    distil: float = 0.0
    average: float = 1.0
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self, "epochs", self.epochs >= 1, "at least 1")
        _check(self, "batch_size", self.batch_size >= 2, "at least 2")
        _check(self, "lr", self.lr > 0, "above 0")
        _check(self, "momentum", 0 <= self.momentum < 1, "0 <= momentum < 1")
        _check(self, "weight_decay", self.weight_decay >= 0, "at least 0")
        _check(self, "warmup", 0 <= self.warmup < 1, "0 <= warmup < 1")
        _check(self, "label_smoothing", 0 <= self.label_smoothing < 1, "0 <= smoothing < 1")
        _check(self, "low_resolution", self.low_resolution >= 16, "at least 16 pixels")
        _check(self, "low_share", 0 <= self.low_share < 1, "0 <= low_share < 1")
        _check(self, "validation", 0 < self.validation <= 0.5, "0 < validation <= 0.5")
        _check(self, "size", 32 <= self.size <= 224, "32 to 224 pixels")
        _check(self, "test", 0 <= self.test <= 0.5, "0 <= test <= 0.5")
        _check(self, "class_balance", 0 <= self.class_balance < 1, "0 <= class_balance < 1")
        _check(self, "init", self.init is None or self.init != "", "none or a bundle")
        _check(self, "old_rate", 0 <= self.old_rate <= 1, "0 <= old_rate <= 1")
        _check(self, "distil", 0 <= self.distil <= 1, "0 <= distil <= 1")
        _check(self, "distil", self.init is not None or not self.distil, "0 without init")
        _check(self, "average", 0 < self.average <= 1, "0 < average <= 1")
        _check(self, "average", self.average == 1 or self.distil > 0, "1 without distil")
        _check(self, "patience", self.patience is None or self.patience >= 1, "at least 1")
        _check(self, "optimiser", self.optimiser in ("muon", "sgd", "adamw"), "muon, sgd or adamw")
        _check(self, "schedule", self.schedule in ("linear", "cosine"), "linear or cosine")

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; ``from_dict`` reads it back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """Inverse of ``to_dict``; missing fields take their defaults.

        Raises:
            RecipeError: a field that recipes do not have, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(Recipe)}
        if unknown := sorted(set(values) - known):
            raise RecipeError(
                f"a recipe has no field {', '.join(unknown)}; expected {', '.join(sorted(known))}"
            )
        values = dict(values)
        try:
            if "augment" in values:
                values["augment"] = Augment(**values["augment"])
            if "selection" in values:
                values["selection"] = Selection(**values["selection"])
            if "shaping" in values:
                values["shaping"] = Shaping(**values["shaping"])
            if "proxy" in values:
                values["proxy"] = Proxy(**values["proxy"])
            if "widths" in values:
                values["widths"] = tuple(values["widths"])
            return Recipe(**values)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"the recipe cannot be used: {error}") from error


def _check(recipe: Recipe, name: str, ok: bool, expected: str) -> None:
    if not ok:
        raise RecipeError(f"{name} is {getattr(recipe, name)!r}; expected {expected}")


# The default of `lookalike train`. Its parts are airbench94_muon's (Jordan 2024,
# arXiv:2404.00498, and github.com/KellerJordan/cifar10-airbench): Muon on the convolutions,
# whitened stem, alternating flip, label smoothing 0.2, linear decay. Ours: a residual network half
# as wide again, half the batch (a CPU gains nothing from larger ones) with the rate lowered by the
# square root of that, and first epochs at 24 pixels, which cost half as much.
QUICK = Recipe(
    name="quick",
    widths=(96, 320, 320),
    epochs=14,
    batch_size=1000,
    optimiser="muon",
    lr=0.17,
    momentum=0.6,
    schedule="linear",
    warmup=0.0,
    label_smoothing=0.2,
    augment=Augment(flip="alternating", translate=2),
    low_share=0.36,
    shaping=Shaping(likeness=256),
    validation=0.02,
)

# The strongest that fits 12 M parameters, 1 GFLOP and a file of 16 MiB; this one ships. Shape,
# translation, cutout, and the choice of half of each batch by a proxy are airbench96_faster's; Muon
# and its rates airbench94_muon's, lowered by the square root of the smaller step; the first
# third at 24 pixels is ours, as in `quick`.
BEST = Recipe(
    name="best",
    widths=(128, 384, 416),
    depth=3,
    epochs=50,
    batch_size=1000,
    optimiser="muon",
    lr=0.12,
    momentum=0.6,
    schedule="linear",
    warmup=0.0,
    label_smoothing=0.2,
    augment=Augment(flip="alternating", translate=4, cutout=12),
    low_share=0.34,
    proxy=Proxy(keep=0.5),
    shaping=Shaping(likeness=256),
    validation=0.02,
)

# `best` gone on with, taught by itself (`train.teacher`): what the model answers for a picture and
# its mirror image together becomes what it should answer for one of them, on pictures with boxes
# exchanged, all of them and not the hard half, which is learned by heart by then. A quarter of the
# rate of `best`, for what was learned should stay; and of the two models, before and after, the
# mean of their weights is better than either. What it starts from must have held out the same
# pictures, those of seed 0.
BEST_TAUGHT = dataclasses.replace(
    BEST,
    name="best-taught",
    init="pretrained",
    old_rate=0.25,
    distil=0.6,
    average=0.5,
    epochs=4,
    batch_size=500,
    warmup=0.05,
    augment=Augment(flip="alternating", translate=4, cutmix=1.0),
    low_share=0.0,
    proxy=Proxy(),
)

# The usual one for ResNet-18 on CIFAR-10 (github.com/kuangliu/pytorch-cifar), for a GPU.
RESNET18 = Recipe(
    name="resnet18",
    architecture="resnet18",
    epochs=100,
    augment=Augment(flip="random", translate=4),
)

# A user's own pictures, from a hundred to some ten thousand, starting from a trained model. Before
# the first epoch batch normalisation takes its statistics from the new pictures, and the new
# classifier is fitted to the old features (`train.initial`); then everything learns, the old layers
# at a fifth of the rate of `quick` (which is why `lr` is that of `quick`), after a tenth of the run
# in which rates rise, for momentum knows nothing yet. Dropout and label smoothing are what a study
# on hands found, the rate lies between what it found and a tenth (docs/benchmarks.md). The loss is
# balanced by the effective number of pictures of each class, with the b = 0.999 of Cui et al. 2019
# for sets of this size. Small sets need more change of their pictures: a little turning and light
# beside mirroring and shifts. A mirrored letter is another thing: set `flip` to none for such
# pictures.
FINETUNE = Recipe(
    name="finetune",
    init="pretrained",
    dropout=0.4,
    old_rate=0.2,
    epochs=20,
    batch_size=250,
    optimiser="muon",
    lr=0.17,
    momentum=0.6,
    schedule="linear",
    warmup=0.1,
    label_smoothing=0.05,
    augment=Augment(flip="random", translate=3, rotate=10, brightness=0.1, contrast=0.2),
    class_balance=0.999,
    validation=0.15,
    test=0.15,
)

RECIPES = {recipe.name: recipe for recipe in (QUICK, BEST, BEST_TAUGHT, FINETUNE, RESNET18)}


def read_recipe(name_or_path: str) -> Recipe:
    """A named recipe, or one read from a JSON file.

    Raises:
        RecipeError: neither a name nor a readable recipe file.
    """
    if name_or_path in RECIPES:
        return RECIPES[name_or_path]
    try:
        values = json.loads(Path(name_or_path).read_text())
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{name_or_path!r} is neither a recipe ({', '.join(RECIPES)}) nor a JSON file with"
            f" one: {error}"
        ) from error
    if not isinstance(values, dict):
        raise RecipeError(f"{name_or_path} holds {type(values).__name__}; expected a JSON object")
    return Recipe.from_dict(values)
