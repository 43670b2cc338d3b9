from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.corpus import CIFAR10_CLASSES
from embed.encoder import Encoder
from embed.pictures import decode
from embed.resnet import build
from tests.train.helpers import coloured, colours, imported
from train.data import Dataset, Split
from train.evaluation.evaluate import Evaluation, evaluate, evaluate_search
from train.evaluation.report import (
    MAX_MISTAKES,
    NEIGHBOURS,
    confusions,
    facts,
    model_card,
    shaded_matrix,
    write_report,
)
from train.evaluation.sprite import COLUMNS
from train.recipe import Recipe

pytestmark = pytest.mark.slow

TRAINING = {
    "recipe": Recipe(name="mine", seed=4).to_dict(),
    "pictures": {"train": 24, "validation": 12},
    "best_epoch": 2,
    "epochs_run": 5,
    "minutes": 1.5,
    "device": "a processor, 2 cores",
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle) -> Bundle:
    return dataclasses.replace(
        tiny_bundle, training=TRAINING, metrics={"validation_accuracy": 0.75}
    )


@pytest.fixture(scope="module")
def evaluation(bundle: Bundle) -> Evaluation:
    return evaluate(Encoder(bundle, precision="float32"), colours())


def written(evaluation: Evaluation, data: Dataset, bundle: Bundle, folder: Path) -> str:
    path = folder / "made" / "report.html"
    write_report(evaluation, data, bundle, path)
    return path.read_text(encoding="utf-8")


def test_it_loads_nothing_over_the_network(
    evaluation: Evaluation, bundle: Bundle, tmp_path: Path
) -> None:
    html = written(evaluation, colours(), bundle, tmp_path)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    without_pictures = re.sub(r"url\(data:image/webp;base64,[\w+/=]+\)", "", html)
    for word in ("http:", "https:", "url(", "@import", "<script", "<link", "<iframe", "src="):
        assert word not in without_pictures


def test_its_figures_are_those_measured(
    evaluation: Evaluation, bundle: Bundle, tmp_path: Path
) -> None:
    html = written(evaluation, colours(), bundle, tmp_path)
    e = evaluation
    for share in (
        e.accuracy,
        e.macro.f1,
        e.retrieval.mean_average_precision,
        e.retrieval.precision_at[10],
        *(score.recall for score in e.scores),
    ):
        assert f">{share:.2%}<" in html
    assert f"before: calibration error {e.uncalibrated.error:.2%}" in html
    assert f"after: calibration error {e.calibration.error:.2%}" in html
    for kind in e.outliers:
        assert f"<th>{kind.kind}</th>" in html
        assert f">{kind.by_neighbours:.2%}<" in html
    assert f">{e.search.copies.recall_at['mean'][1]:.2%}<" in html
    assert f">{e.search.copies.recall_at['jpeg'][10]:.2%}<" in html
    assert "Comparison with baselines" not in html
    assert bundle.digest in html
    assert "15 test pictures of 3 classes" in html
    assert "15 queries among 36 pictures" in html
    assert "<th>minutes</th><td>1.5</td>" in html
    assert "<th>recipe</th><td>mine, seed 4</td>" in html
    assert "<th>weight decay</th><td>0.0005</td>" in html
    counts = re.findall(r'class="(?:correct|wrong|none)"[^>]*>(\d+)</td>', html)
    assert [int(count) for count in counts] == [c for row in e.confusion for c in row]


def tiles(html: str, name: str) -> NDArray[np.uint8]:
    """The pictures of a sprite, uint8 ``(n, 32, 32, 3)``, by the rule of the style that has it."""
    found = re.search(rf"{name} {{[^}}]*url\(data:image/webp;base64,([\w+/=]+)\)", html)
    assert found is not None
    pixels = decode(base64.b64decode(found[1]))
    rows = pixels.reshape(-1, 32, COLUMNS, 32, 3)
    return rows.swapaxes(1, 2).reshape(-1, 32, 32, 3)


