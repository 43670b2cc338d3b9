"""Makes bundles of other people's networks: architectures and weights of timm and torchvision."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embed.architecture import Backbone
from embed.backbones import (
    BackboneError,
    BackboneNetwork,
    feature_dimension,
    library_network,
    without_classifier,
)
from embed.bundle import Bundle
from embed.imported.packaged_weights import PACKAGES, packaged_state, packaged_weights
from embed.preprocess import Interpolation, Preprocess, Resize

State = Mapping[str, Tensor]


class ModelImportError(ValueError):
    """A source cannot be made into a bundle."""


@dataclass(frozen=True)
class _Origin:
    """What a library says about a network and its weights."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float
    interpolation: str
    classes: tuple[str, ...] | None
    licence: str
    weights: str


def import_model(
    source: str,
    weights: Path | State | None = None,
    *,
    size: int | None = None,
    resize: Resize | None = None,
    classes: Sequence[str] | None = None,
    origin: str | None = None,
) -> Bundle:
    """Make a bundle of a network of timm or torchvision.

    Args:
        source: ``torchvision:NAME``, ``torchvision:NAME:WEIGHTS`` or ``timm:NAME``.
        weights: a safetensors file, or a state dict that ``torch.load(weights_only=True)`` reads,
            or a state dict; None to let the library find or download its own.
        size: side of the input in pixels; None for the size that the weights were trained with.
        resize: how pictures become square; None for a central crop as in the library's evaluation.
        classes: names of the classifier's classes; None for the library's names, if it has any.
        origin: where ``weights`` come from, for the model card; None for the file's name.

    Raises:
        ModelImportError: an unknown source, weights that cannot be had or are of another network,
            or a network without pooled features.
    """
    library, name, variant = _parse(source)
    try:
        if library == "timm":
            about, state = _timm(name, weights, size)
        else:
            about, state = _torchvision(name, variant, weights)
        size = size or about.size
        backbone = _backbone(library, name, state, size, classes)
        network = _loaded(backbone, state, size, source)
    except BackboneError as error:
        raise ModelImportError(str(error)) from error
    names = _class_names(backbone, classes, about)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    return Bundle(
        architecture=backbone,
        preprocess=Preprocess(
            size,
            about.mean,
            about.std,
            resize or "crop",
            about.crop if resize in (None, "crop") else 1.0,
            _interpolation(about.interpolation),
        ),
        classes=names,
        weights=arrays,
        training={
            "source": source,
            "weights": origin or about.weights,
            "weights_sha256": _fingerprint(arrays),
            "licence": about.licence,
            "parameters": sum(int(a.size) for a in arrays.values() if a.dtype == np.float32),
        },
    )


def model_card(bundle: Bundle) -> str:
    """The model card of an imported bundle, Markdown."""
    about, network, pre = bundle.training, bundle.architecture, bundle.preprocess
    classes = f"{len(bundle.classes):,} classes" if bundle.classes else "no classes"
    return f"""# {network.name}

A network of another library, imported with `lookalike model import {about["source"]}`.

| | |
|---|---|
| Source | `{about["source"]}` |
| Weights | {about["weights"]} |
| SHA-256 of the weights | `{about["weights_sha256"]}` |
| Licence of the weights | {about["licence"]} |
| Parameters | {about["parameters"] / 1e6:.1f} M |
| Input | {pre.input_size} x {pre.input_size} pixels, {pre.resize}, {pre.interpolation} |
| Classifier | {classes} |
"""


def _parse(source: str) -> tuple[str, str, str | None]:
    library, _, rest = source.partition(":")
    name, _, variant = rest.partition(":")
    if library not in ("timm", "torchvision") or not name or (variant and library == "timm"):
        raise ModelImportError(
            f"the source is {source!r}; expected torchvision:NAME, torchvision:NAME:WEIGHTS or"
            " timm:NAME, for example timm:tf_efficientnet_lite0"
        )
    return library, name, variant or None


