"""The description of a bundle's network. Reading it does not need torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

ArchitectureName = Literal["whitened-resnet", "resnet18"]
Pooling = Literal["stages", "middle"]
Library = Literal["timm", "torchvision"]


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build a network; stored in the bundle together with its weights.

    Attributes:
        name: ``whitened-resnet`` (the default) or ``resnet18`` (torchvision's, with a CIFAR stem).
        classes: number of classes.
        widths: channels of the three stages of ``whitened-resnet``; the last is the dimension of
            the last features. ``resnet18`` has its own (512) and ignores them.
        depth: convolutions in each stage of ``whitened-resnet``, 2 or 3.
        dropout: share of the features dropped before the classifier during training, 0..1.
        shrink: the factor by which ``whitened-resnet`` reduces the outputs of its first layer in
            each direction, so that pictures larger than 32 pixels cost its stages no more.
        likeness: number of feature dimensions of ``whitened-resnet`` that capture similarity
            within a class, computed from pooled maps; the class itself takes one more dimension
            for each class. 0: the features are the last stage's pooled map.
        rows: number of rows into which the maps are divided before they are pooled for
            ``likeness``: the position of a thing distinguishes pictures, and mirroring keeps its
            row.
        pooling: the maps that ``likeness`` is computed from. ``middle``: the second stage's last
            two, the middle columns weighted most. ``stages``, as in older bundles: the last map
            of each stage, the third one's undivided; for one row, their means and their maxima.
    """

    name: ArchitectureName = "whitened-resnet"
    classes: int = 10
    widths: tuple[int, int, int] = (64, 256, 256)
    depth: int = 2
    dropout: float = 0.0
    shrink: int = 1
    likeness: int = 0
    rows: int = 1
    pooling: Pooling = "stages"

    def __post_init__(self) -> None:
        if self.name not in ("whitened-resnet", "resnet18"):
            raise ValueError(
                f"architecture is {self.name!r}; expected 'whitened-resnet' or 'resnet18'"
            )
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}; a classifier needs at least 2")
        if len(self.widths) != 3 or min(self.widths) < 24:
            raise ValueError(f"widths is {self.widths}; expected three numbers of at least 24")
        if self.depth not in (2, 3):
            raise ValueError(f"depth is {self.depth}; expected 2 or 3 convolutions in each stage")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; expected 0 <= dropout < 1")
        if self.shrink < 1:
            raise ValueError(f"shrink is {self.shrink}; expected a whole number from 1")
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; expected a whole number from 1")
        if self.pooling not in ("stages", "middle"):
            raise ValueError(f"pooling is {self.pooling!r}; expected 'stages' or 'middle'")
        if self.likeness < 0 or (self.likeness and self.name != "whitened-resnet"):
            raise ValueError(
                f"likeness is {self.likeness} for {self.name}; expected at least 0, and 0 for"
                " resnet18"
            )

    def plain(self) -> Architecture:
        """The same network without ``likeness``: its embedding is the last stage's features."""
        return replace(self, likeness=0, rows=1, pooling="stages")

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; ``from_dict`` reads it back."""
        values = asdict(self)
        # Left out, so that bundles older than the field keep their digest.
        defaults = {"depth": 2, "shrink": 1, "likeness": 0, "rows": 1, "pooling": "stages"}
        for name, default in defaults.items():
            if values[name] == default:
                del values[name]
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Architecture:
        """Inverse of ``to_dict``. Raises ValueError or TypeError for unknown values or fields."""
        return Architecture(**{**values, "widths": tuple(values["widths"])})


@dataclass(frozen=True)
class Backbone:
    """A network of another library, named there; stored in the bundle together with its weights.

    Attributes:
        library: ``timm`` or ``torchvision``.
        model: the network's name in that library.
        classes: outputs of the linear classifier; 0 if there is none.
        embedding_head: outputs of the library's last layer where they are an embedding and not
            class scores, as in CLIP's image towers; they are then the features. 0 otherwise.
        centred: a mean is subtracted from the L2-normalised features.
        projection: dimensions that the centred features are projected to; 0 for none.
        head_reads: what the classifier reads: the ``pooled`` features of the network, or the
            L2-normalised ``embedding``, after any projection.
    """

    library: Library
    model: str
    classes: int = 0
    embedding_head: int = 0
    centred: bool = False
    projection: int = 0
    head_reads: Literal["pooled", "embedding"] = "pooled"

    def __post_init__(self) -> None:
        if self.library not in ("timm", "torchvision"):
            raise ValueError(f"library is {self.library!r}; expected 'timm' or 'torchvision'")
        if self.classes < 0 or self.classes == 1:
            raise ValueError(f"classes is {self.classes}; expected 0 for none, or at least 2")
        if self.projection < 0 or self.embedding_head < 0:
            raise ValueError(
                f"projection is {self.projection} and embedding_head {self.embedding_head};"
                " expected 0 for none, or more"
            )
        if self.projection and not self.centred:
            raise ValueError(
                f"projection is {self.projection} and centred false; expected true: only centred"
                " features are projected"
            )
        if self.head_reads not in ("pooled", "embedding"):
            raise ValueError(f"head_reads is {self.head_reads!r}; expected 'pooled' or 'embedding'")

    @property
    def name(self) -> str:
        """The network's source, such as ``timm:tf_efficientnet_lite0``."""
        return f"{self.library}:{self.model}"

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; ``read_architecture`` reads it back."""
        # Without what is at its default, so that a new field changes no digest.
        named = {"library": self.library, "model": self.model, "classes": self.classes}
        defaults = Backbone(self.library, self.model)
        return named | {
            name: value for name, value in asdict(self).items() if value != getattr(defaults, name)
        }


def read_architecture(values: dict[str, Any]) -> Architecture | Backbone:
    """The architecture that ``to_dict`` described.

    Raises:
        ValueError, TypeError: unknown values or fields.
    """
    return Backbone(**values) if "library" in values else Architecture.from_dict(values)
