"""An evaluation for people: one HTML file, and the model card of a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from embed.bundle import Bundle
from embed.corpus import CIFAR10_CLASSES
from embed.resnet import build, count_flops
from train import anchors
from train.data import Dataset
from train.evaluate import Evaluation
from train.inspection import Mistake, Neighbour
from train.measures import BINS
from train.search_quality import SearchQuality, evaluated
from train.sprite import Sprite, Tile

MAX_MISTAKES = 60
"""Misclassified pictures shown."""
MAX_LABEL_ERRORS = 30
"""Likely label errors shown."""
MAX_DUPLICATES = 30
"""Near-duplicates shown."""
NEIGHBOURS = 5
"""Neighbours shown beside a picture."""
MAX_MATRIX = 40
"""Classes up to which the confusion matrix is drawn; beyond, only its largest confusions."""
MAX_CONFUSIONS = 10
"""Confusions of one class with another that are listed."""


@dataclass(frozen=True)
class Cell:
    """A field of the confusion matrix; ``shade`` 0..100 is the strength of its colour."""

    count: int
    shade: int
    right: bool
    label: str
    predicted: str


@dataclass(frozen=True)
class Shown:
    """A picture, what is told of it, and the pictures beside it with theirs."""

    tile: Tile
    about: Mistake | Neighbour
    beside: tuple[tuple[Tile, Neighbour], ...]


def write_report(
    evaluation: Evaluation,
    data: Dataset,
    bundle: Bundle,
    path: Path,
    beside: dict[str, SearchQuality] | None = None,
) -> None:
    """Write one self-contained HTML file that asks nothing of the network.

    Args:
        evaluation: what was measured.
        data: the data that it was measured on; its pictures are shown.
        bundle: the model that it was measured of.
        path: the file to write; its folder is made if needed.
        beside: what other models' searches find on the same data, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    _, queries, known = evaluated(data)
    splits = {evaluation.split: queries, **known}
    pictures = Sprite(quality=80, side=min(bundle.preprocess.input_size, 48))
    small = Sprite(quality=45)

    def shown(about: Mistake | Neighbour, others: Sequence[Neighbour], split: str) -> Shown:
        return Shown(
            pictures.put(split, about.row, splits[split].pictures[about.row]),
            about,
            tuple(
                (pictures.put(n.split, n.row, splits[n.split].pictures[n.row]), n) for n in others
            ),
        )

    def looked_at(mistakes: Sequence[Mistake], most: int) -> list[Shown]:
        return [shown(m, m.neighbours[:NEIGHBOURS], evaluation.split) for m in mistakes[:most]]

    whole = bundle.classes == CIFAR10_CLASSES and evaluation.pictures == 10_000
    html = environment.get_template("report.html").render(
        e=evaluation,
        bundle=bundle,
        anchors=anchors if whole and evaluation.split == "test" else None,
        ours=_size(bundle),
        searches={"this model": evaluation.search, **(beside or {})},
        matrix=matrix(evaluation) if len(evaluation.classes) <= MAX_MATRIX else None,
        confusions=confusions(evaluation),
        mistakes=looked_at(evaluation.mistakes, MAX_MISTAKES),
        label_errors=looked_at(evaluation.label_errors, MAX_LABEL_ERRORS),
        duplicates=[
            shown(Neighbour(evaluation.split, d.row, d.label, 1.0), [d.neighbour], evaluation.split)
            for d in evaluation.duplicates.pairs[:MAX_DUPLICATES]
        ],
        dots=_dots(evaluation, data, small),
        hues=[round(360 * i / len(evaluation.classes)) for i in range(len(evaluation.classes))],
        pictures=pictures,
        small=small,
        facts=facts(bundle),
        measured=_named(evaluation.environment | {"precision": evaluation.precision}),
        recipe=_named(bundle.training.get("recipe", {})),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


@dataclass(frozen=True)
class Dot:
    """A picture on the map: its place in percent, its class, and what it was taken for if wrong."""

    left: float
    top: float
    tile: Tile
    label: int
    taken: str | None


def _dots(evaluation: Evaluation, data: Dataset, sprite: Sprite) -> list[Dot]:
    _, queries, _ = evaluated(data)
    taken = {mistake.row: mistake.predicted for mistake in evaluation.mistakes}
    return [
        Dot(
            round(100 * x, 1),
            round(100 * y, 1),
            sprite.put(evaluation.split, row, queries.pictures[row]),
            int(queries.labels[row]),
            taken.get(row),
        )
        for row, (x, y) in zip(evaluation.map.rows, evaluation.map.places, strict=True)
    ]


def matrix(evaluation: Evaluation) -> list[list[Cell]]:
    """The confusion matrix for drawing.

    Right answers are shaded by their share of the class, wrong ones by the largest wrong count,
    so that confusions can be seen however good the model is.
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
                right=i == j,
                label=label,
                predicted=predicted,
            )
            for j, predicted in enumerate(evaluation.classes)
        ]
        for i, label in enumerate(evaluation.classes)
    ]


def confusions(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """The most frequent confusions: true class, what it was taken for, how often."""
    names = evaluation.classes
    found = [
        (names[i], names[j], count)
        for i, row in enumerate(evaluation.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(found, key=lambda item: -item[2])[:MAX_CONFUSIONS]


def facts(bundle: Bundle) -> list[tuple[str, str]]:
    """How the bundle was trained, as pairs of name and value for people."""
    training, network = bundle.training, bundle.architecture
    parameters, flops = _size(bundle)
    found = [
        (
            "network",
            f"{network.name}, {parameters:,} parameters, {flops / 1e6:,.0f} MFLOP a picture",
        ),
        ("temperature", f"{bundle.temperature:.3f}"),
    ]
    if "recipe" in training:
        recipe = training["recipe"]
        found.append(("recipe", f"{recipe['name']}, seed {recipe['seed']}"))
    if "pictures" in training:
        parts = (f"{count:,} for {name}" for name, count in training["pictures"].items())
        found.append(("pictures", ", ".join(parts)))
    if "best_epoch" in training:
        # Epochs are counted from 0 in the log and from 1 for people.
        found.append(
            ("epochs", f"{training['epochs_run']} run, number {training['best_epoch'] + 1} kept")
        )
    rest = {k: v for k, v in training.items() if k not in _TOLD_ABOVE}
    return found + _named(rest) + _named(bundle.metrics)


_TOLD_ABOVE = ("recipe", "pictures", "best_epoch", "epochs_run")


def model_card(bundle: Bundle, evaluation: Evaluation | None = None) -> str:
    """The bundle's card, Markdown: what it is, what for, how good, how made.

    After Mitchell et al. 2019, "Model cards for model reporting" (arXiv:1810.03993).
    """
    network, size = bundle.architecture, bundle.preprocess.input_size
    recipe = bundle.training.get("recipe")
    on_cifar10 = bundle.classes == CIFAR10_CLASSES
    name = "CIFAR-10" if on_cifar10 else f"{len(bundle.classes)} classes of pictures"
    sections = [
        f"# Model card: {network.name} for {name}",
        f"A picture classifier whose last hidden layer serves as an embedding for similarity"
        f" search. Its input is a picture scaled and cropped to {size} x {size} pixels; it gives a"
        f" probability for each of {len(bundle.classes)} classes and an embedding of length one.",
        f"- Classes: {', '.join(bundle.classes)}\n- Digest: `{bundle.digest}`",
        "## Intended use and limits",
        "To find and label pictures like those that it was trained on.\n\n"
        f"- It always answers with one of its {len(bundle.classes)} classes, also for a picture"
        " that shows none of them. A low confidence is a hint, not a test.\n"
        f"- It sees {size} x {size} pixels. What is small in a picture is lost.\n"
        "- Confidence is calibrated on held-out training pictures; on pictures of another kind it"
        " can be wrong.\n"
        "- It is not made for decisions about people, nor where an error does harm.",
        "## Training data",
        _CIFAR10_SOURCE if on_cifar10 else _OWN_SOURCE,
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
            " number of threads repeat the run. Others round differently, and training makes more"
            " of that.",
            f"```json\n{json.dumps(recipe, indent=2)}\n```",
        ]
    sections += ["## Licence", _CIFAR10_LICENCE if on_cifar10 else _OWN_LICENCE]
    return "\n\n".join(sections) + "\n"


_CIFAR10_SOURCE = (
    "CIFAR-10: 60,000 colour pictures of 32 x 32 pixels in ten classes, 50,000 for training and"
    " 10,000 for the test (Krizhevsky 2009, *Learning Multiple Layers of Features from Tiny"
    " Images*, https://www.cs.toronto.edu/~kriz/cifar.html). A share of the training pictures was"
    " held out to choose the epoch and the temperature; the test pictures were looked at only"
    " after the training had ended."
)
_OWN_SOURCE = (
    "A labelled collection of its owner's, one folder for each class. A part of it was held out"
    " to choose the epoch and the temperature."
)
_CIFAR10_LICENCE = (
    "The weights come under the same terms as the code. CIFAR-10 comes without a licence of its"
    " own: it is a labelled part of the Tiny Images collection, whose pictures were gathered from"
    " the web and belong to their owners. Check whether that suits your use."
)
_OWN_LICENCE = (
    "The weights belong to whoever trained them, within the rights that they hold on the training"
    " pictures."
)


def _results(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "Not evaluated yet; the figures below under Training are on validation pictures."
    e, found = evaluation, evaluation.retrieval
    rows = [
        ("accuracy, single view", _percent(e.accuracy)),
        ("mean precision, recall, F1", ", ".join(map(_percent, vars(e.macro).values()))),
        (f"expected calibration error, {BINS} bins", _percent(e.calibration.error)),
        ("search: mean average precision", _percent(found.mean_average_precision)),
        *((f"search: precision at {k}", _percent(p)) for k, p in found.precision_at.items()),
        *_beyond_the_class(e.search),
    ]  # fmt: skip
    where = ", ".join(f"{name} {value}" for name, value in _named(e.environment))
    return (
        f"On {e.pictures:,} {e.split} pictures. Search: {found.queries:,} queries among"
        f" {found.gallery:,} pictures, cosine similarity, relevant is what has the query's class."
        f"\n\n{_table(rows)}\n\nMeasured in {e.precision} with: {where}."
    )


def _beyond_the_class(search: SearchQuality) -> list[tuple[str, str]]:
    rows = []
    if search.groups is not None:
        fine = search.groups.precision_at.items()
        rows += [(f"search by finer words: precision at {k}", _percent(p)) for k, p in fine]
    copies = search.copies.recall_at["mean"].items()
    return rows + [(f"altered copies: recall at {k}", _percent(r)) for k, r in copies]


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value.replace('|', '/')} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _size(bundle: Bundle) -> tuple[int, int]:
    """Parameters, and FLOPs (2 x MAC) of one forward pass."""
    network = bundle.architecture
    parameters = sum(parameter.numel() for parameter in build(network).parameters())
    return parameters, count_flops(network, bundle.preprocess.input_size)


def _named(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _readable(value)) for name, value in values.items()]


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {part}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _percent(share: float) -> str:
    return f"{share:.2%}"
