"""What a training run does, as data: every choice has a name, a unit and, where set, a reason.

Imports nothing else of ``train``, so that every other module can import it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embed.architecture import Backbone
from embed.bundle import Bundle
from embed.imported.photo_encoder import SOURCE

OWN = ("whitened-resnet", "resnet18")
"""The architectures that are trained from fresh weights."""
PHOTO_ENCODER = "photo-encoder"
"""The value of ``init`` that stands for ``embed.imported.photo_encoder``."""
_LAYERS = "all for a network of ours, and last or classifier for an imported one"


class RecipeError(ValueError):
    """A recipe has an unknown field or a value out of range."""


@dataclass(frozen=True)
class Augment:
    """Random changes to training pictures that keep their class.

    Pixels are for pictures of 32 pixels; ``at`` scales them to another size.

    Attributes:
        flip: mirror left to right: ``random`` half of the time, ``alternating`` each picture every
            other epoch (Jordan 2024, arXiv:2404.00498, section 3.6), or ``none``.
        translate: largest shift in pixels in each direction; the border is reflected.
        rotate: largest rotation in degrees, either way.
        brightness: largest change added to all pixels, as a share of the full range, 0..1.
        contrast: largest relative change of each pixel's distance from the picture's mean, 0..1.
        cutout: side in pixels of a square set to the mean (DeVries 2017, arXiv:1708.04552).
        cutmix: share of the batches in which a box of each picture comes from another picture, and
            the same share of the label with it (Yun et al. 2019, arXiv:1905.04899), 0..1.
    """

    flip: Literal["none", "random", "alternating"] = "random"
    translate: int = 4
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    cutout: int = 0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if self.flip not in ("none", "random", "alternating"):
            raise ValueError(f"flip is {self.flip!r}; expected none, random or alternating")
        for name in ("translate", "rotate", "brightness", "contrast", "cutout", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")
        if self.cutmix > 1:
            raise ValueError(f"cutmix is {self.cutmix}; expected 0 to 1")

    def at(self, size: int) -> Augment:
        """The same augmentation for pictures of ``size`` pixels."""
        scale = size / 32
        return dataclasses.replace(
            self, translate=round(self.translate * scale), cutout=round(self.cutout * scale)
        )


@dataclass(frozen=True)
class BatchSelection:
    """Train on the hardest part of each batch, chosen by the loss of a small proxy network.

    Most augmented pictures are easy and teach little. The proxy, at a twentieth of the cost, sees
    them all; the network only sees those with the proxy's largest losses. This halves the FLOPs
    of airbench96_faster at equal accuracy, its source (github.com/KellerJordan/cifar10-airbench;
    the idea goes back to Coleman et al. 2020, arXiv:1906.11829).

    Attributes:
        keep: share of each batch that the network trains on, 0..1; 1 turns selection off.
        widths: channels of the proxy's stages.
        every: the proxy itself learns from the selected pictures of every n-th batch.
    """

    keep: float = 1.0
    widths: tuple[int, int, int] = (32, 64, 64)
    every: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is {self.keep}; expected above 0, at most 1")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; expected at least 1")
        object.__setattr__(self, "widths", tuple(self.widths))

    def kept(self, batch_size: int) -> int:
        """How many pictures of a batch are trained on: at least 2, if the batch has 2."""
        return min(max(round(self.keep * batch_size), 2), batch_size)


@dataclass(frozen=True)
class Shaping:
    """How the embedding is shaped after training (``train.extras.shaping``).

    Attributes:
        likeness: dimensions of the likeness part, which tells pictures of one class apart; 0 keeps
            the last features as they are.
        weight: length of the likeness part relative to the class part's mean length. More finds
            altered copies better, less keeps the classes better apart.
        pictures: maximum number of training pictures to fit the likeness part to.
        rows: number of horizontal bands in which the maps are pooled; 1 pools whole maps.
    """

    likeness: int = 0
    weight: float = 0.9
    pictures: int = 8_000
    rows: int = 2

    def __post_init__(self) -> None:
        if self.likeness < 0:
            raise ValueError(f"likeness is {self.likeness}; expected at least 0")
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; expected at least 1")
        if not self.weight > 0:
            raise ValueError(f"weight is {self.weight}; expected a number above 0")
        if self.pictures < 2:
            raise ValueError(f"pictures is {self.pictures}; expected at least 2")


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        name: for people.
        architecture: ``whitened-resnet``, ``resnet18``, or the source of the imported network in
            ``init``, such as ``timm:tf_efficientnet_lite0``.
        layers: what is trained. ``all``: a network of ours. Of an imported network in ``init``:
            ``classifier``, a new one on its embedding (``train.extras.probe``); ``last``, from
            there on also its last layers (``train.extras.last_layers``).
        widths: channels of the stages of ``whitened-resnet``.
        depth: convolutions in each of its stages, 2 or 3.
        dropout: share of features dropped before the classifier, 0..1.
        epochs: passes over the training split.
        batch_size: pictures in one step, before ``proxy`` selects among them; reduced for small
            training sets (``train.setup.fit_batch``).
        optimiser: ``muon`` (convolutions by Muon, the rest by Nesterov SGD), ``sgd`` (Nesterov)
            or ``adamw``.
        lr: peak learning rate: for ``muon`` that of the convolutions, otherwise that of all
            parameters. For ``sgd`` and ``adamw`` the loss is a mean over the batch.
        momentum: of ``sgd`` and of ``muon``'s convolutions; AdamW's first beta.
        weight_decay: for ``sgd`` (coupled) and ``adamw`` (decoupled), on weights, not on biases.
            For ``muon``, on the parameters trained by SGD, relative to airbench94's 5e-4.
        schedule: ``linear`` or ``cosine`` decay to zero over the run, step by step.
        warmup: share of the run over which the rate first rises linearly, 0..1.
        label_smoothing: 0..1 (Szegedy et al. 2016, arXiv:1512.00567).
        augment: random changes to training pictures.
        size: side of the network's input, 32..224 pixels. Above 32, ``whitened-resnet`` downsamples
            the output of its first layer, so that the cost stays about the same. An imported
            network has a size of its own.
        low_resolution: side in pixels of the pictures in the first epochs. Like the pixels in
            ``augment``, it is for a ``size`` of 32 and scales with ``size``.
        low_share: share of the epochs, from the first on, that train at ``low_resolution``, 0..1.
        proxy: selection of the hardest pictures of each batch by a proxy network.
        shaping: how the embedding is shaped after training.
        validation: share of the training split held out for choosing the epoch, the recipe and
            the temperature, 0..0.5; used only if the corpus has no validation split.
        test: share held out for the final test, 0..0.5; used only if the corpus has no test split.
        class_balance: 0 weights all pictures equally; towards 1, all classes. A picture in a class
            of ``n`` weighs ``(1 - b) / (1 - b**n)`` (Cui et al. 2019, arXiv:1901.05555), scaled to
            a mean of 1.
        init: what training starts from: None for fresh weights, ``pretrained`` for the shipped
            model, ``photo-encoder``, or the folder of a bundle. Architecture, mean and deviation
            are then the bundle's.
        old_rate: learning rate of the layers taken from ``init``, relative to fresh layers, 0..1.
        distil: weight of the ``init`` model's predictions in the target, 0..1; the labels have the
            rest (``train.extras.teacher``). Above 0, the classifier and the batch-normalisation
            statistics of ``init`` are kept too: training continues on the same pictures and
            classes.
        average: weight of the trained weights in the average with those of ``init``, 0..1
            (Wortsman et al. 2022, arXiv:2109.01903). Only with ``distil``.
        patience: stop after this many epochs without a lower validation loss; None never stops.
        seed: for the held-out splits, the initial weights, the order and the augmentation.
    """

    name: str = "custom"
    architecture: str = "whitened-resnet"
    layers: Literal["all", "last", "classifier"] = "all"
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
    proxy: BatchSelection = BatchSelection()
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
        if self.imported:
            _check(self, "size", self.size >= 1, "at least 1 pixel")
        else:
            _check(self, "size", 32 <= self.size <= 224, "32 to 224 pixels")
        _check(self, "test", 0 <= self.test <= 0.5, "0 <= test <= 0.5")
        _check(self, "class_balance", 0 <= self.class_balance < 1, "0 <= class_balance < 1")
        _check(self, "init", self.init is None or self.init != "", "none or a bundle")
        _check(
            self,
            "architecture",
            self.architecture in OWN or self.imported,
            f"{' or '.join(OWN)}; train on top of a network of another library by importing it"
            " (lookalike model import --help) and naming its folder with --init",
        )
        _check(self, "layers", self.layers in ("all", "last", "classifier"), _LAYERS)
        _check(self, "layers", (self.layers == "all") != self.imported, _LAYERS)
        _check(self, "init", self.init is not None or not self.imported, "the imported network")
        _check(self, "old_rate", 0 <= self.old_rate <= 1, "0 <= old_rate <= 1")
        _check(self, "distil", 0 <= self.distil <= 1, "0 <= distil <= 1")
        _check(self, "distil", self.init is not None or not self.distil, "0 without init")
        _check(self, "average", 0 < self.average <= 1, "0 < average <= 1")
        _check(self, "average", self.average == 1 or self.distil > 0, "1 without distil")
        _check(self, "patience", self.patience is None or self.patience >= 1, "at least 1")
        _check(self, "optimiser", self.optimiser in ("muon", "sgd", "adamw"), "muon, sgd or adamw")
        _check(self, "schedule", self.schedule in ("linear", "cosine"), "linear or cosine")

    @property
    def imported(self) -> bool:
        """Whether it trains on top of a network of another library."""
        return self.architecture.startswith(("timm:", "torchvision:"))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; ``from_dict`` reads it back."""
        values = dataclasses.asdict(self)
        if self.layers == "all":  # left out, as in recipes older than the field
            del values["layers"]
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """Inverse of ``to_dict``; missing fields take their defaults.

        Raises:
            RecipeError: an unknown field, or a value out of range.
        """
        values = dict(values)
        try:
            _drop_selection(values)
            fields = {field.name for field in dataclasses.fields(Recipe)}
            if unknown := sorted(set(values) - fields):
                raise RecipeError(
                    f"unknown recipe field {', '.join(unknown)}; expected fields among"
                    f" {', '.join(sorted(fields))}"
                )
            for name, part in _PARTS.items():
                if name in values:
                    values[name] = part(**values[name])
            if "widths" in values:
                values["widths"] = tuple(values["widths"])
            return Recipe(**values)
        except RecipeError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise RecipeError(f"the recipe cannot be used: {error}") from error


_PARTS: dict[str, type[Any]] = {"augment": Augment, "proxy": BatchSelection, "shaping": Shaping}


def _drop_selection(values: dict[str, Any]) -> None:
    """Drop ``selection``, a field of older recipes, which trained some epochs on a subset."""
    selection = values.pop("selection", {})
    share = selection.get("hardest", 1.0) + selection.get("others", 0.0)
    if share < 1:
        raise RecipeError(
            f"the recipe's selection keeps {share:.0%} of the pictures; this version always trains"
            " on all of them: remove the field selection from the recipe and train again, or use"
            " proxy to train on the hardest pictures of each batch"
        )


def _check(recipe: Recipe, name: str, ok: bool, expected: str) -> None:
    if not ok:
        raise RecipeError(f"{name} is {getattr(recipe, name)!r}; expected {expected}")


# The default of `lookalike train`. From airbench94_muon (Jordan 2024, arXiv:2404.00498, and
# github.com/KellerJordan/cifar10-airbench): Muon on the convolutions, whitened stem, alternating
# flip, label smoothing 0.2, linear decay. Ours: a residual network half as wide again; half the
# batch size (a CPU gains nothing from larger batches), with the rate lowered by the square root of
# that; and first epochs at 24 pixels, which cost half as much.
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

# The strongest recipe within 12 M parameters, 1 GFLOP and a file of 16 MiB. Shape, translation,
# cutout and training on half of each batch are airbench96_faster's; Muon and its rates are
# airbench94_muon's, lowered by the square root of the smaller step; training the first third at
# 24 pixels is ours, as in `quick`.
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
    proxy=BatchSelection(keep=0.5),
    shaping=Shaping(likeness=256),
    validation=0.02,
)

# Continues `best` with itself as the teacher (`train.extras.teacher`); the shipped model was made
# with it. The model's mean prediction for a picture and its mirror image becomes the target for
# one of them, on pictures mixed by CutMix. All pictures are used, because the hard half is
# memorised by then. A quarter of the rate of `best` preserves what was learned, and the mean of
# the weights before and after is better than either. The starting model must have held out the
# same pictures, those of seed 0.
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
    proxy=BatchSelection(),
)

# The usual recipe for ResNet-18 on CIFAR-10 (github.com/kuangliu/pytorch-cifar), for a GPU.
RESNET18 = Recipe(
    name="resnet18",
    architecture="resnet18",
    epochs=100,
    augment=Augment(flip="random", translate=4),
)

# For a user's own pictures, a hundred to some ten thousand, starting from a trained model. Before
# the first epoch, batch normalisation takes its statistics from the new pictures and the new
# classifier is fitted to the old features (`train.extras.finetune_init`). Then everything trains,
# the old layers at a fifth of the rate of `quick` (hence `lr`), after a tenth of the run in which
# rates rise, because momentum starts empty. Dropout and label smoothing come from a study on
# hands; the rate lies between that study's and a tenth of it (docs/benchmarks.md). The loss is
# balanced by the effective number of pictures of each class, with b = 0.999 as in Cui et al. 2019
# for sets of this size. Small sets need more augmentation: slight rotation and changes of light as
# well as mirroring and shifts. Set `flip` to none where mirroring changes the class, as for
# letters.
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

# For a user's own photographs, by default: a classifier on the photo encoder's embedding. What is
# not held out for the test trains it; cross-validation chooses its settings, so `validation`, which
# other recipes need, only decides what the report calls these pictures.
PROBE = Recipe(
    name="probe",
    architecture=SOURCE,
    layers="classifier",
    init=PHOTO_ENCODER,
    size=224,
    augment=Augment(flip="none", translate=0),
    validation=0.05,
    test=0.2,
)

# Continues `probe`: the classifier first, then with it the last third of the network's layers, so
# that a random classifier does not spoil them (Kumar et al. 2022, arXiv:2202.10054). Of two
# settings tried on flowers: with `old_rate` 0.1, validation was still improving after 8 epochs.
FINETUNE_IMPORTED = Recipe(
    name="finetune",
    architecture=SOURCE,
    layers="last",
    init=PHOTO_ENCODER,
    size=224,
    epochs=6,
    batch_size=16,
    optimiser="adamw",
    lr=1e-3,
    old_rate=0.3,
    momentum=0.9,
    weight_decay=0.01,
    schedule="cosine",
    warmup=0.1,
    label_smoothing=0.05,
    augment=Augment(flip="random", translate=2),
    validation=0.15,
    test=0.2,
)

RECIPES = {recipe.name: recipe for recipe in (QUICK, BEST, BEST_TAUGHT, FINETUNE, PROBE, RESNET18)}


def recipe_of(bundle: Bundle) -> Recipe:
    """The recipe that a bundle was trained with, without the selection of older versions.

    That of an imported network which was not trained here is ``probe``, for its splits.

    Raises:
        RecipeError: an unknown field, or a value out of range.
    """
    if isinstance(bundle.architecture, Backbone) and "recipe" not in bundle.training:
        return PROBE
    values = dict(bundle.training.get("recipe", {}))
    values.pop("selection", None)  # concerns training only, which is over
    return Recipe.from_dict(values)


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
            f"{name_or_path!r} is neither a named recipe ({', '.join(RECIPES)}) nor a JSON file"
            f" with one: {error}"
        ) from error
    if not isinstance(values, dict):
        raise RecipeError(f"{name_or_path} holds {type(values).__name__}; expected a JSON object")
    return Recipe.from_dict(values)