def far(a: NDArray[np.uint8], b: Tensor) -> float:
    """Mean difference of a picture in a sprite, which is compressed, and the picture."""
    return float(np.abs(a.astype(int) - b.permute(1, 2, 0).numpy().astype(int)).mean())


def test_misclassified_pictures_are_the_pictures(
    evaluation: Evaluation, bundle: Bundle, tmp_path: Path
) -> None:
    data = colours()
    assert data.test is not None
    html = written(evaluation, data, bundle, tmp_path)
    pictures = tiles(html, r"\.pic")
    section = html[html.index("<h2>Misclassified") : html.index("<h2>Likely label")]
    items = section.split("<li>")[1:]
    assert len(items) == len(evaluation.mistakes) > 0
    splits = {"test": data.test, "train": data.train, "validation": data.validation}
    for item, mistake in zip(items, evaluation.mistakes, strict=True):
        numbers = [int(x) + COLUMNS * int(y) for x, y in re.findall(r"--x:(\d+);--y:(\d+)", item)]
        assert len(numbers) == 1 + NEIGHBOURS
        shown = [("test", mistake.row), *((n.split, n.row) for n in mistake.neighbours)]
        for number, (split, row) in zip(numbers, shown[:6], strict=True):
            picture = splits[split].pictures[row]
            # Noise loses in compression, but is far nearer to itself than to any other picture.
            others = splits[split].pictures[[i for i in range(12) if i != row]]
            assert far(pictures[number], picture) < min(far(pictures[number], p) for p in others)
        assert f"<b>{mistake.label}</b> classified as <span" in item
        assert f'"mistake">{mistake.predicted}</span>' in item
        assert f"{mistake.predicted} {100 * mistake.confidence:.1f}%, " in item
        assert f"similarity {mistake.neighbours[0].score:.3f}, " in item


def test_the_map_shows_every_picture_of_the_split(
    evaluation: Evaluation, bundle: Bundle, tmp_path: Path
) -> None:
    data = colours()
    assert data.test is not None
    html = written(evaluation, data, bundle, tmp_path)
    dots = re.findall(
        r'<b class="h(\d)( mistake)?" style="left:([\d.]+)%;top:([\d.]+)%;--x:(\d+);--y:(\d+)"',
        html,
    )
    assert len(dots) == 15
    wrong = {mistake.row for mistake in evaluation.mistakes}
    pictures = tiles(html, r"\.map b:hover i")
    for row, (label, mistake, left, top, x, y) in enumerate(dots):
        assert int(label) == int(data.test.labels[row])
        assert bool(mistake) == (row in wrong)
        assert 0 <= float(left) <= 100
        assert 0 <= float(top) <= 100
        assert far(pictures[int(x) + COLUMNS * int(y)], data.test.pictures[row]) < 40
    assert "by principal components" in html


def test_validation_pictures_are_shown_where_there_is_no_test(
    bundle: Bundle, tmp_path: Path
) -> None:
    data = dataclasses.replace(colours(), test=None)
    found = evaluate(Encoder(bundle, precision="float32"), data)
    html = written(found, data, bundle, tmp_path)
    assert "12 validation pictures of 3 classes" in html
    assert f"validation picture {found.mistakes[0].row}" in html


def test_no_more_than_so_many_mistakes(bundle: Bundle, tmp_path: Path) -> None:
    wrong = coloured(80)
    data = dataclasses.replace(colours(), test=Split(wrong.pictures, (wrong.labels + 1) % 3))
    found = evaluate(Encoder(bundle, precision="float32"), data)
    assert len(found.mistakes) > MAX_MISTAKES
    html = written(found, data, bundle, tmp_path)
    section = html[html.index("<h2>Misclassified") : html.index("<h2>Likely label")]
    assert section.count("<li>") == MAX_MISTAKES
    assert f"The {MAX_MISTAKES} most confident of {len(found.mistakes)}, most confident" in html


