from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embed.bundle import Bundle
from embed.corpus import sample
from tests.train.helpers import QUICK, colours, imported
from train.augment import cutmix
from train.checkpoint import CHECKPOINT, LOG, RECIPE, Epoch, ResumeError
from train.data import Dataset, Split, load_dataset
from train.loop import fit_temperature, predict, train
from train.recipe import (
    FINETUNE_IMPORTED,
    PROBE,
    RESNET18,
    Augment,
    BatchSelection,
    Recipe,
    RecipeError,
)

pytestmark = pytest.mark.slow


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    """Rendered scenes of ten classes: 360 to learn from, 40 to choose by, 100 to test on."""
    return load_dataset(sample(per_class=50), validation=0.1)


@pytest.fixture(scope="module")
def finished(
    scenes: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Path, list[Epoch]]:
    """An uninterrupted run: its bundle, its folder, what it reported."""
    folder = tmp_path_factory.mktemp("run")
    reported: list[Epoch] = []
    return train(QUICK, scenes, folder, report=reported.append), folder, reported


def comparable(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history]


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG).open() as file:
        return list(csv.DictReader(file))


def test_it_learns(scenes: Dataset, finished: tuple[Bundle, Path, list[Epoch]]) -> None:
    bundle = finished[0]
    assert scenes.test is not None
    logits = predict(bundle.network(), bundle.preprocess, scenes.test.pictures)
    accuracy = float((logits.argmax(1) == scenes.test.labels).float().mean())
    assert accuracy > 0.6, "chance is 0.1"


def test_the_bundle_holds_what_was_done(
    scenes: Dataset, finished: tuple[Bundle, Path, list[Epoch]]
) -> None:
    bundle, _, history = finished
    assert bundle.classes == scenes.classes
    assert bundle.architecture.widths == (24, 24, 24)
    assert bundle.training["recipe"] == QUICK.to_dict()
    assert bundle.training["pictures"] == {"train": 360, "validation": 40}
    assert bundle.training["epochs_run"] == 6
    assert bundle.training["threads"] == torch.get_num_threads()
    assert bundle.training["torch"] == torch.__version__
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert bundle.training["precision"] == ("bfloat16" if fast else "float32")
    best = min(history, key=lambda epoch: epoch.validation_loss)
    assert bundle.training["best_epoch"] == best.epoch
    assert bundle.metrics == {
        "validation_accuracy": round(best.validation_accuracy, 4),
        "validation_loss": round(best.validation_loss, 4),
    }
    # Everything in it must fit into the manifest.
    assert json.loads(json.dumps(bundle.training))["recipe"]["name"] == "test"


def test_the_weights_are_those_of_the_best_epoch(
    scenes: Dataset, finished: tuple[Bundle, Path, list[Epoch]]
) -> None:
    bundle, _, history = finished
    logits = predict(bundle.network(), bundle.preprocess, scenes.validation.pictures)
    loss = float(F.cross_entropy(logits, scenes.validation.labels))
    # The weights are rounded to fp16 by now, as they are on disk.
    assert all(
        np.array_equal(w, w.astype(np.float16).astype(w.dtype)) for w in bundle.weights.values()
    )
    assert loss == pytest.approx(min(epoch.validation_loss for epoch in history), rel=0.03)
    assert bundle.temperature == pytest.approx(fit_temperature(logits, scenes.validation.labels))


def test_log_and_recipe_files(finished: tuple[Bundle, Path, list[Epoch]]) -> None:
    _, folder, reported = finished
    rows = log(folder)
    assert list(rows[0]) == [
        "epoch",
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "lr",
        "seconds",
    ]
    assert [Epoch(int(row.pop("epoch")), *map(float, row.values())) for row in rows] == reported
    assert [epoch.epoch for epoch in reported] == list(range(6))
    assert reported[-1].train_loss < reported[0].train_loss
    assert Recipe.from_dict(json.loads((folder / RECIPE).read_text())) == QUICK


def test_the_rate_falls_linearly(finished: tuple[Bundle, Path, list[Epoch]]) -> None:
    # Of the 11 steps in an epoch, the log has the rate of the last one.
    expected = [0.17 * (1 - (epoch + 10 / 11) / 6) for epoch in range(6)]
    assert [epoch.lr for epoch in finished[2]] == pytest.approx(expected)


