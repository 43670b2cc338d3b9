import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from index.ann import kinds
from index.ann.exact import ExactIndex
from index.contract import (
    Finding,
    GenerationCorruptError,
    GenerationFormatError,
    Manifest,
    ModelMismatchError,
    NoGenerationError,
)
from index.local.generations import (
    check_current,
    load_current,
    load_good,
    publish,
    read_manifest,
    verify,
)
from index.local.history import History, Moment
from index.local.manifest import to_json
from tests.index.vectors import random_vectors

REMEDY = "the catalogue holds everything, so run `lookalike index build`"


EMPTY = History(Moment("e", 0))


def an_index(count: int = 50) -> ExactIndex:
    index = ExactIndex(8)
    index.add(np.arange(count), random_vectors(count, 8, seed=count))
    return index


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_published_is_loaded(tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    manifest = publish(root, an_index(), "digest")
    assert (manifest.generation, manifest.count, manifest.dimension) == (1, 50, 8)
    assert (manifest.metric, manifest.kind, manifest.model_digest) == ("cosine", "exact", "digest")
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created)
    assert timedelta(seconds=-1) < age < timedelta(minutes=5)
    assert list(manifest.files) == ["index.faiss"]

    index, loaded = load_current(root, "digest")
    assert loaded == manifest
    assert read_manifest(root) == manifest
    np.testing.assert_array_equal(index.vectors(np.arange(50)), random_vectors(50, 8, seed=50))
    assert (root / "CURRENT").read_text() == "000001\n"
    assert names(root) == [".lock", "CURRENT", "generations"]
    assert names(root / "generations" / "000001") == ["index.faiss", "manifest.json"]
    assert verify(root) == [Finding("generation 1")]


def test_two_previous_generations_are_kept(tmp_path: Path) -> None:
    for count in range(1, 6):
        publish(tmp_path, an_index(count), "m")
    assert names(tmp_path / "generations") == ["000003", "000004", "000005"]
    assert load_current(tmp_path, "m")[0].count() == 5
    assert verify(tmp_path) == [Finding(f"generation {number}") for number in (3, 4, 5)]


def test_an_empty_index(tmp_path: Path) -> None:
    assert publish(tmp_path, ExactIndex(8), "m").count == 0
    assert load_current(tmp_path, "m")[0].count() == 0


def test_nothing_published(tmp_path: Path) -> None:
    call: Callable[[Path], object]
    for call in (read_manifest, verify, lambda root: load_current(root, "m")):
        with pytest.raises(
            NoGenerationError, match="has no index yet; run `lookalike index build`"
        ):
            call(tmp_path / "none")


def test_another_model(tmp_path: Path) -> None:
    publish(tmp_path, an_index(), "one")
    with pytest.raises(
        ModelMismatchError, match=f"model one, and the model in use is two; {REMEDY}"
    ):
        load_current(tmp_path, "two")


@pytest.mark.parametrize("offset", [0, 10, 100, -1])
def test_a_flipped_byte_is_found_before_faiss_reads(
    tmp_path: Path, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = publish(tmp_path, an_index(), "m")
    path = tmp_path / "generations" / "000001" / "index.faiss"
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)

    def must_not_read(*_: object) -> None:
        raise AssertionError("FAISS was given a damaged file")

    monkeypatch.setattr("faiss.read_index", must_not_read)
    with pytest.raises(GenerationCorruptError, match=r"index\.faiss: has SHA-256") as caught:
        load_current(tmp_path, "m")
    assert manifest.files["index.faiss"] in str(caught.value)
    assert REMEDY in str(caught.value)
    (finding,) = verify(tmp_path)
    assert finding == Finding("generation 1", str(caught.value))


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    publish(tmp_path, an_index(), "m")
    folder = tmp_path / "generations" / "000001"
    content = (folder / "index.faiss").read_bytes()
    (folder / "index.faiss").write_bytes(content[:-5])
    with pytest.raises(GenerationCorruptError, match=r"index\.faiss: has SHA-256"):
        load_current(tmp_path, "m")
    (folder / "index.faiss").unlink()
    with pytest.raises(
        GenerationCorruptError, match=r"index\.faiss: cannot be read .*No such file"
    ):
        load_current(tmp_path, "m")
    (folder / "manifest.json").unlink()
    with pytest.raises(GenerationCorruptError, match=r"manifest\.json: cannot be read"):
        load_current(tmp_path, "m")
    shutil.rmtree(folder)
    with pytest.raises(GenerationCorruptError, match=r"manifest\.json: cannot be read"):
        read_manifest(tmp_path)


