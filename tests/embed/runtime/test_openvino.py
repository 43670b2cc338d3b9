from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from embed.bundle import Bundle
from embed.pictures import RGB
from embed.runtime import openvino
from embed.runtime.openvino import OpenVinoRuntime
from embed.runtime.pytorch import TorchRuntime
from search_api.stores.model_store import open_model

pytestmark = pytest.mark.slow


def exports(cache: Path) -> list[Path]:
    return sorted((cache / "exports").iterdir())


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


def test_it_works_without_a_writable_cache_and_says_so_once(
    tiny_bundle: Bundle,
    pictures: RGB,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path / "kept").run(pictures)
    (tmp_path / "exports").write_text("a file where the folder should be")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for _ in range(2):
        found = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
        assert np.array_equal(found.features, expected.features)
    assert len([r for r in caplog.records if "cannot be kept" in r.message]) == 1
    assert list((tmp_path / "tmp").iterdir()) == []  # nothing stays behind


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_cache_that_others_can_write_is_not_read(
    tiny_bundle: Bundle, tmp_path: Path, exported: list[str], mode: int
) -> None:
    OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path)
    (tmp_path / "exports").chmod(mode)
    OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path)
    assert len(exported) == 2


def test_an_export_next_to_the_bundle_is_never_believed(
    tiny_bundle: Bundle, pictures: RGB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write next to a bundle can make checksums, too."""
    bundle = tmp_path / "bundle"
    tiny_bundle.save(bundle)
    others = {
        n: np.flip(w).copy() if n.startswith("head.") else w for n, w in tiny_bundle.weights.items()
    }
    other = OpenVinoRuntime(
        dataclasses.replace(tiny_bundle, weights=others), "float32", cache=tmp_path / "theirs"
    )
    (theirs,) = exports(tmp_path / "theirs")
    for folder in (bundle / ".export", bundle / "exports"):
        for digits in (16, 64):  # as earlier versions called it, and as this one does
            name = f"{theirs.name[:-64]}{tiny_bundle.content_digest[-digits:]}"
            shutil.copytree(theirs, folder / name)
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    expected = OpenVinoRuntime(tiny_bundle, "float32", threads=1).run(pictures)
    assert np.abs(other.run(pictures).logits - expected.logits).max() > 0.2
    for _ in range(2):
        encoder = open_model(bundle)
        assert encoder.runtime.name == "openvino"
        found = encoder.runtime.run(pictures)
        np.testing.assert_allclose(found.logits, expected.logits, atol=0.05)
    assert exports(tmp_path / "cache")[0].name.endswith(tiny_bundle.content_digest[-64:])


def test_old_exports_are_removed(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [
        dataclasses.replace(tiny_bundle, classes=(str(i), "green", "blue")) for i in range(4)
    ]
    kept = []
    for bundle in bundles[:3]:
        OpenVinoRuntime(bundle, cache=tmp_path)
        kept.extend(path for path in exports(tmp_path) if path not in kept)
    size = openvino._bytes_of(kept[0])
    for path, days in zip(kept, (3, 40, 1), strict=True):
        os.utime(path, (time.time() - days * 86400,) * 2)
    left = tmp_path / "exports" / ".tmp-killed"
    left.mkdir()
    os.utime(left, (0, 0))
    OpenVinoRuntime(bundles[0], cache=tmp_path)  # used again, so now the newest of the three
    monkeypatch.setattr(openvino, "_MOST_BYTES", 2.5 * size)
    OpenVinoRuntime(bundles[3], cache=tmp_path)
    assert kept[0] in exports(tmp_path)
    assert not {kept[1], kept[2], left} & set(exports(tmp_path))
    assert len(exports(tmp_path)) == 2


def test_several_processes_may_export_at_once(tiny_bundle: Bundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "bundle")
    code = (
        "import sys, pathlib; from embed.bundle import Bundle;"
        "from embed.runtime.openvino import OpenVinoRuntime;"
        "root = pathlib.Path(sys.argv[1]);"
        "OpenVinoRuntime(Bundle.load(root / 'bundle'), cache=root)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [(p.communicate()[1], p.returncode) for p in running] == [(b"", 0)] * 3
    (folder,) = exports(tmp_path)
    assert openvino._intact(folder)


def test_a_process_that_is_second_uses_the_export_of_the_first(
    tiny_bundle: Bundle, pictures: RGB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OpenVinoRuntime(tiny_bundle, cache=tmp_path / "first")
    write = openvino._write

    def second(model: object, folder: Path) -> None:
        shutil.copytree(exports(tmp_path / "first")[0], folder)
        monkeypatch.setattr(Path, "exists", lambda path: False)
        write(model, folder)

    monkeypatch.setattr(openvino, "_write", second)
    found = OpenVinoRuntime(tiny_bundle, "float32", cache=tmp_path).run(pictures)
    assert found.logits.shape == (7, 3)
    assert len(exports(tmp_path)) == 1


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
