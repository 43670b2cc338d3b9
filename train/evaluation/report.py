"""Presents an evaluation to people: an HTML report, and the model card of a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from embed.architecture import Backbone
from embed.backbones import build_backbone
from embed.bundle import Bundle
from embed.corpus import CIFAR10_CLASSES
from embed.resnet import build, count_flops
from train.data import Dataset, Split
from train.evaluation import baselines
from train.evaluation.evaluate import Evaluation
from train.evaluation.inspection import Mistake, Neighbour
from train.evaluation.metrics import BINS
from train.evaluation.search_quality import SearchQuality, evaluation_splits
from train.evaluation.sprite import Sprite, Tile
from train.page import render

MAX_MISTAKES = 60
"""Maximum number of misclassified pictures shown."""
MAX_LABEL_ERRORS = 30
"""Maximum number of likely label errors shown."""
MAX_DUPLICATES = 30
"""Maximum number of near-duplicates shown."""
NEIGHBOURS = 5
"""Number of neighbours shown with a picture."""
MAX_MATRIX = 40
"""Maximum number of classes for which the confusion matrix is drawn."""
MAX_CONFUSIONS = 10
"""Maximum number of confusions listed."""


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix; ``shade`` 0..100 is the strength of its colour."""

    count: int
    shade: int
    correct: bool
    label: str
    predicted: str


@dataclass(frozen=True)
class Card:
    """A picture with its description, and some of its neighbours with theirs."""

    tile: Tile
    about: Mistake | Neighbour
    neighbours: tuple[tuple[Tile, Neighbour], ...]


@dataclass(frozen=True)
class Dot:
    """A picture on the map: position in percent, class, and the wrong class predicted if any."""

    left: float
    top: float
    tile: Tile
    label: int
    wrong: str | None


