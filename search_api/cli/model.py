"""`lookalike model`: networks of other libraries as bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

import click

from embed.preprocess import Resize
from search_api.cli.options import FOLDER, json_option, print_json


class Suggestion(NamedTuple):
    """A network that is worth trying; ``docs/models.md`` says more."""

    source: str
    pixels: int
    parameters: float
    gflop: float
    dimension: int
    licence: str
    good_for: str


SUGGESTIONS = (
    Suggestion(
        "timm:tf_efficientnet_lite0", 224, 4.7, 0.8, 1280, "apache-2.0", "photographs; the default"
    ),
    Suggestion(
        "timm:tf_efficientnet_lite2", 260, 6.1, 1.7, 1280, "apache-2.0", "photographs, finer detail"
    ),
    Suggestion(
        "timm:mobilenetv3_large_100.ra_in1k", 224, 5.5, 0.4, 1280, "apache-2.0", "small machines"
    ),
    Suggestion(
        "timm:mobilenetv4_conv_small.e2400_r224_in1k",
        224,
        3.8,
        0.4,
        1280,
        "apache-2.0",
        "small machines",
    ),
    Suggestion("torchvision:resnet50", 224, 25.6, 8.2, 2048, "see its docs", "comparisons"),
    Suggestion("torchvision:efficientnet_v2_s", 384, 21.5, 16.7, 1280, "see its docs", "detail"),
    Suggestion(
        "timm:convnext_tiny.in12k_ft_in1k",
        224,
        28.6,
        8.9,
        768,
        "apache-2.0",
        "photographs; fine-tuning",
    ),
    Suggestion(
        "timm:vit_small_patch14_dinov2.lvd142m",
        518,
        22.1,
        93.4,
        384,
        "apache-2.0",
        "likeness, parts, textures; --size 224 is nine times faster",
    ),
    Suggestion(
        "timm:vit_base_patch14_dinov2.lvd142m",
        518,
        86.6,
        303.2,
        768,
        "apache-2.0",
        "as above, finer",
    ),
    Suggestion(
        "timm:vit_base_patch32_clip_224.openai",
        224,
        87.8,
        8.8,
        512,
        "apache-2.0",
        "subjects and styles, memes, screenshots",
    ),
    Suggestion(
        "timm:vit_base_patch16_clip_224.laion2b",
        224,
        86.2,
        35.1,
        512,
        "apache-2.0",
        "as above, finer",
    ),
    Suggestion(
        "timm:vit_base_patch16_siglip_224.v2_webli",
        224,
        92.9,
        35.4,
        768,
        "apache-2.0",
        "products, subjects",
    ),
)


@click.group()
def model() -> None:
    """Import networks of timm and torchvision as models."""


@model.command(name="import")
@click.argument("source")
@click.option("--out", type=FOLDER, required=True, help="Folder to write the bundle to.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the weights, safetensors or a state dict. Default: the library's own.",
)
@click.option(
    "--size",
    type=click.IntRange(16, 1024),
    help="Side of the input in pixels. Default: that of the weights.",
)
@click.option(
    "--resize",
    type=click.Choice(get_args(Resize)),
    help="How a picture becomes square. Default: crop, as the library evaluates; squeeze keeps the"
    " whole picture.",
)
@click.option(
    "--classes",
    "classes_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the names of the weights' classes, one per line. Default: the library's names.",
)
@json_option
def import_(
    source: str,
    out: Path,
    weights: Path | None,
    size: int | None,
    resize: Resize | None,
    classes_file: Path | None,
    as_json: bool,
) -> None:
    """Import a network as a bundle, which works wherever a bundle works.

    SOURCE is torchvision:NAME, torchvision:NAME:WEIGHTS or timm:NAME. The weights are downloaded as
    the library does it, unless a file with them is given. Nothing in the file is executed.

    \b
    Examples:
      lookalike model import timm:tf_efficientnet_lite0 --out models/lite0
      lookalike model import torchvision:resnet50:IMAGENET1K_V2 --out models/resnet50
      lookalike model import timm:resnet18 --weights resnet18.safetensors --out models/resnet18
      lookalike up --data ~/Pictures --bundle models/lite0
    """
    from embed.imported.importing import import_model, model_card

    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"{out} is not empty; choose another --out")
    classes = None if classes_file is None else _lines(classes_file)
    bundle = import_model(source, weights, size=size, resize=resize, classes=classes)
    bundle.save(out, model_card(bundle))
    _print(out, as_json)


@model.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def show(bundle: Path, as_json: bool) -> None:
    """Show what a bundle contains, after checking its checksums.

    \b
    Example:
      lookalike model show models/lite0
    """
    _print(bundle, as_json)


@model.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List networks that are worth trying.

    Others of timm.list_pretrained() and torchvision.models.list_models() can be imported, too, if
    they have pooled features. docs/models.md says more about each.

    \b
    Example:
      lookalike model list
    """
    from embed.imported.packaged_weights import packaged_weights

    rows = [
        {**s._asdict(), "installed": packaged_weights(s.source.partition(":")[2]) is not None}
        for s in SUGGESTIONS
    ]
    if as_json:
        print_json(rows)
        return
    click.echo(
        f"{'source':<44} {'pixels':>6} {'params':>7} {'GFLOP':>6} {'numbers':>7}  licence; good for"
    )
    for s, row in zip(SUGGESTIONS, rows, strict=True):
        installed = " (weights are installed)" if row["installed"] else ""
        click.echo(
            f"{s.source:<44} {s.pixels:>6} {s.parameters:>6.1f}M {s.gflop:>6.1f} {s.dimension:>7}"
            f"  {s.licence}; {s.good_for}{installed}"
        )


def _print(folder: Path, as_json: bool) -> None:
    from embed.bundle import Bundle

    bundle = Bundle.load(folder)
    pre, about = bundle.preprocess, bundle.training
    features = bundle.architecture
    values: dict[str, Any] = {
        "folder": str(folder),
        "digest": bundle.digest,
        "network": features.name,
        "input": f"{pre.input_size} x {pre.input_size} pixels, {pre.resize}, {pre.interpolation}",
        "classes": len(bundle.classes),
        "weights": about.get("weights") or about.get("recipe", {}).get("name"),
        "licence": about.get("licence"),
        "fitted": about.get("fit"),
        "metrics": bundle.metrics or None,
    }
    if as_json:
        print_json({**values, "class_names": list(bundle.classes)})
        return
    if bundle.classes:
        first = ", ".join(bundle.classes[:3])
        values["classes"] = f"{len(bundle.classes):,} ({first}{', …' * (len(bundle.classes) > 3)})"
    for name, value in values.items():
        if value not in (None, {}):
            click.echo(f"{name:<11} {_shown(value)}")


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{key} {inner}" for key, inner in value.items() if not isinstance(inner, dict)
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is not UTF-8 text ({error.reason})") from None