def _timm(name: str, weights: Path | State | None, size: int | None) -> tuple[_Origin, State]:
    import timm
    from timm.models import get_pretrained_cfg

    if not timm.is_model(name):
        library_network(Backbone("timm", name), size or 224)  # raises, with similar names
    config = get_pretrained_cfg(name)
    data = timm.data.resolve_data_config(pretrained_cfg={} if config is None else config.to_dict())
    about = _Origin(
        size=int(data["input_size"][-1]),
        mean=_triple(data["mean"]),
        std=_triple(data["std"]),
        crop=float(data["crop_pct"]),
        interpolation=str(data["interpolation"]),
        classes=None,
        licence=(config.license if config is not None else None) or "not stated by timm",
        weights=f"timm's pretrained weights {_tagged(name, config)}",
    )
    if weights is not None:
        return _from_file(about, weights)
    if (packaged := packaged_weights(name)) is not None:
        about = replace(about, weights=f"the package {PACKAGES[name]}")
        return about, packaged_state(name, packaged)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each retry
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds of errors
        raise ModelImportError(
            f"the weights of timm:{name} cannot be downloaded ({_brief(error)}); download them"
            " elsewhere and give the file with --weights"
        ) from error
    return about, network.state_dict()


def _tagged(name: str, config: Any) -> str:
    if config is None or not config.tag or "." in name:
        return name
    return f"{name}.{config.tag}"


def _torchvision(
    name: str, variant: str | None, weights: Path | State | None
) -> tuple[_Origin, State]:
    from torchvision import models

    if name not in models.list_models(module=models):
        library_network(Backbone("torchvision", name), 224)  # raises
    choices = models.get_model_weights(name)
    try:
        chosen = choices[variant] if variant else choices.DEFAULT
    except KeyError:
        raise ModelImportError(
            f"torchvision:{name} has no weights {variant!r}; expected one of"
            f" {', '.join(choices.__members__)}"
        ) from None
    preset = chosen.transforms()
    about = _Origin(
        size=int(preset.crop_size[0]),
        mean=_triple(preset.mean),
        std=_triple(preset.std),
        crop=preset.crop_size[0] / preset.resize_size[0],
        interpolation=preset.interpolation.value,
        classes=tuple(chosen.meta["categories"]),
        licence="BSD-3-Clause for torchvision; see its documentation for the weights",
        weights=f"torchvision's {chosen} ({chosen.url})",
    )
    if weights is not None:
        return _from_file(about, weights)
    try:
        return about, chosen.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ModelImportError(
            f"the weights of torchvision:{name} cannot be downloaded ({_brief(error)}); download"
            f" {chosen.url} elsewhere and give the file with --weights"
        ) from error


def _from_file(about: _Origin, weights: Path | State) -> tuple[_Origin, State]:
    if not isinstance(weights, Path):
        return about, weights
    return replace(about, weights=f"the file {weights.name}"), read_state(weights)


