"""XMP sidecar files: their content, and which files are replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from search_api.offline import sidecars
from search_api.service.results import Prediction, Tagged

CAT = Prediction("cat", 0.96875, {"cat": 0.96875, "dog": 0.03125}, "cat", "usual", "store")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
OWN = f"{{{sidecars.NAMESPACE}}}"


def test_a_sidecar_is_valid_xmp(tmp_path: Path) -> None:
    label = "R&D <cats> \x0c\ud800"
    result = Tagged(
        tmp_path / "a.jpg",
        Prediction(label, 0.5, {label: 0.5}, label, "usual", "network"),
        (("tabby", 0.7), ("\U0001f431", 0.3)),
    )
    path = sidecars.write(result, "sha256:abc")
    assert path == tmp_path / "a.jpg.xmp"
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{adobe:ns:meta/}xmpmeta"
    (described,) = root.iter(f"{RDF}Description")
    subject = described.find("{http://purl.org/dc/elements/1.1/}subject")
    assert subject is not None
    assert [li.text for li in subject.iter(f"{RDF}li")] == [
        "R&D <cats> \ufffd\\ud800",
        "tabby",
        "\U0001f431",
    ]
    assert described.findtext(f"{OWN}confidence") == "0.500000"
    assert described.findtext(f"{OWN}model") == "sha256:abc"
    assert [e.text for e in described.iter(f"{OWN}share")] == ["0.7000", "0.3000"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg.xmp"]


def test_our_own_sidecar_is_replaced_and_no_other(tmp_path: Path) -> None:
    result = Tagged(tmp_path / "a.jpg", CAT, (("tabby", 0.7),))
    path = sidecars.write(result, "old")
    sidecars.write(result, "new")
    assert path.read_bytes() == sidecars.document(result, "new")
    edited = path.read_bytes().replace(b"tabby", b"my cat")
    elsewhere = tmp_path / "elsewhere"
    for foreign in (edited, b"<x:xmpmeta/>", b"\xff" * 100):
        path.write_bytes(foreign)
        with pytest.raises(sidecars.ForeignSidecarError, match="left unchanged"):
            sidecars.write(result, "newer")
        assert path.read_bytes() == foreign
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(sidecars.ForeignSidecarError):
        sidecars.write(result, "newer")
    assert path.is_symlink() and not elsewhere.exists()


def test_a_link_to_a_sidecar_of_ours_is_left(tmp_path: Path) -> None:
    ours = sidecars.write(Tagged(tmp_path / "a.jpg", CAT), "model")
    link = tmp_path / "b.jpg.xmp"
    link.symlink_to(ours)
    with pytest.raises(sidecars.ForeignSidecarError):
        sidecars.write(Tagged(tmp_path / "b.jpg", CAT), "model")
    assert link.is_symlink()


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    result = Tagged(tmp_path / "a.jpg", CAT)
    sidecars.sidecar(result.path).touch()
    assert sidecars.write(result, "model").read_bytes() == sidecars.document(result, "model")


def test_a_file_that_appears_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Tagged(tmp_path / "a.jpg", CAT)
    path = sidecars.sidecar(result.path)
    document = sidecars.document

    def slow(*values: object) -> bytes:
        path.write_text("theirs")
        return document(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(sidecars, "document", slow)
    with pytest.raises(sidecars.ForeignSidecarError, match="just been written"):
        sidecars.write(result, "model")
    assert path.read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg.xmp"]


def test_without_a_class_there_are_only_tags(tmp_path: Path) -> None:
    tags = (("tabby", 0.7),)
    for prediction in (None, replace(CAT, label=None)):
        text = sidecars.document(Tagged(tmp_path / "a.jpg", prediction, tags), "m").decode()
        assert "cat" not in text and "lookalike:class" not in text and "confidence" not in text
        assert text.count("<rdf:li>") == 1 and "<rdf:li>tabby</rdf:li>" in text
    path = sidecars.write(Tagged(tmp_path / "a.jpg", replace(CAT, label=None)), "m")
    assert "dc:subject" not in path.read_text("utf-8")
    ElementTree.parse(path)
    sidecars.write(Tagged(tmp_path / "a.jpg", CAT), "m")  # it is ours, so it is replaced
    assert "<rdf:li>cat</rdf:li>" in path.read_text("utf-8")
