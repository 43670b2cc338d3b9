"""Networks of timm and torchvision, with the outputs that ours have: logits and features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embed.architecture import Backbone
from embed.resnet import Output


class BackboneError(ValueError):
    """A network cannot be used: the library does not have it, or it has no pooled features."""


class BackboneNetwork(nn.Module):
    """A network of another library: its pooled features, a linear classifier, a projection.

    Attributes:
        body: normalised pictures ``(n, 3, size, size)`` to features ``(n, d)``.
        head: the classifier; None without classes.
        centre: subtracted from the L2-normalised features, ``(d,)``, or None.
        projection: of the centred features, or None.
    """

    centre: Tensor | None

    def __init__(self, backbone: Backbone, body: nn.Module, dimension: int) -> None:
        super().__init__()
        self.body = body
        self.dimension = backbone.projection or dimension
        self.register_buffer("centre", torch.zeros(dimension) if backbone.centred else None)
        self.projection: nn.Linear | None = None
        if backbone.projection:
            self.projection = nn.Linear(dimension, backbone.projection, bias=False)
        self.reads_embedding = backbone.head_reads == "embedding"
        self.head: nn.Linear | None = None
        if backbone.classes:
            reads = self.dimension if self.reads_embedding else dimension
            self.head = nn.Linear(reads, backbone.classes)

    def forward(self, x: Tensor) -> Output:
        """Normalised pictures ``(n, 3, size, size)``; without classes, logits are ``(n, 0)``."""
        pooled = self.body(x)  # (n, d)
        features = pooled
        if self.centre is not None:
            features = F.normalize(pooled) - self.centre
        if self.projection is not None:
            features = self.projection(features)
        if self.head is None:
            return Output(features[:, :0], features)
        read = F.normalize(features) if self.reads_embedding else pooled
        return Output(self.head(read), features)


def build_backbone(backbone: Backbone, size: int) -> BackboneNetwork:
    """The network with fresh weights, for inputs of ``size`` pixels.

    Raises:
        BackboneError: the library has no such network, or it has no pooled features.
    """
    whole = library_network(backbone, size)
    if backbone.embedding_head:
        body: nn.Module = whole
    else:
        body, _ = without_classifier(whole, backbone)
    return BackboneNetwork(backbone, body, feature_dimension(body, backbone, size))


def library_network(backbone: Backbone, size: int) -> nn.Module:
    """The network as its library builds it, classifier included, with fresh weights.

    Raises:
        BackboneError: the library has no such network, or not for this size.
    """
    outputs = backbone.embedding_head or backbone.classes
    if backbone.library == "timm":
        return _timm_network(backbone.model, size, outputs)
    from torchvision import models

    if backbone.model not in models.list_models(module=models):
        raise BackboneError(
            f"torchvision has no classification network {backbone.model!r}; its names are listed"
            " by torchvision.models.list_models(), for example resnet50"
        )
    options: dict[str, object] = {"num_classes": outputs} if outputs else {}
    if backbone.model in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # fresh weights would take minutes
    network: nn.Module = models.get_model(backbone.model, weights=None, **options)
    return network


def _timm_network(model: str, size: int, outputs: int) -> nn.Module:
    import timm
    from timm.models import get_pretrained_cfg

    if not timm.is_model(model):
        near = timm.list_models(f"*{model.split('.')[0]}*")[:5]
        raise BackboneError(
            f"timm has no network {model!r};"
            f" {'similar names: ' + ', '.join(near) if near else 'see timm.list_models()'}"
        )
    config = get_pretrained_cfg(model)
    # A transformer has an embedding for each position of its input.
    fixed = config is not None and config.fixed_input_size and config.input_size[-1] != size
    try:
        network: nn.Module = timm.create_model(
            model, num_classes=outputs, **({"img_size": size} if fixed else {})
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise BackboneError(
            f"timm cannot build {model} for pictures of {size} pixels: {_brief(error)}"
        ) from error
    return network


def without_classifier(
    network: nn.Module, backbone: Backbone
) -> tuple[nn.Module, nn.Linear | None]:
    """Take the linear classifier off a network of the library.

    Returns:
        The network, which then returns its pooled features, and the classifier; None if it had
        none.

    Raises:
        BackboneError: its classes do not come from a linear layer over pooled features.
    """
    if backbone.library == "timm":
        classifier = network.get_classifier()  # type: ignore[operator]
        if isinstance(classifier, nn.Identity):
            return network, None
        if isinstance(classifier, nn.Linear):
            network.reset_classifier(0)  # type: ignore[operator]
            return network, classifier
    else:
        linear = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
        if linear and not any(
            isinstance(module, nn.Conv2d)
            for module in list(network.modules())[_position(network, linear[-1][1]) :]
        ):
            name, classifier = linear[-1]
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
            return network, classifier
    raise BackboneError(
        f"{backbone.name} has no linear classifier over pooled features, so it has no embedding;"
        " choose another network, for example timm:tf_efficientnet_lite0"
    )


def _position(network: nn.Module, module: nn.Module) -> int:
    return next(i for i, other in enumerate(network.modules()) if other is module)


def feature_dimension(body: nn.Module, backbone: Backbone, size: int) -> int:
    """The length of the features of a network without its classifier.

    Raises:
        BackboneError: it has no pooled features, or cannot process pictures of this size.
    """
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BackboneError(
            f"{backbone.name} cannot process pictures of {size} pixels: {_brief(error)}"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise BackboneError(
            f"{backbone.name} has no pooled features: it returned {shape} for one picture, expected"
            " (1, d); choose another network, for example timm:tf_efficientnet_lite0"
        )
    return int(features.shape[1])


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