def read_state(path: Path) -> State:
    """The state dict in a file, safetensors or of ``torch.save``; nothing in it is executed.

    Raises:
        ModelImportError: the file cannot be read as one.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of errors
        raise ModelImportError(
            f"{path} cannot be read as weights ({_brief(error)}); expected a safetensors file or a"
            " state dict that torch.load(weights_only=True) reads"
        ) from error
    # Training programs wrap the state in a checkpoint.
    for key in ("state_dict_ema", "state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelImportError(f"{path} does not hold a state dict: names and tensors")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _backbone(
    library: str, name: str, state: State, size: int, classes: Sequence[str] | None
) -> Backbone:
    """The architecture whose last layer has as many outputs as these weights."""
    plain = Backbone(library, name)  # type: ignore[arg-type]
    key = _classifier_name(plain, size)
    outputs = 0 if f"{key}.weight" not in state else int(state[f"{key}.weight"].shape[0])
    if outputs and "clip" in name and classes is None and not _imagenet(outputs):
        return Backbone(library, name, embedding_head=outputs)  # type: ignore[arg-type]
    return Backbone(library, name, classes=0 if outputs == 1 else outputs)  # type: ignore[arg-type]


def _classifier_name(plain: Backbone, size: int) -> str:
    if plain.library == "timm":
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(plain.model)
        key = "head" if config is None else config.classifier
        return key if isinstance(key, str) else str((key or ("head",))[0])
    modules = library_network(plain, size).named_modules()
    linear = [name for name, module in modules if isinstance(module, nn.Linear)]
    return linear[-1] if linear else "classifier"


def _loaded(backbone: Backbone, state: State, size: int, source: str) -> BackboneNetwork:
    """The network with these weights, which must be all of its own and no others."""
    whole = library_network(backbone, size)
    state = _adapted(whole, state)
    own = whole.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if missing or unknown or wrong:
        found = {"missing": missing, "unknown": unknown, "of another shape": sorted(wrong)}
        what = ", ".join(_some(words, names) for words, names in found.items() if names)
        raise ModelImportError(
            f"the weights are not those of {source} ({what}); choose the network that they were"
            " trained for"
        )
    whole.load_state_dict(
        {
            name: value.float() if value.is_floating_point() else value
            for name, value in state.items()
        }
    )
    bad = [n for n, v in whole.state_dict().items() if not bool(torch.isfinite(v).all())]
    if bad:
        raise ModelImportError(f"the weight {bad[0]} has values that are not finite numbers")
    head = None
    if backbone.embedding_head:
        body: nn.Module = whole
    else:
        body, head = without_classifier(whole, backbone)
    network = BackboneNetwork(backbone, body, feature_dimension(body, backbone, size))
    if network.head is not None and head is not None:
        bias = torch.zeros(backbone.classes) if head.bias is None else head.bias.detach()
        network.head.load_state_dict({"weight": head.weight.detach(), "bias": bias})
    return network.eval()


def _adapted(network: nn.Module, state: State) -> State:
    """The state with names and sizes as the network has them, by timm's own conversion."""
    if state.keys() == network.state_dict().keys() and all(
        value.shape == state[name].shape for name, value in network.state_dict().items()
    ):
        return state
    convert = getattr(
        importlib.import_module(type(network).__module__), "checkpoint_filter_fn", None
    )
    if convert is None:
        return state
    try:
        converted: State = convert(dict(state), network)
    except Exception:  # noqa: BLE001 - made for the network's own checkpoints, not for any
        return state
    return converted


def _class_names(
    backbone: Backbone, classes: Sequence[str] | None, about: _Origin
) -> tuple[str, ...]:
    if classes is not None:
        if len(classes) != backbone.classes:
            raise ModelImportError(
                f"{len(classes)} class names were given, but the network has {backbone.classes}"
                " outputs; give one name for each, in their order"
            )
        return _distinct(classes)
    if about.classes is not None and len(about.classes) == backbone.classes:
        return _distinct(about.classes)
    return _distinct(_imagenet(backbone.classes) or [f"class {i}" for i in range(backbone.classes)])


def _imagenet(outputs: int) -> list[str]:
    """ImageNet's class names for a classifier with this many outputs; empty for other numbers."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if outputs == 1000:
        from torchvision.models import ResNet50_Weights

        return list(ResNet50_Weights.DEFAULT.meta["categories"])
    subset = infer_imagenet_subset({"num_classes": outputs})
    if subset is None:
        return []
    info = ImageNetInfo(subset)
    return [name.split(",")[0] for name in info.label_descriptions()]


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """ImageNet has two classes called crane: the second becomes ``crane (2)``."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(distinct)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = values
    return float(r), float(g), float(b)


def _interpolation(name: str) -> Interpolation:
    # timm's "random" is of training; evaluation uses bilinear or bicubic.
    return "bicubic" if name == "bicubic" else "bilinear"


def _fingerprint(arrays: Mapping[str, Any]) -> str:
    sha256 = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha256.update(name.encode())
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


def _some(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{what}: {', '.join(names[:2])}{more}"


def _brief(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