def test_tensorboard_can_read_the_run(finished: tuple[Bundle, Path, list[Epoch]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder, history = finished
    events = EventAccumulator(str(folder))
    events.Reload()
    read = events.Scalars("validation_accuracy")
    assert [event.step for event in read] == list(range(6))
    assert [event.value for event in read] == pytest.approx(
        [epoch.validation_accuracy for epoch in history]
    )
    assert "train_loss" in events.Tags()["scalars"]


@pytest.mark.parametrize("where", ["between epochs", "within an epoch"])
def test_a_resumed_run_repeats_an_uninterrupted_one(
    scenes: Dataset,
    finished: tuple[Bundle, Path, list[Epoch]],
    tmp_path: Path,
    where: str,
) -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2 and where == "between epochs":
            raise Interrupted

    def steps(batches: Iterator[Tensor], epoch: int, total: int) -> Iterator[Tensor]:
        for number, batch in enumerate(batches):
            if (epoch, number) == (3, 2) and where == "within an epoch":
                raise Interrupted
            yield batch

    with pytest.raises(Interrupted):
        train(QUICK, scenes, tmp_path, report=stop, steps=steps)
    assert len(log(tmp_path)) == 3
    reported: list[Epoch] = []
    resumed = train(QUICK, scenes, tmp_path, resume=True, report=reported.append)
    bundle, folder, history = finished
    assert comparable(reported) == comparable(history[3:])
    seconds = [float(row["seconds"]) for row in log(tmp_path)]
    assert seconds == sorted(seconds), "they continue where they stopped"
    assert resumed.weights.keys() == bundle.weights.keys()
    for name, array in bundle.weights.items():
        assert np.array_equal(resumed.weights[name], array), name
    assert resumed.temperature == bundle.temperature
    assert [row["train_loss"] for row in log(tmp_path)] == [
        row["train_loss"] for row in log(folder)
    ]


def test_resuming_a_finished_run_gives_the_same_bundle(
    scenes: Dataset, finished: tuple[Bundle, Path, list[Epoch]]
) -> None:
    again = train(QUICK, scenes, finished[1], resume=True)
    assert again.digest == finished[0].digest


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=1, batch_size=8)
    digests = {
        train(dataclasses.replace(recipe, seed=seed), colours(), tmp_path / str(i)).digest
        for i, seed in enumerate((0, 0, 1))
    }
    assert len(digests) == 2


def test_early_stopping(tmp_path: Path) -> None:
    data = colours()
    # Validation labels that are wrong: what is learned makes their loss worse.
    wrong = Split(data.validation.pictures, (data.validation.labels + 1) % 3)
    recipe = dataclasses.replace(QUICK, epochs=40, batch_size=8, patience=2)
    reported: list[Epoch] = []
    bundle = train(
        recipe, dataclasses.replace(data, validation=wrong), tmp_path, report=reported.append
    )
    best = bundle.training["best_epoch"]
    assert len(reported) == best + 3 < 40
    assert min(range(len(reported)), key=lambda i: reported[i].validation_loss) == best


def test_a_set_smaller_than_a_batch(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=3, batch_size=1000)
    seen: list[tuple[int, int]] = []

    def steps(batches: Iterator[Tensor], epoch: int, total: int) -> Iterator[Tensor]:
        for batch in batches:
            seen.append((total, len(batch)))
            yield batch

    reported: list[Epoch] = []
    train(recipe, colours(), tmp_path, report=reported.append, steps=steps)
    assert seen == [(1, 24)] * 3
    assert all(math.isfinite(epoch.train_loss) for epoch in reported)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_the_other_optimisers_learn_too(tmp_path: Path, optimiser: Any) -> None:
    recipe = Recipe(
        widths=(24, 24, 24), epochs=6, batch_size=8, optimiser=optimiser, lr=0.01, warmup=0.0
    )
    data = colours()
    bundle = train(recipe, data, tmp_path)
    assert data.test is not None
    logits = predict(bundle.network(), bundle.preprocess, data.test.pictures)
    assert float((logits.argmax(1) == data.test.labels).float().mean()) > 0.8


def test_mixed_pictures_train_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed: list[tuple[int, ...]] = []

    def noted(x: Tensor, labels: Tensor, classes: int, generator: Any) -> tuple[Tensor, Tensor]:
        x, shares = cutmix(x, labels, classes, generator)
        mixed.append(tuple(shares.shape))
        return x, shares

    monkeypatch.setattr("train.loop.cutmix", noted)
    half = Augment(flip="none", translate=0, cutmix=0.5)
    recipe = Recipe(
        widths=(24, 24, 24),
        epochs=6,
        batch_size=8,
        lr=0.01,
        augment=half,
        proxy=BatchSelection(keep=0.5),
    )
    data = colours()
    bundle = train(recipe, data, tmp_path)
    steps = 6 * (len(data.train) // 8)
    assert set(mixed) == {(8, len(data.classes))} and 0.2 * steps < len(mixed) < 0.8 * steps
    assert bundle.metrics["validation_accuracy"] > 0.8


def test_resnet18_trains(tmp_path: Path) -> None:
    recipe = Recipe(architecture="resnet18", epochs=1, batch_size=12, lr=0.01)
    data = dataclasses.replace(colours(), test=None)
    bundle = train(recipe, data, tmp_path)
    assert bundle.architecture.name == "resnet18"
    bundle.save(tmp_path / "model")
    assert Bundle.load(tmp_path / "model").digest == bundle.digest


def test_resuming_with_another_recipe_is_refused(
    scenes: Dataset, finished: tuple[Bundle, Path, list[Epoch]]
) -> None:
    other = dataclasses.replace(QUICK, lr=0.3)
    with pytest.raises(
        ResumeError, match=r"belongs to the recipe .*lr=0\.17.*to resume is.*lr=0\.3,"
    ):
        train(other, scenes, finished[1], resume=True)


def test_a_damaged_checkpoint_is_refused(
    scenes: Dataset, finished: tuple[Bundle, Path, list[Epoch]], tmp_path: Path
) -> None:
    whole = (finished[1] / CHECKPOINT).read_bytes()
    for data in (b"", whole[: len(whole) // 2]):
        (tmp_path / CHECKPOINT).write_bytes(data)
        with pytest.raises(ResumeError, match=r"checkpoint\.pt cannot be read"):
            train(QUICK, scenes, tmp_path, resume=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fit_temperature_recovers_a_known_one(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator).flatten()
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_a_few_pictures_do_not_make_a_model_certain() -> None:
    # Without the prior there is no optimum: the surer the better, or the less sure.
    logits = torch.eye(3) * 5
    assert 0.5 < fit_temperature(logits, torch.arange(3)) < 1.0
    assert 2.0 < fit_temperature(logits, torch.tensor([1, 2, 0])) < 10.0
    many = logits.repeat(1000, 1)
    assert 0.05 <= fit_temperature(many, torch.arange(3).repeat(1000)) < 0.5
    assert 10.0 < fit_temperature(many, torch.tensor([1, 2, 0]).repeat(1000)) <= 20.0


def test_predict_leaves_the_mode_as_it_was(tiny_bundle: Bundle) -> None:
    network = tiny_bundle.network().train()
    pictures = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    assert predict(network, tiny_bundle.preprocess, pictures).shape == (3, 3)
    assert network.training


def test_a_cpu_without_bfloat16_trains_in_float32(
    scenes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Emulated, bfloat16 would take several times as long.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    seen: set[torch.dtype] = set()
    convolve = F.conv2d

    def watched(x: Tensor, *arguments: Any) -> Tensor:
        y = convolve(x, *arguments)
        seen.add(y.dtype)
        return y

    monkeypatch.setattr(F, "conv2d", watched)
    recipe = dataclasses.replace(QUICK, epochs=1, proxy=BatchSelection(keep=0.5))
    bundle = train(recipe, scenes, tmp_path)
    assert seen == {torch.float32}
    assert bundle.training["precision"] == "float32"


def tuning(folder: Path, **changes: Any) -> Recipe:
    imported().save(folder)
    own = {"architecture": "timm:test_efficientnet", "init": str(folder), "size": 32}
    return dataclasses.replace(FINETUNE_IMPORTED, **own, **changes)


def hard() -> Dataset:
    """Noise, with a white spot in every second picture, which random features hardly see."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pictures = torch.randint(0, 256, (count, 3, 32, 32), generator=generator)
        pictures[1::2, :, 8:14, 8:14] = 255
        return Split(pictures.byte(), torch.arange(count) % 2)

    return Dataset(("plain", "spot"), split(200), split(60), split(60), {})


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recipe, Path, Bundle]]:
    """Nearly all layers learn, because random ones are worth little."""
    folder = tmp_path_factory.mktemp("fine-tuned")
    recipe = tuning(folder / "init", epochs=6, lr=3e-3, old_rate=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.setup.LAST_LAYERS", 0.9)
        yield recipe, folder / "run", train(recipe, hard(), folder / "run")


def test_fine_tuning_an_imported_network(fine_tuned: tuple[Recipe, Path, Bundle]) -> None:
    recipe, folder, bundle = fine_tuned
    data, init = hard(), imported()
    outcome = bundle.metrics["fine_tuning"]
    assert outcome["ships"] == "fine-tuned"
    assert outcome["validation_accuracy"] > outcome["probe_validation_accuracy"]
    assert outcome["validation_loss"] < outcome["probe_validation_loss"]
    assert bundle.classes == data.classes
    logits = predict(bundle.network(), bundle.preprocess, data.validation.pictures)
    accuracy = (logits.argmax(1) == data.validation.labels).float().mean()
    assert float(accuracy) == pytest.approx(outcome["validation_accuracy"], abs=1e-4)
    # The first layers and all statistics are as they were; the last layers have moved.
    network = init.network()
    names = [f"body.{name}" for name, _ in network.body.named_parameters()]  # type: ignore[union-attr]
    moved = [not np.array_equal(bundle.weights[n], init.weights[n]) for n in names]
    assert not any(moved[: len(names) // 12])
    assert all(moved[len(names) // 3 :])
    statistics = [n for n in init.weights if "running_" in n]
    assert statistics
    assert all(np.array_equal(bundle.weights[n], init.weights[n]) for n in statistics)
    assert bundle.training["recipe"] == recipe.to_dict()
    assert bundle.training["source"] == "timm:test_efficientnet"
    assert (folder / "log.csv").read_text().count("\n") == 7


def test_fine_tuning_resumes_where_it_stopped(
    fine_tuned: tuple[Recipe, Path, Bundle], tmp_path: Path
) -> None:
    recipe, _, whole = fine_tuned

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, hard(), tmp_path, report=stop)
    bundle = train(recipe, hard(), tmp_path, resume=True)
    assert bundle.training["epochs_run"] == 6
    assert bundle.content_digest == whole.content_digest


def test_fine_tuning_that_does_not_help_ships_the_probe(tmp_path: Path) -> None:
    recipe = tuning(tmp_path / "init", epochs=1, lr=1e-9)
    data = dataclasses.replace(colours(), classes=("blue", "green", "red"))
    bundle = train(recipe, data, tmp_path / "run")
    outcome = bundle.metrics["fine_tuning"]
    assert outcome["ships"] == "probe"
    assert outcome["validation_accuracy"] == outcome["probe_validation_accuracy"] == 1.0
    assert bundle.training["best_epoch"] is None
    probe = dataclasses.replace(PROBE, architecture=recipe.architecture, init=recipe.init, size=32)
    assert bundle.content_digest == train(probe, data, tmp_path / "probe").content_digest


def test_a_probe_is_trained_by_its_recipe_and_not_resumed(tmp_path: Path) -> None:
    imported().save(tmp_path / "init")
    recipe = dataclasses.replace(
        PROBE, architecture="timm:test_efficientnet", init=str(tmp_path / "init"), size=32
    )
    data = dataclasses.replace(colours(), classes=("blue", "green", "red"))
    bundle = train(recipe, data, tmp_path / "run")
    assert bundle.classes == data.classes
    assert Recipe.from_dict(json.loads((tmp_path / "run" / "recipe.json").read_text())) == recipe
    with pytest.raises(ResumeError, match="no epochs"):
        train(recipe, data, tmp_path / "run", resume=True)


def test_a_recipe_of_another_architecture_is_refused(tmp_path: Path) -> None:
    recipe = tuning(tmp_path / "init", name="own")
    with pytest.raises(RecipeError, match=r"'resnet18' trains .*resnet18.*timm:test_efficientnet"):
        train(dataclasses.replace(RESNET18, init=recipe.init), hard(), tmp_path / "run")
