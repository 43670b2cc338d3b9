from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embed.bundle import Bundle
from embed.pictures import RGB
from embed.runtime import openvino
from embed.runtime.openvino import OpenVinoRuntime
from embed.runtime.pytorch import TorchRuntime

pytestmark = pytest.mark.slow


def exports(cache: Path) -> list[Path]:
    return sorted((cache / ".export").iterdir())


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digest of each bundle that was exported."""
    digests: list[str] = []
    export = openvino.export

    def counting(bundle: Bundle) -> object:
        digests.append(bundle.digest)
        return export(bundle)

    monkeypatch.setattr(openvino, "export", counting)
    return digests


def test_same_numbers_as_torch(tiny_bundle: Bundle, pictures: RGB) -> None:
    expected = TorchRuntime(tiny_bundle, "float32").run(pictures)
    found = OpenVinoRuntime(tiny_bundle, "float32", threads=1).run(pictures)
    assert found.logits.shape == (7, 3)
    assert found.features.shape == (7, 32)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4)


def test_the_second_start_reads_the_export(
    tiny_bundle: Bundle, pictures: RGB, tmp_path: Path, exported: list[str]
) -> None:
    first = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    second = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    assert exported == [tiny_bundle.digest]
    assert np.array_equal(first.features, second.features)
    (folder,) = exports(tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == [
        "checksums.json",
        "network.bin",
        "network.xml",
    ]


@pytest.mark.parametrize("name", ["network.bin", "network.xml", "checksums.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_export_is_made_again(
    tiny_bundle: Bundle,
    pictures: RGB,
    tmp_path: Path,
    exported: list[str],
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
    assert len(exported) == 2
    assert len(exports(tmp_path)) == 1


def test_another_model_has_another_export(tiny_bundle: Bundle, tmp_path: Path) -> None:
    other = dataclasses.replace(tiny_bundle, classes=("a", "b", "c"))
    for bundle in (tiny_bundle, other):
        OpenVinoRuntime(bundle, cache=tmp_path)
    assert len(exports(tmp_path)) == 2


def test_it_works_without_a_writable_cache(
    tiny_bundle: Bundle, pictures: RGB, tmp_path: Path
) -> None:
    (tmp_path / ".export").write_text("a file where the folder should be")
    found = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    assert found.logits.shape == (7, 3)


def test_serving_from_the_export_needs_no_torch(tiny_bundle: Bundle, tmp_path: Path) -> None:
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


def test_no_telemetry_is_sent() -> None:
    code = (
        "import sys, embed.runtime.openvino\n"
        "from openvino.tools.ovc.telemetry_utils import tm\n"
        "print(tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