def write_report(
    evaluation: Evaluation,
    data: Dataset,
    bundle: Bundle,
    path: Path,
    others: dict[str, SearchQuality] | None = None,
) -> None:
    """Write one self-contained HTML file, which loads nothing over the network.

    Args:
        evaluation: the results.
        data: the data of the evaluation; its pictures are shown.
        bundle: the evaluated model.
        path: the file to write; its folder is created if needed.
        others: the search of other models on the same data, by name, for comparison.
    """
    _, queries, gallery = evaluation_splits(data)
    splits = {evaluation.split: queries, **gallery}
    pictures = Sprite(quality=80, side=min(bundle.preprocess.input_size, 48))
    thumbnails = Sprite(quality=45)

    def tile(split: str, row: int) -> Tile:
        return pictures.put(split, row, splits[split].pictures[row])

    def card(about: Mistake | Neighbour, neighbours: Sequence[Neighbour]) -> Card:
        shown = tile(evaluation.split, about.row)
        return Card(shown, about, tuple((tile(n.split, n.row), n) for n in neighbours))

    def cards(mistakes: Sequence[Mistake], most: int) -> list[Card]:
        return [card(mistake, mistake.neighbours[:NEIGHBOURS]) for mistake in mistakes[:most]]

    is_cifar10 = bundle.classes == CIFAR10_CLASSES and evaluation.pictures == 10_000
    html = render(
        Path(__file__).parent / "templates" / "report.html",
        e=evaluation,
        bundle=bundle,
        baselines=baselines if is_cifar10 and evaluation.split == "test" else None,
        model_size=_size(bundle),
        searches={"this model": evaluation.search, **(others or {})},
        matrix=shaded_matrix(evaluation) if 0 < len(evaluation.confusion) <= MAX_MATRIX else None,
        confusions=confusions(evaluation),
        mistakes=cards(evaluation.mistakes, MAX_MISTAKES),
        label_errors=cards(evaluation.label_errors, MAX_LABEL_ERRORS),
        duplicates=[
            card(Neighbour(evaluation.split, d.row, d.label, 1.0), [d.neighbour])
            for d in evaluation.duplicates.pairs[:MAX_DUPLICATES]
        ],
        dots=_dots(evaluation, queries, thumbnails),
        hues=[round(360 * i / len(evaluation.classes)) for i in range(len(evaluation.classes))],
        pictures=pictures,
        thumbnails=thumbnails,
        facts=facts(bundle),
        environment=_rows(evaluation.environment | {"precision": evaluation.precision}),
        recipe=_rows(bundle.training.get("recipe", {})),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _dots(evaluation: Evaluation, queries: Split, sprite: Sprite) -> list[Dot]:
    wrong = {mistake.row: mistake.predicted for mistake in evaluation.mistakes}
    return [
        Dot(
            round(100 * x, 1),
            round(100 * y, 1),
            sprite.put(evaluation.split, row, queries.pictures[row]),
            int(queries.labels[row]),
            wrong.get(row),
        )
        for row, (x, y) in zip(evaluation.map.rows, evaluation.map.positions, strict=True)
    ]


def shaded_matrix(evaluation: Evaluation) -> list[list[Cell]]:
    """The confusion matrix for drawing.

    Correct predictions are shaded by their share of the class, wrong ones relative to the largest
    wrong count, so that confusions are visible however good the model is.
    """
    counts = np.array(evaluation.confusion)
    wrong = counts - np.diag(np.diag(counts))
    most_wrong = max(int(wrong.max()), 1)
    support = np.maximum(counts.sum(1), 1)
    return [
        [
            Cell(
                count=int(counts[i, j]),
                shade=round(100 * float(counts[i, j] / (support[i] if i == j else most_wrong))),
                correct=i == j,
                label=label,
                predicted=predicted,
            )
            for j, predicted in enumerate(evaluation.classes)
        ]
        for i, label in enumerate(evaluation.classes)
    ]


def confusions(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """The most frequent confusions: true class, predicted class, count."""
    names = evaluation.classes
    counts = [
        (names[i], names[j], count)
        for i, row in enumerate(evaluation.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(counts, key=lambda item: -item[2])[:MAX_CONFUSIONS]


def facts(bundle: Bundle) -> list[tuple[str, str]]:
    """How the bundle was trained, as pairs of name and value."""
    training, network = bundle.training, bundle.architecture
    parameters, flops = _size(bundle)
    rows = [
        (
            "network",
            f"{network.name}, {parameters:,} parameters, {flops / 1e6:,.0f} MFLOP per picture",
        ),
        ("temperature", f"{bundle.temperature:.3f}"),
    ]
    if "recipe" in training:
        recipe = training["recipe"]
        rows.append(("recipe", f"{recipe['name']}, seed {recipe['seed']}"))
    if "pictures" in training:
        parts = (f"{count:,} for {name}" for name, count in training["pictures"].items())
        rows.append(("pictures", ", ".join(parts)))
    if "best_epoch" in training:
        # Epochs are counted from 0 in the log and from 1 for people.
        best = training["best_epoch"]
        kept = "none" if best is None else f"number {best + 1}"
        rows.append(("epochs", f"{training['epochs_run']} run, {kept} kept"))
    # That of an imported network counts its statistics too.
    shown = ("recipe", "pictures", "best_epoch", "epochs_run", "parameters")
    rest = {k: v for k, v in training.items() if k not in shown}
    return rows + _rows(rest) + _rows(bundle.metrics)


def model_card(bundle: Bundle, evaluation: Evaluation | None = None) -> str:
    """The model card of a bundle, as Markdown.

    After Mitchell et al. 2019, "Model cards for model reporting" (arXiv:1810.03993).
    """
    network, size = bundle.architecture, bundle.preprocess.input_size
    if isinstance(network, Backbone):
        return _imported_card(bundle, evaluation)
    recipe = bundle.training.get("recipe")
    on_cifar10 = bundle.classes == CIFAR10_CLASSES
    name = "CIFAR-10" if on_cifar10 else f"{len(bundle.classes)} classes of pictures"
    sections = [
        f"# Model card: {network.name} for {name}",
        f"A picture classifier whose last hidden layer serves as an embedding for similarity"
        f" search. Its input is a picture scaled and cropped to {size} x {size} pixels; its output"
        f" is a probability for each of {len(bundle.classes)} classes and an embedding of length"
        " one.",
        f"- Classes: {', '.join(bundle.classes)}\n- Digest: `{bundle.digest}`",
        "## Intended use and limits",
        "For finding and labelling pictures like those that it was trained on.\n\n"
        f"- It always predicts one of its {len(bundle.classes)} classes, even for a picture that"
        " shows none of them. A low confidence is a hint, not a test.\n"
        f"- It sees {size} x {size} pixels. Small details of a picture are lost.\n"
        "- Confidence is calibrated on held-out training pictures; it can be wrong on pictures of"
        " other kinds.\n"
        "- It is not suitable for decisions about people, nor where a mistake does harm.",
        "## Training data",
        _CIFAR10_SOURCE if on_cifar10 else _OTHER_SOURCE,
        "## Results",
        _results(evaluation),
        "## Training",
        _table(facts(bundle)),
    ]
    if recipe is not None:
        sections += [
            "## How to reproduce",
            "Save the recipe below as `recipe.json` and run"
            " `lookalike train --recipe recipe.json --out model`. The same versions, hardware and"
            " number of threads repeat the run exactly; others round differently, and training"
            " amplifies the differences.",
            f"```json\n{json.dumps(recipe, indent=2)}\n```",
        ]
    sections += ["## Licence", _CIFAR10_LICENCE if on_cifar10 else _OTHER_LICENCE]
    return "\n\n".join(sections) + "\n"


def _imported_card(bundle: Bundle, evaluation: Evaluation | None) -> str:
    """The model card of an imported network, possibly trained here on somebody's pictures."""
    network, preprocess, training = bundle.architecture, bundle.preprocess, bundle.training
    recipe = training.get("recipe")
    knows = f"{len(bundle.classes)} classes" if bundle.classes else "no classes"
    limits = [
        "It is not suitable for decisions about people, nor where a mistake does harm. It is not a"
        " medical device.",
        f"It sees {preprocess.input_size} x {preprocess.input_size} pixels ({preprocess.resize})."
        " Small details of a picture are lost.",
    ]
    if bundle.classes:
        limits.insert(
            0,
            f"Its classifier always predicts one of its {len(bundle.classes)} classes, even for"
            " a picture that shows none of them.",
        )
    sections = [
        f"# Model card: {network.name} with {knows}",
        "A network of another library. Its pooled features serve as an embedding of length one for"
        " similarity search.",
        f"- Network: `{training.get('source', network.name)}`\n"
        f"- Weights: {training.get('weights', 'not stated')}\n"
        f"- Licence of the weights: {training.get('licence', 'not stated')}\n"
        + (f"- Classes: {', '.join(bundle.classes)}\n" if bundle.classes else "")
        + f"- Digest of what embeds: `{bundle.digest}`",
        "## Intended use and limits",
        "\n".join(f"- {limit}" for limit in limits),
    ]
    if recipe is not None:
        sections += ["## Training data", _HELD_OUT, "## What was trained", _trained(bundle)]
    sections += ["## Results", _results(evaluation), "## Training", _table(facts(bundle))]
    if recipe is not None:
        sections += ["## Recipe", f"```json\n{json.dumps(recipe, indent=2)}\n```"]
    sections += ["## Licence", "That of the weights, above, and of the pictures trained on."]
    return "\n\n".join(sections) + "\n"


def _trained(bundle: Bundle) -> str:
    outcome = bundle.metrics.get("fine_tuning")
    if outcome is None:
        return (
            "Only the classifier, on the embedding: regularised multinomial logistic regression,"
            " its settings and temperature chosen by cross-validation."
        )
    figures = (
        f"validation accuracy {outcome['validation_accuracy']:.2%} and loss"
        f" {outcome['validation_loss']:.4f}, the probe's {outcome['probe_validation_accuracy']:.2%}"
        f" and {outcome['probe_validation_loss']:.4f}"
    )
    if outcome["ships"] == "probe":
        return (
            "Only the classifier. The last layers were trained as well, but validation did not"
            f" become better by more than chance ({figures}), so this model is the probe that it"
            " started from."
        )
    return f"The classifier and the last layers ({figures})."


_CIFAR10_SOURCE = (
    "CIFAR-10: 60,000 colour pictures of 32 x 32 pixels in ten classes, 50,000 for training and"
    " 10,000 for testing (Krizhevsky 2009, *Learning Multiple Layers of Features from Tiny"
    " Images*, https://www.cs.toronto.edu/~kriz/cifar.html). A share of the training pictures was"
    " held out to choose the epoch and the temperature; the test pictures were used only after"
    " training had ended."
)
_OTHER_SOURCE = (
    "A labelled collection provided by the user, one folder for each class. A share of it was held"
    " out to choose the epoch and the temperature."
)
_HELD_OUT = (
    "A labelled collection provided by the user, one folder for each class. The test pictures"
    " below were held out from it."
)
_CIFAR10_LICENCE = (
    "The weights come under the same terms as the code. CIFAR-10 has no licence of its own: it is a"
    " labelled part of the Tiny Images collection, whose pictures were gathered from the web and"
    " belong to their owners. Check whether that suits your use."
)
_OTHER_LICENCE = (
    "The weights belong to whoever trained them, within their rights to the training pictures."
)


def _results(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "Not evaluated yet; the metrics under Training below are on validation pictures."
    e, retrieval = evaluation, evaluation.retrieval
    rows = []
    if e.accuracy is not None and e.macro is not None and e.calibration is not None:
        rows = [
            ("accuracy, single view", _percent(e.accuracy)),
            ("mean precision, recall, F1", ", ".join(map(_percent, vars(e.macro).values()))),
            (f"expected calibration error, {BINS} bins", _percent(e.calibration.error)),
        ]
    rows += [
        ("search: mean average precision", _percent(retrieval.mean_average_precision)),
        *((f"search: precision at {k}", _percent(p)) for k, p in retrieval.precision_at.items()),
        *_within_classes(e.search),
    ]
    environment = ", ".join(f"{name} {value}" for name, value in _rows(e.environment))
    return (
        f"On {e.pictures:,} {e.split} pictures. Search: {retrieval.queries:,} queries among"
        f" {retrieval.gallery:,} pictures by cosine similarity; pictures of the query's class are"
        f" relevant.\n\n{_table(rows)}\n\nMeasured in {e.precision} with: {environment}."
    )


def _within_classes(search: SearchQuality) -> list[tuple[str, str]]:
    rows = []
    if search.groups is not None:
        fine = search.groups.precision_at.items()
        rows += [(f"search by finer labels: precision at {k}", _percent(p)) for k, p in fine]
    copies = search.copies.recall_at["mean"].items()
    return rows + [(f"altered copies: recall at {k}", _percent(r)) for k, r in copies]


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value.replace('|', '/')} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _size(bundle: Bundle) -> tuple[int, int]:
    """Parameters, and FLOPs (2 x MAC) of one forward pass."""
    architecture, size = bundle.architecture, bundle.preprocess.input_size
    network: torch.nn.Module
    if isinstance(architecture, Backbone):
        network = build_backbone(architecture, size).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, size, size))
        flops = int(counter.get_total_flops())
    else:
        network, flops = build(architecture), count_flops(architecture, size)
    return sum(parameter.numel() for parameter in network.parameters()), flops


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _readable(value)) for name, value in values.items()]


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {part}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _percent(share: float) -> str:
    return f"{share:.2%}"