def test_other_models_are_compared(evaluation: Evaluation, bundle: Bundle, tmp_path: Path) -> None:
    other = evaluate_search(Encoder(bundle, precision="float32"), colours())
    assert other == evaluation.search
    low = dataclasses.replace(
        other, retrieval=dataclasses.replace(other.retrieval, mean_average_precision=0.1234)
    )
    write_report(evaluation, colours(), bundle, tmp_path / "r.html", others={"plain": low})
    html = (tmp_path / "r.html").read_text()
    assert '<th class="n">plain</th>' in html
    mean = f"{evaluation.retrieval.mean_average_precision:.2%}"
    assert f'<td class="n">{mean}</td><td class="n">12.34%</td>' in html


def test_finer_labels_and_duplicates_and_label_errors(bundle: Bundle, tmp_path: Path) -> None:
    data = colours()
    assert data.test is not None
    # Each test picture is in the training set, the first mirrored; groups are the classes.
    pictures = data.train.pictures[:15].clone()
    pictures[0] = pictures[0].flip(-1)
    data = dataclasses.replace(
        data,
        train=dataclasses.replace(data.train, groups=data.train.labels),
        validation=dataclasses.replace(data.validation, groups=data.validation.labels),
        test=Split(pictures, data.train.labels[:15], data.train.labels[:15]),
    )
    found = evaluate(Encoder(bundle, precision="float32"), data)
    assert found.search.groups is not None
    assert found.search.groups.queries == 15
    assert len(found.duplicates.pairs) == 15
    assert {(d.row, d.neighbour.split, d.neighbour.row) for d in found.duplicates.pairs} == {
        (row, "train", row) for row in range(15)
    }
    assert found.duplicates.accuracy_of_them == pytest.approx(found.accuracy)
    assert found.duplicates.accuracy_without is None
    found = dataclasses.replace(found, label_errors=found.mistakes[:1])
    html = written(found, data, bundle, tmp_path)
    assert "15 of the 15 test pictures are near-duplicates" in html
    assert "share of the same finer label among the first 10" in html
    section = html[html.index("<h2>Likely label") : html.index("<h2>Near-dup")]
    assert section.count("<li>") == 1


