"""`lookalike classifier`, and what other commands make of the store's classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from embed.corpus import CIFAR10_CLASSES, FolderCorpus
from search_api.service.engine import SearchEngine
from tests.search_api.cli.helpers import Done, run
from tests.search_api.conftest import MeanColour, png, rebuild
from tests.search_api.helpers import ODD, garden, tint

Lookalike = Callable[..., Done]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SearchEngine]:
    engine = SearchEngine(MeanColour(), FolderCorpus(garden(tmp_path / "garden")), tmp_path / "var")
    rebuild(engine)
    yield engine
    engine.close()


@pytest.fixture
def lookalike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lookalike:
    """Runs the command with the fake encoder, on the store of ``own``."""
    for module in ("stores.model_store", "service.engine"):
        monkeypatch.setattr(f"search_api.{module}.open_model", lambda folder, var: MeanColour())
    env = {"LOOKALIKE_VAR": str(tmp_path / "var"), "LOOKALIKE_DATA": str(tmp_path / "garden")}
    return lambda *arguments: run(*arguments, env=env)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "new"
    root.mkdir()
    (root / "a.png").write_bytes(png(tint("sea", 3)))
    (root / "b.png").write_bytes(png(ODD))
    return root


def relabel(engine: SearchEngine, of: str, to: str | None) -> None:
    ids = [entry.id for entry in engine.catalogue.page(-1, 100) if entry.label == of]
    engine.catalogue.update(ids, label=to)


def shown(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def test_show_and_fit(own: SearchEngine, lookalike: Lookalike) -> None:
    info = shown(lookalike("classifier", "show", "--json"))
    assert (info["source"], info["reason"]) == ("store", None)
    assert info["classes"] == {"leaf": 20, "rose": 20, "sea": 20}
    text = lookalike("classifier", "show").stdout
    assert "classes           3: leaf 20, rose 20, sea 20\n" in text
    assert "accuracy          100.0%, cross-validated\n" in text
    assert "none of these     below a mean similarity of 0." in text
    relabel(own, "sea", "lake")
    fitted = shown(lookalike("classifier", "fit", "--json"))
    assert fitted["classes"] == {"lake": 20, "leaf": 20, "rose": 20}
    assert fitted == shown(lookalike("classifier", "show", "--json"))
    assert own.classes.refresh().classifier is not None
    assert own.encoder.encoded == 60  # no picture was read


def test_too_few_labels(own: SearchEngine, lookalike: Lookalike) -> None:
    relabel(own, "rose", None)
    relabel(own, "sea", None)
    done = lookalike("classifier", "fit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No classifier: 1 of 1 classes can be learnt")
    assert "What is usual was measured on 60 pictures" in done.stdout


def test_without_a_store(lookalike: Lookalike) -> None:
    for command in ("show", "fit"):
        done = lookalike("classifier", command)
        assert done.returncode == 2
        assert "no store in" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_an_earlier_store(own: SearchEngine, lookalike: Lookalike) -> None:
    own.catalogue.set_meta("classifier", "")
    assert lookalike("classifier", "show").stdout == "No classifier: none has been fitted yet.\n"


def test_classify_by_the_store(own: SearchEngine, lookalike: Lookalike, pictures: Path) -> None:
    done = lookalike("classify", pictures)
    assert done.returncode == 0, done.stderr
    sea, odd = (line.split("\t") for line in done.stdout.splitlines())
    assert (sea[0], sea[2]) == ("sea", str(pictures / "a.png"))
    assert float(sea[1]) > 0.5
    assert odd[0] == "-"
    assert float(odd[1]) < 0.2
    own_classes = lookalike("classify", pictures, "--classes", "network").stdout
    assert own_classes.startswith("blue\t")
    lines = lookalike("classify", pictures, "--classes", "both", "--json").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert (first["class"], first["source"]) == ("sea", "store")
    assert first["predictions"]["network"]["class"] == "blue"
    assert second["class"] is None
    assert second["nearest_class"] in ("leaf", "rose", "sea")


def test_classify_into_tables_and_sidecars(
    own: SearchEngine, lookalike: Lookalike, pictures: Path, tmp_path: Path
) -> None:
    for entry in own.catalogue.page(-1, 100):
        own.ingest.update(entry.id, payload={"tags": [f"a {entry.label}"]})
    done = lookalike("classify", pictures, "--xmp", "--out", tmp_path / "tags.jsonl")
    assert done.returncode == 0, done.stderr
    assert "Classified 2 pictures (sea 1, none of these 1); 0 had an error." in done.stderr
    first, second = map(json.loads, (tmp_path / "tags.jsonl").read_text("utf-8").splitlines())
    assert (first["class"], first["tags"], first["source"]) == ("sea", ["a sea"], "store")
    assert (second["class"], second["error"]) == (None, None)
    assert keywords(pictures / "a.png.xmp") == ["sea", "a sea"]
    assert "lookalike:class" not in (pictures / "b.png.xmp").read_text("utf-8")
    assert not {"leaf", "rose", "sea"} & set(keywords(pictures / "b.png.xmp"))


def keywords(path: Path) -> list[str]:
    subject = ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}subject")
    rdf = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
    return [] if subject is None else [item.text or "" for item in subject.iter(rdf)]


@pytest.mark.parametrize("classes", [CIFAR10_CLASSES, ("blue", "green", "red")])
def test_classes_of_cifar10_are_no_keywords(
    lookalike: Lookalike, pictures: Path, monkeypatch: pytest.MonkeyPatch, classes: Any
) -> None:
    monkeypatch.setattr("search_api.cli.classify.CIFAR10_CLASSES", classes)
    (pictures / "c.png").write_bytes(png(tint("rose", 1)))
    done = lookalike("classify", pictures, "--xmp")
    assert done.returncode == 0, done.stderr
    warning = "No class is written into the sidecar files"
    if classes == CIFAR10_CLASSES:
        assert keywords(pictures / "a.png.xmp") == ["blue"]
        assert warning not in done.stderr
    else:
        assert keywords(pictures / "a.png.xmp") == []
        assert done.stderr.count(warning) == 1
        assert "blue 2" in done.stderr or "blue 1" in done.stderr


def test_classify_without_a_classifier(
    lookalike: Lookalike, pictures: Path, own: SearchEngine
) -> None:
    own.catalogue.set_meta("classifier", "")
    assert lookalike("classify", pictures / "a.png").stdout.startswith("blue\t0.9234\t")
    both = shown(lookalike("classify", pictures / "a.png", "--classes", "both", "--json"))
    assert both["predictions"]["store"] is None
    assert both["predictions"]["network"]["class"] == both["class"] == "blue"
    done = lookalike("classify", pictures / "a.png", "--classes", "store")
    assert done.returncode == 2
    assert "the store has no classifier of its own: none has been fitted yet" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_classify_without_a_store(lookalike: Lookalike, pictures: Path) -> None:
    done = lookalike("classify", pictures / "a.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("blue\t0.9234\t")
    done = lookalike("classify", pictures / "a.png", "--classes", "store")
    assert done.returncode == 2
    assert "there is no store in" in done.stderr


def test_search(own: SearchEngine, lookalike: Lookalike, pictures: Path) -> None:
    text = lookalike("search", pictures / "a.png", "--limit", 2).stdout
    assert text.startswith("class  sea (")
    assert "the store's classifier)" in text.splitlines()[0]
    odd = lookalike("search", pictures / "b.png", "--limit", 2).stdout.splitlines()[0]
    assert odd.startswith("class  none of these; nearest ")
    both = lookalike("search", pictures / "a.png", "--limit", 2, "--classes", "both").stdout
    assert [line.split()[1] for line in both.splitlines()[:2]] == ["sea", "blue"]
    found = shown(lookalike("search", pictures / "b.png", "--json", "--classes", "store"))
    assert found["prediction"]["class"] is None
    assert found["predictions"] is None
    done = lookalike("search", pictures / "a.png", "--classes", "shop")
    assert done.returncode == 2


@pytest.fixture
def engine(own: SearchEngine) -> SearchEngine:
    """What the live server serves."""
    return own


def test_with_a_server(live_server: str, own: SearchEngine, pictures: Path) -> None:
    info = shown(run("classifier", "show", "--server", live_server, "--json"))
    assert info["classes"] == {"leaf": 20, "rose": 20, "sea": 20}
    relabel(own, "sea", "lake")
    fitted = shown(run("classifier", "fit", "--server", live_server, "--json"))
    assert fitted["classes"] == {"lake": 20, "leaf": 20, "rose": 20}
    done = run("classify", pictures, "--server", live_server, "--xmp")
    assert done.returncode == 0, done.stderr
    assert keywords(pictures / "a.png.xmp") == ["lake"]
    assert keywords(pictures / "b.png.xmp") == []
    lines = run("classify", pictures, "--server", live_server, "--classes", "both", "--json").stdout
    assert json.loads(lines.splitlines()[0])["predictions"]["network"]["class"] == "blue"
    text = run("search", pictures / "b.png", "--server", live_server).stdout
    assert text.startswith("class  none of these; nearest ")
    for kind in ("rose", "lake"):
        relabel(own, kind, None)
    done = run("classifier", "fit", "--server", live_server)
    assert done.stdout.startswith("No classifier: 1 of 1 classes can be learnt")
