"""`lookalike model`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from embed.architecture import Backbone
from embed.backbones import build_backbone
from embed.bundle import Bundle
from search_api.cli.model import SUGGESTIONS
from tests.search_api.cli.helpers import run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), path)
    return path


@pytest.mark.slow
def test_import_and_show(weights: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("scratch\ndent\n\ngood\n")
    out = tmp_path / "bundle"
    made = run(
        "model", "import", "timm:test_resnet", "--weights", weights, "--classes", names,
        "--resize", "squeeze", "--size", 96, "--out", out,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    bundle = Bundle.load(out)
    assert bundle.classes == ("scratch", "dent", "good")
    assert "timm:test_resnet" in (out / "MODEL_CARD.md").read_text()
    shown = run("model", "show", out)
    assert shown.stdout == made.stdout
    assert "input       96 x 96 pixels, squeeze, bilinear" in shown.stdout
    assert "classes     3 (scratch, dent, good)" in shown.stdout
    values = json.loads(run("model", "show", out, "--json").stdout)
    assert values["digest"] == bundle.digest
    assert values["weights"] == "the file own.pth"
    again = run("model", "import", "timm:test_resnet", "--weights", weights, "--out", out)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet50",), "the source is 'resnet50'; expected torchvision:NAME"),
        (("timm:test_vit", "--weights", "WEIGHTS"), "not those of timm:test_vit"),
        (("torchvision:squeezenet1_1", "--weights", "WEIGHTS"), "torchvision:squeezenet1_1"),
    ],
)
def test_wrong_use_is_one_line(
    weights: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    given = [weights if word == "WEIGHTS" else word for word in arguments]
    done = run("model", "import", *given, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_list_names_each_suggestion_once() -> None:
    rows = json.loads(run("model", "list", "--json").stdout)
    assert [row["source"] for row in rows] == [s.source for s in SUGGESTIONS]
    assert len({row["source"] for row in rows}) == len(rows) == 12
    assert rows[0]["installed"] is True
    lines = run("model", "list").stdout.splitlines()
    assert len(lines) == 13
    assert lines[1].startswith("timm:tf_efficientnet_lite0 ")
    assert "weights are installed" in lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("suggestion", SUGGESTIONS, ids=lambda s: s.source)
def test_what_the_list_says_is_so(suggestion: object) -> None:
    s = suggestion
    library, _, name = s.source.partition(":")
    embedding = {"vit_base_patch32_clip_224.openai": 512, "vit_base_patch16_clip_224.laion2b": 512}
    plain = any(word in name for word in ("dino", "clip", "siglip"))
    backbone = Backbone(library, name, 0 if plain else 1000, embedding.get(name, 0))
    network = build_backbone(backbone, s.pixels).eval()
    # The counter follows gradients, and knows a CPU's attention only on the meta device.
    network.requires_grad_(False).to("meta")
    with FlopCounterMode(display=False) as counter:
        features = network(torch.zeros(1, 3, s.pixels, s.pixels, device="meta")).features
    assert features.shape == (1, s.dimension)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(
        s.parameters, abs=0.05
    )
    assert counter.get_total_flops() / 1e9 == pytest.approx(s.gflop, rel=0.01, abs=0.051)