def test_baselines_on_the_whole_of_cifar10(
    evaluation: Evaluation, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    architecture = Architecture(widths=(24, 24, 24))
    cifar = dataclasses.replace(
        tiny_bundle,
        architecture=architecture,
        classes=CIFAR10_CLASSES,
        weights={n: w.numpy() for n, w in build(architecture).state_dict().items()},
    )
    html = written(dataclasses.replace(evaluation, pictures=10_000), colours(), cifar, tmp_path)
    assert "airbench96_faster" in html
    assert f"{evaluation.accuracy:.2%}, single view" in html
    assert "raw pixels 14.4 %" in html


def test_nothing_wrong_and_a_bundle_without_training_facts(
    evaluation: Evaluation, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    perfect = dataclasses.replace(
        evaluation, mistakes=(), label_errors=(), confusion=((5, 0, 0), (0, 5, 0), (0, 0, 5))
    )
    html = written(perfect, colours(), tiny_bundle, tmp_path)
    assert "None: every picture was classified correctly." in html
    assert "no label is contradicted by both" in html
    assert "Complete recipe" not in html


def test_names_are_escaped(bundle: Bundle, tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", 'a"b', "c&d")
    data = dataclasses.replace(colours(), classes=names)
    strange = dataclasses.replace(bundle, classes=names)
    found = evaluate(Encoder(strange), data)
    html = written(found, data, strange, tmp_path)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "c&amp;d" in html
    assert 'a"b' not in html


def test_matrix_shades(evaluation: Evaluation) -> None:
    made = dataclasses.replace(evaluation, confusion=((6, 2, 0), (4, 0, 0), (0, 0, 0)))
    cells = shaded_matrix(made)
    assert [[cell.count for cell in row] for row in cells] == [[6, 2, 0], [4, 0, 0], [0, 0, 0]]
    # The diagonal by its row, the rest by the largest confusion, 4.
    assert [[cell.shade for cell in row] for row in cells] == [[75, 50, 0], [100, 0, 0], [0] * 3]
    assert [[cell.correct for cell in row] for row in cells] == np.eye(3, dtype=bool).tolist()
    assert (cells[1][0].label, cells[1][0].predicted) == ("green", "red")


def test_confusions_most_frequent_first(evaluation: Evaluation) -> None:
    made = dataclasses.replace(evaluation, confusion=((6, 2, 0), (4, 0, 3), (0, 0, 1)))
    assert confusions(made) == [("green", "red", 4), ("green", "blue", 3), ("red", "green", 2)]


def test_a_matrix_of_many_classes_is_not_drawn(bundle: Bundle, tmp_path: Path) -> None:
    names = tuple(f"class {i:02}" for i in range(41))
    architecture = Architecture(classes=41, widths=(24, 24, 24))
    many = dataclasses.replace(
        bundle,
        architecture=architecture,
        classes=names,
        weights={n: w.numpy() for n, w in build(architecture).state_dict().items()},
    )
    split = Split(torch.zeros(41, 3, 32, 32, dtype=torch.uint8), torch.arange(41))
    data = Dataset(names, split, split, None, {})
    html = written(evaluate(Encoder(many), data), data, many, tmp_path)
    assert "Confusion matrix" not in html
    assert "Most frequent confusions" in html


def test_facts(bundle: Bundle) -> None:
    assert facts(bundle) == [
        ("network", "whitened-resnet, 37,592 parameters, 17 MFLOP per picture"),
        ("temperature", "1.500"),
        ("recipe", "mine, seed 4"),
        ("pictures", "24 for train, 12 for validation"),
        ("epochs", "5 run, number 3 kept"),
        ("minutes", "1.5"),
        ("device", "a processor, 2 cores"),
        ("validation accuracy", "0.75"),
    ]


def test_model_card(bundle: Bundle, evaluation: Evaluation) -> None:
    card = model_card(bundle, evaluation)
    assert card.startswith("# Model card: whitened-resnet for 3 classes of pictures\n")
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings == [
        "Intended use and limits",
        "Training data",
        "Results",
        "Training",
        "How to reproduce",
        "Licence",
    ]
    assert f"| accuracy, single view | {evaluation.accuracy:.2%} |" in card
    assert bundle.digest in card
    assert "red, green, blue" in card
    assert "Krizhevsky" not in card
    assert f"torch {torch.__version__}" in card
    recipe = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert Recipe.from_dict(recipe) == Recipe(name="mine", seed=4)


def test_model_card_of_cifar10_names_its_source(bundle: Bundle) -> None:
    architecture = Architecture(widths=(24, 24, 24))
    card = model_card(
        dataclasses.replace(
            bundle,
            architecture=architecture,
            classes=CIFAR10_CLASSES,
            weights={n: w.numpy() for n, w in build(architecture).state_dict().items()},
        )
    )
    assert card.startswith("# Model card: whitened-resnet for CIFAR-10\n")
    assert "Krizhevsky 2009" in card
    assert "Not evaluated yet" in card


def test_model_card_of_a_bundle_without_training_facts(tiny_bundle: Bundle) -> None:
    card = model_card(tiny_bundle)
    assert "How to reproduce" not in card
    assert "| temperature | 1.500 |" in card


def test_an_imported_network_has_its_own_size_and_card(tmp_path: Path) -> None:
    network = imported()
    data = dataclasses.replace(colours(), classes=("blue", "green", "red"))
    found = evaluate(Encoder(network), data)
    html = written(found, data, network, tmp_path)
    parameters = sum(p.numel() for p in network.network().parameters())
    assert f"{parameters:,} parameters" in dict(facts(network))["network"]
    assert not dict(facts(network))["network"].endswith(" 0 MFLOP per picture")
    assert "there is no accuracy" in html
    for absent in ("Confusion matrix", "Misclassified pictures", "<h2>Confidence"):
        assert absent not in html
    card = model_card(network, found)
    assert "- Network: `timm:test_efficientnet`" in card
    assert "- Weights: not stated" not in card
    assert "accuracy, single view" not in card
    assert "search: mean average precision" in card
    assert "not a medical device" in card
