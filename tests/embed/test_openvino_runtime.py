from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embed import openvino_runtime
from embed.bundle import PRETRAINED, Bundle
from embed.openvino_runtime import OpenVinoRuntime
from embed.pictures import RGB
from embed.runtime import make_runtime
from embed.scenes import SCENES, render
from embed.torch_runtime import TorchRuntime


def exports(cache: Path) -> list[Path]:
    return sorted((cache / ".export").iterdir())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each export that was made."""
    made: list[str] = []
    export = openvino_runtime.export

    def noted(bundle: Bundle) -> object:
        made.append(bundle.digest)
        return export(bundle)

    monkeypatch.setattr(openvino_runtime, "export", noted)
    return made


def test_same_numbers_as_torch(tiny_bundle: Bundle, pictures: RGB) -> None:
    expected = TorchRuntime(tiny_bundle, "float32").run(pictures)
    found = OpenVinoRuntime(tiny_bundle, "float32", threads=1).run(pictures)
    assert found.logits.shape == (7, 3)
    assert found.features.shape == (7, 32)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4)


@pytest.mark.parametrize("runtime", [OpenVinoRuntime, TorchRuntime])
def test_bfloat16_keeps_the_embedding(runtime: type[OpenVinoRuntime | TorchRuntime]) -> None:
    """Of smooth pictures too, whose whitened edges are small differences of large numbers."""
    bundle = Bundle.load(PRETRAINED)
    rng = np.random.default_rng(0)
    scenes = np.stack([render(name, seed) for name in SCENES for seed in range(4)])
    smooth = rng.uniform(20, 235, (16, 1, 1, 3)) + np.linspace(0, 18, 32)[:, None, None]
    pictures = np.concatenate((scenes, np.broadcast_to(smooth, (16, 32, 32, 3)).astype(np.uint8)))
    exact = TorchRuntime(bundle, "float32").run(pictures).features
    found = runtime(bundle, "bfloat16").run(pictures).features
    cosines = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999


def test_the_second_start_reads_the_export(
    tiny_bundle: Bundle, pictures: RGB, tmp_path: Path, counted: list[str]
) -> None:
    first = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    second = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    assert counted == [tiny_bundle.digest]
    assert np.array_equal(first.features, second.features)
    (folder,) = exports(tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [
        "checksums.json",
        "network.bin",
        "network.xml",
    ]


@pytest.mark.parametrize("name", ["network.bin", "network.xml", "checksums.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_export_is_made_anew(
    tiny_bundle: Bundle,
    pictures: RGB,
    tmp_path: Path,
    counted: list[str],
    name: str,
    harm: str,
) -> None:
    expected = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    path = exports(tmp_path)[0] / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flip" else data[: len(data) // 2])
    for _ in range(2):
        found = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
        assert np.array_equal(found.features, expected.features)
    assert len(counted) == 2
    assert len(exports(tmp_path)) == 1


def test_another_model_has_another_export(tiny_bundle: Bundle, tmp_path: Path) -> None:
    other = dataclasses.replace(tiny_bundle, classes=("a", "b", "c"))
    for bundle in (tiny_bundle, other):
        OpenVinoRuntime(bundle, cache=tmp_path)
    assert len(exports(tmp_path)) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    tiny_bundle: Bundle, pictures: RGB, tmp_path: Path
) -> None:
    (tmp_path / ".export").write_text("a file where the folder should be")
    found = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    assert found.logits.shape == (7, 3)


def test_serving_from_the_export_needs_no_torch(tiny_bundle: Bundle, tmp_path: Path) -> None:
    import subprocess
    import sys

    tiny_bundle.save(tmp_path)
    code = (
        "import sys, pathlib; from embed.bundle import Bundle; from embed.encoder import Encoder;"
        "folder = pathlib.Path(sys.argv[1]);"
        "encoder = Encoder(Bundle.load(folder), runtime='openvino', cache=folder);"
        "print(encoder.runtime.name, 'torch' in sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert runs == [["openvino", "True"], ["openvino", "False"]]


def test_where_openvino_fails_torch_takes_over(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(openvino_runtime, "OpenVinoRuntime", broken)
    assert make_runtime(tiny_bundle).name == "torch"
    with pytest.raises(RuntimeError, match="no such instruction"):
        make_runtime(tiny_bundle, "openvino")


def test_an_unknown_runtime_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="runtime is 'magic'; expected auto, openvino or torch"):
        make_runtime(tiny_bundle, "magic")  # type: ignore[arg-type]


def test_nothing_is_reported_to_anybody() -> None:
    code = (
        "import sys, embed.openvino_runtime\n"
        "from openvino.tools.ovc.telemetry_utils import tm\n"
        "print(tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
