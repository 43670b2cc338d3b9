"""`lookalike classify --out --xmp`: tables, sidecar files, votes, which files are taken."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from index.lists import QuickLists
from search_api import tables, xmp
from search_api.commands import tagging
from search_api.engine import SearchEngine
from search_api.results import Prediction, Tagged
from search_api.tagging import NeighbourTags, count, tag_files, words
from tests.search_api.conftest import CLASSES, MeanColour, colour, png

CAT = Prediction("cat", 0.96875, {"cat": 0.96875, "dog": 0.03125})
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
OWN = f"{{{xmp.NAMESPACE}}}"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "new"
    (root / "deep").mkdir(parents=True)
    (root / "red.png").write_bytes(png(colour("red", 0)))
    (root / "bad.png").write_bytes(b"rubbish")
    (root / "deep" / "blue.PNG").write_bytes(png(colour("blue", 0)))
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the command with the fake encoder."""
    monkeypatch.setattr("search_api.commands.open.open_model", lambda folder: MeanColour())

    def run(*arguments: object) -> Result:
        given = [*map(str, arguments), "--var", str(tmp_path / "var")]
        return CliRunner().invoke(tagging.classify, given)

    return run


def test_votes_by_hand() -> None:
    voters = [("van", "red"), ("van",), ("van",), ("red",), ("tabby",), (), (), (), (), ("red",)]
    assert count(voters) == (("red", 0.3), ("van", 0.3))
    assert count([("a",), ("a", "b"), ("b",), ()]) == (("a", 0.5), ("b", 0.5))
    assert count([]) == ()
    assert words(["van", "van", 3, "", "red"]) == ("van", "red")
    assert words("van") == ("van",)
    assert words(None) == words({"a": 1}) == words(7) == ()


def test_neighbours_vote_with_their_payload(engine: SearchEngine) -> None:
    reds = [e.id for e in engine.catalogue.page(-1, 100) if e.label == "red"]
    for id_ in reds[:6]:
        engine.writer.update(id_, payload={"tags": ["fire engine"]})
    engine.writer.update(reds[6], payload={"tags": "scarlet"})
    vote = NeighbourTags(engine.served, engine.catalogue)
    embeddings = MeanColour().encode([np.full((2, 2, 3), colour("red", 3), np.uint8)]).embeddings
    assert vote(embeddings) == [(("fire engine", 0.6),)]


def test_many_queries_are_voted_on_by_inverted_lists(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.tagging.MANY_QUERIES", 3)
    monkeypatch.setattr("search_api.tagging.MANY_STORED", 24)
    for entry in engine.catalogue.page(-1, 100):
        engine.writer.update(entry.id, payload={"tags": [f"plain {entry.label}"]})
    asked: list[int] = []
    nearest = QuickLists.nearest
    monkeypatch.setattr(
        QuickLists, "nearest", lambda *values: (asked.append(values[2]), nearest(*values))[1]
    )
    shades = [np.full((2, 2, 3), colour(name, 3), np.uint8) for name in ("red", "green", "blue")]
    embeddings = MeanColour().encode(shades).embeddings
    few = NeighbourTags(engine.served, engine.catalogue, 2)(embeddings)
    assert not asked
    many = NeighbourTags(engine.served, engine.catalogue, 3)(embeddings)
    assert asked == [10]
    assert [tags[0][0] for tags in many] == ["plain red", "plain green", "plain blue"]
    assert [tags[0] for tags in few] == [(f"plain {c}", 0.8) for c in ("red", "green", "blue")]


def test_results_come_in_the_order_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search_api.ingest.BATCH", 2)
    names = ["red", "green", "blue", "red", "red", "blue", "green"]
    files = [tmp_path / f"{n}.png" for n in range(7)]
    for file, name in zip(files, names, strict=True):
        file.write_bytes(png(colour(name, 2)))
    files[2:4] = [tmp_path / "one.png", tmp_path / "two.png"]  # a batch without any picture
    votes = []

    def vote(xb: np.ndarray) -> list[tuple[tuple[str, float], ...]]:
        votes.append(len(xb))
        return [((CLASSES[int(row.argmax())], 1.0),) for row in xb[:, ::-1]]

    found = list(tag_files(MeanColour(), files, vote))
    assert [len(batch) for batch in found] == [2, 2, 2, 1]
    results = [result for batch in found for result in batch]
    assert [result.path for result in results] == files
    assert [r.prediction.label if r.prediction else None for r in results] == [
        "red", "green", None, None, "red", "blue", "green"
    ]  # fmt: skip
    assert [r.tags[0][0] for r in results if r.tags] == ["red", "green", "red", "blue", "green"]
    assert sorted(votes) == [1, 2, 2]


def test_each_file_has_its_own_result(pictures: Path) -> None:
    files = [pictures / "bad.png", pictures / "red.png", pictures / "missing.png", pictures]
    (batch,) = tag_files(MeanColour(), files, lambda xb: [(("van", 0.5),)] * len(xb))
    assert [result.path for result in batch] == files
    assert [bool(result.error) for result in batch] == [True, False, True, True]
    assert "not a picture" in (batch[0].error or "")
    assert batch[1].prediction is not None and batch[1].prediction.label == "red"
    assert batch[1].tags == (("van", 0.5),)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    ((result,),) = tag_files(MeanColour(), [tmp_path / "pipe.png"])
    assert result.error == "it is not a file"


def write(path: Path, results: Sequence[Tagged]) -> None:
    with tables.table(path) as add:
        add(results[:1])
        add(results[1:])


RESULTS = [
    Tagged(Path("a;1.jpg"), CAT, (("tabby", 0.7), ("striped, grey", 0.3))),
    Tagged(Path("b\udc80.png"), error="the file is empty"),
]


def test_csv(tmp_path: Path) -> None:
    write(tmp_path / "tags.csv", RESULTS)
    with (tmp_path / "tags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "class", "confidence", "tags", "tag_shares", "error"],
        ["a;1.jpg", "cat", "0.96875", "tabby;striped, grey", "0.7;0.3", ""],
        ["b\\udc80.png", "", "", "", "", "the file is empty"],
    ]


def test_jsonl(tmp_path: Path) -> None:
    write(tmp_path / "tags.jsonl", RESULTS)
    first, second = map(json.loads, (tmp_path / "tags.jsonl").read_text("utf-8").splitlines())
    assert first == {
        "path": "a;1.jpg",
        "class": "cat",
        "confidence": 0.96875,
        "tags": ["tabby", "striped, grey"],
        "tag_shares": [0.7, 0.3],
        "error": None,
        "probabilities": {"cat": 0.96875, "dog": 0.03125},
    }
    assert (second["class"], second["tags"], second["error"]) == (None, [], "the file is empty")


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "tags.parquet", RESULTS)
    found = parquet.read_table(tmp_path / "tags.parquet").to_pylist()
    assert found == [tables.row(result) for result in RESULTS]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(tables.TableError, match=r"pip install 'lookalike\[parquet\]'"):
        tables.check(tmp_path / "tags.parquet")