def test_a_damaged_manifest(tmp_path: Path) -> None:
    publish(tmp_path, an_index(), "m")
    path = tmp_path / "generations" / "000001" / "manifest.json"
    text = path.read_text()
    for damaged, message in (
        (text[:-9], "is not JSON"),
        ("[]", "is not a JSON object"),
        (text.replace('"count": 50', '"count": 51'), "has SHA-256 .* over its fields"),
        (text.replace('"model_digest": "m"', '"model_digest": "n"'), "over its fields"),
    ):
        path.write_text(damaged)
        with pytest.raises(GenerationCorruptError, match=message):
            load_current(tmp_path, "m")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(GenerationCorruptError, match="cannot be read"):
        load_current(tmp_path, "m")


def rewritten(root: Path, **changes: object) -> None:
    path = root / "generations" / "000001" / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(to_json(Manifest(**{**content, **changes})))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"format_version": 9},
            GenerationFormatError,
            "format version 9, and this Lookalike reads 2",
        ),
        ({"kind": "hnsw"}, GenerationFormatError, "has kind 'hnsw' without its parameters"),
        ({"metric": "l2"}, GenerationFormatError, "has metric 'l2'"),
        ({"files": {"../x": "0"}}, GenerationFormatError, r"files \['../x'\]"),
        (
            {"generation": 2},
            GenerationCorruptError,
            "describes generation 2 .* expected generation 1",
        ),
        ({"count": 49}, GenerationCorruptError, "has 50 vectors of 8; the manifest says 49 of 8"),
    ],
)
def test_a_manifest_that_says_something_else(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    publish(tmp_path, an_index(), "m")
    rewritten(tmp_path, **changes)
    with pytest.raises(error, match=message):
        load_current(tmp_path, "m")


@pytest.mark.parametrize("content", [b"", b"one\n", b"../../x", b"\xff", b"1"])
def test_a_damaged_current(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path, an_index(), "m")
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(GenerationCorruptError, match=r"CURRENT: says .* expected six digits"):
        load_current(tmp_path, "m")
    publish(tmp_path, an_index(7), "m")
    assert load_current(tmp_path, "m")[0].count() == 7


def test_a_lost_current(tmp_path: Path) -> None:
    for count in (1, 2):
        publish(tmp_path, an_index(count), "m")
    check_current(tmp_path)
    (tmp_path / "CURRENT").unlink()
    for call in (check_current, read_manifest):
        with pytest.raises(GenerationCorruptError, match="CURRENT: is missing, and there are gen"):
            call(tmp_path)
    index, manifest, problem = load_good(tmp_path, "m", lambda: EMPTY, lambda *_: True)
    assert (index.count(), manifest.generation) == (2, 2)
    assert "CURRENT: is missing" in str(problem)
    (tmp_path / "CURRENT").write_text("000007\n")
    with pytest.raises(GenerationCorruptError, match="names generation 7, which is missing"):
        check_current(tmp_path)
    assert load_good(tmp_path, "m", lambda: EMPTY, lambda *_: True)[1].generation == 2


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    publish(tmp_path, an_index(3), "m")

    class Full(ExactIndex):
        def save(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        publish(tmp_path, Full(8), "m")
    assert names(tmp_path / "generations") == ["000001"]
    assert load_current(tmp_path, "m")[0].count() == 3


def test_verify_reports_each_generation(tmp_path: Path) -> None:
    for count in (1, 2, 3):
        publish(tmp_path, an_index(count), "m")
    (tmp_path / "generations" / "000002" / "index.faiss").write_bytes(b"")
    findings = verify(tmp_path)
    assert [(f.part, f.problem is None) for f in findings] == [
        ("generation 1", True),
        ("generation 2", False),
        ("generation 3", True),
    ]
    assert "000002/index.faiss: has SHA-256" in str(findings[1].problem)


def test_what_a_publisher_removes_meanwhile_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (1, 2, 3):
        publish(tmp_path, an_index(count), "m")
    load = kinds.load

    def load_slowly(folder: Path, *rest: object) -> object:
        loaded = load(folder, *rest)
        if folder.name == "000001":
            monkeypatch.undo()
            for count in (4, 5):
                publish(tmp_path, an_index(count), "m")
        return loaded

    monkeypatch.setattr("index.ann.kinds.load", load_slowly)
    assert verify(tmp_path) == [Finding("generation 1"), Finding("generation 3")]