def test_a_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("old")
    with pytest.raises(KeyError), tables.table(tmp_path / "tags.csv") as add:
        add(RESULTS)
        raise KeyError
    assert (tmp_path / "tags.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["tags.csv"]


def test_a_sidecar_is_valid_xmp(tmp_path: Path) -> None:
    label = "R&D <cats> \x0c\ud800"
    result = Tagged(
        tmp_path / "a.jpg",
        Prediction(label, 0.5, {label: 0.5}),
        (("tabby", 0.7), ("\U0001f431", 0.3)),
    )
    path = xmp.write(result, "sha256:abc")
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
    path = xmp.write(result, "old")
    xmp.write(result, "new")
    assert path.read_bytes() == xmp.document(result, "new")
    edited = path.read_bytes().replace(b"tabby", b"my cat")
    elsewhere = tmp_path / "elsewhere"
    for foreign in (edited, b"<x:xmpmeta/>", b"\xff" * 100):
        path.write_bytes(foreign)
        with pytest.raises(xmp.ForeignSidecarError, match="left as it is"):
            xmp.write(result, "newer")
        assert path.read_bytes() == foreign
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(xmp.ForeignSidecarError):
        xmp.write(result, "newer")
    assert path.is_symlink() and not elsewhere.exists()


def test_classify_a_folder(classify, pictures: Path, engine: SearchEngine, tmp_path: Path) -> None:
    for entry in engine.catalogue.page(-1, 100):
        engine.writer.update(entry.id, payload={"tags": [f"pure {entry.label}"]})
    (pictures / "deep" / "blue.PNG.xmp").write_text("mine")
    done = classify(pictures, "--out", tmp_path / "tags.jsonl", "--xmp")
    assert done.exit_code == 1
    assert done.stdout == ""
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    by_name = {Path(row["path"]).name: row for row in rows}
    assert [row["path"] for row in rows] == [
        str(pictures / name) for name in ("bad.png", "red.png", "deep/blue.PNG")
    ]
    assert (by_name["red.png"]["class"], by_name["red.png"]["tags"]) == ("red", ["pure red"])
    assert by_name["red.png"]["tag_shares"] == [0.8]  # eight of the ten
    assert by_name["red.png"]["error"] is None
    assert "not a picture" in by_name["bad.png"]["error"]
    assert by_name["blue.PNG"]["class"] == "blue"
    assert "no sidecar file" in by_name["blue.PNG"]["error"]
    assert "pure red" in (pictures / "red.png.xmp").read_text("utf-8")
    assert (pictures / "deep" / "blue.PNG.xmp").read_text() == "mine"
    assert "2 pictures classified (red 1, blue 1); 2 with an error." in done.stderr


def test_without_a_store_there_are_no_tags(classify, pictures: Path, tmp_path: Path) -> None:
    done = classify(pictures / "red.png", "--out", tmp_path / "tags.jsonl")
    assert done.exit_code == 0
    assert json.loads((tmp_path / "tags.jsonl").read_text())["tags"] == []
    assert "No finer tags: there is no store" in done.stderr


def test_which_files_are_taken(classify, pictures: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(colour("green", 0)))
    (pictures / "bad.png").unlink()
    (pictures / "out.png").symlink_to(outside)
    (pictures / "in.png").symlink_to(pictures / "red.png")
    (pictures / "loop.png").symlink_to(pictures / "loop.png")
    (pictures / "up").symlink_to(tmp_path, target_is_directory=True)
    (pictures / ".hidden.png").write_bytes(png(colour("green", 0)))
    (pictures / ".trash").mkdir()
    (pictures / ".trash" / "x.png").write_bytes(png(colour("green", 0)))

    def taken(*arguments: object) -> list[str]:
        done = classify(pictures, pictures / "red.png", *arguments)
        return [Path(line.split("\t")[2]).name for line in done.stdout.splitlines()]

    assert taken() == ["in.png", "red.png", "blue.PNG"]
    assert taken("--no-recursive") == ["in.png", "red.png"]


@pytest.mark.parametrize(
    ("out", "words"), [("tags.xlsx", ".parquet"), ("missing/tags.csv", "does not exist")]
)
def test_wrong_tables_are_refused_first(
    classify, pictures: Path, tmp_path: Path, out, words
) -> None:
    done = classify(pictures, "--out", tmp_path / out)
    assert isinstance(done.exception, tables.TableError)
    assert words in str(done.exception)
