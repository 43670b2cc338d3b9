"""Makes the artefacts in ``made_by_6b53b91`` and what that revision says of them.

It only runs with the code of revision 6b53b91, whose modules it imports by their old names:

    git worktree add OLD 6b53b91
    PYTHONPATH=OLD python tests/compat/make.py FOLDER

writes ``made_by_6b53b91`` into FOLDER. It is kept to show how they were made; running it again
gives other times and checksums, and so another ``expected.json``.
"""

# ruff: noqa: I001 - the imports are those of an old revision

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from observations import NAMED, OBSERVATIONS, Lookalike, observe, send
from PIL import Image

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.corpus import open_corpus
from embed.resnet import build
from embed.scenes import render
from index.catalogue import Record
from index.filters import parse_filter
from search_api.commands.open import open_engine
from search_api.job import Job
from search_api.job_store import JobStore
from search_api.settings import Milvus, Place
from search_api.writer import Upload
from train.data import load_dataset
from train.loop import train
from train.proxy import Proxy
from train.recipe import Recipe, read_recipe
from train.selection import Selection
from train.shaping import Shaping, shape

NAME = "made_by_6b53b91"
CLI = "search_api.cli"
CLASSES = ("boat", "house", "tree")


def picture(path: Path, label: str, seed: int) -> bytes:
    """Write a rendered scene as a small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(label, seed)).save(path, optimize=True)
    return path.read_bytes()


def make_pictures(root: Path, train_seeds: range, test_seeds: range) -> None:
    """A folder of pictures, one sub-folder a split and in it one a class."""
    for split, seeds in (("train", train_seeds), ("test", test_seeds)):
        for label in CLASSES:
            for seed in seeds:
                picture(root / split / label / f"{seed}.png", label, seed)


def make_bundles(scratch: Path) -> None:
    """A plain bundle, one with a shaped embedding, and one shaped as bundles were before."""
    make_pictures(scratch / "many", range(100, 160), range(100, 110))
    recipe = Recipe(
        name="tiny",
        widths=(24, 24, 24),
        epochs=8,
        batch_size=32,
        optimiser="muon",
        lr=0.1,
        momentum=0.6,
        schedule="linear",
        warmup=0.0,
        validation=0.2,
        selection=Selection(hardest=0.5, others=0.3),
    )
    data = load_dataset(open_corpus(scratch / "many"), recipe.size, recipe.validation, recipe.seed)
    plain = train(recipe, data, scratch / "trained")
    plain.save(Path("bundles/plain"), "# Plain\n")
    shaped = shape(plain, data.train.pictures, Shaping(likeness=8))
    shaped.save(Path("bundles/shaped"), "# Shaped\n")
    # No code has made such bundles lately; only their format is of interest.
    architecture = Architecture(classes=3, widths=(24, 24, 24), likeness=8, rows=1)
    torch.manual_seed(0)
    network = build(architecture)
    state = {name: torch.tensor(values) for name, values in plain.weights.items()}
    kept = {name: values for name, values in state.items() if not name.startswith("head.")}
    network.load_state_dict(kept, strict=False)
    weights = {
        name: (t.half().float() if t.is_floating_point() else t).numpy()
        for name, t in network.state_dict().items()
    }
    stages = dataclasses.replace(plain, architecture=architecture, weights=weights, temperature=1.5)
    stages.save(Path("bundles/stages"), "# Stages\n")
    assert (
        "pooling" not in json.loads(Path("bundles/stages/bundle.json").read_text())["architecture"]
    )


def make_store(program: Lookalike, scratch: Path) -> None:
    """A store with everything in it that a store can have; see the comments."""
    Path("pictures/train/boat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    program.run("index", "build", BUNDLE="bundles/plain")
    with open_engine(
        Path("pictures"), Path("store"), Path("bundles/plain"), where=Place()
    ) as engine:
        engine.load()
        add = engine.writer.add
        added = add(
            [
                Upload(
                    picture(scratch / f"{key}.png", label, seed),
                    key=key,
                    label=label,
                    split="val",
                    payload={"price": price, "tags": ["new", label], "shop": {"town": "Köln"}},
                )
                for key, label, seed, price in (("a", "house", 50, 7.5), ("b", "boat", 51, 9))
            ]
        )
        ids = {entry.source: entry.id for entry in engine.catalogue.page(-1, 100)}
        # Tags for `classify`, a label by hand, a picture of the corpus deleted for good.
        for source in sorted(ids)[1::2]:
            engine.writer.update(ids[source], payload={"tags": ["wet", "old"]})
        engine.writer.update(ids["train/tree/1.png"], label="house", split="val")
        engine.writer.delete(ids["train/boat/2.png"])
    # The first model gives way to the second, which the store then keeps under models/.
    program.run("index", "model", "bundles/shaped", "--switch", BUNDLE="bundles/plain")
    program.run("index", "compact")
    program.run("index", "snapshot", "monday")
    # What the newest generation does not have: a new picture, one replaced, one deleted by a
    # filter, a changed payload.
    with open_engine(Path("pictures"), Path("store"), None, where=Place()) as engine:
        engine.load()
        engine.writer.add(
            [
                Upload(picture(scratch / "c.png", "tree", 52), label="tree", payload={"price": 4}),
                Upload(picture(scratch / "b.png", "boat", 53), key="b", label="boat"),
            ]
        )
        engine.writer.delete_many(
            None, parse_filter({"must": [{"key": "source", "match": {"value": "test/tree/4.png"}}]})
        )
        engine.writer.update(int(added[0]), payload={"price": 8.25})
    # A third model has embedded everything, and nobody has switched to it.
    program.run("index", "model", "bundles/stages")
    make_jobs()


def make_jobs() -> None:
    """A finished job that left pictures out, and one whose process died."""
    jobs = JobStore(Path("store/jobs"))
    job = Job("a" * 32, "rebuild", "running", "embedding", 3, 12, started=1.7e9)
    jobs.begin(job, 100)
    jobs.skip(job.id, 0, {"train/boat/broken.png": "not a picture", "x\udce9.png": "gone"})
    jobs.skip(job.id, 2, {"y.png": "gone"})
    result = {"generation": 1, "total": 12, "embedded": 12, "removed": 0, "skipped": 3}
    jobs.save(
        dataclasses.replace(
            job, state="succeeded", finished=1.7e9 + 5, done=12, result=result, skipped=3
        )
    )
    jobs.begin(Job("b" * 32, "compact", "running", "indexing", 1, 2, started=1.7e9 + 9), 100)
    jobs.close()


def make_approximate(digest: str) -> None:
    """A store of random vectors, with a generation of each approximate kind."""
    where = (Path("pictures"), Path("approximate"), Path("bundles/shaped"))
    with open_engine(*where, where=Place()) as engine:
        rng = np.random.default_rng(0)
        xb = rng.normal(size=(80, engine.encoder.dimension)).astype(np.float32)
        xb /= np.linalg.norm(xb, axis=1, keepdims=True)
        records = [Record(f"{n}.png", None, CLASSES[n % 3]) for n in range(len(xb))]
        engine.catalogue.upsert(records, xb, digest)
        engine.catalogue.set_meta("corpus", engine.corpus.name)
        for kind in ("ivf", "hnsw", "rabitq"):
            engine.builder.set_kind(kind)
            engine.compact()


def make_milvus(scratch: Path) -> None:
    """A store in milvus-lite."""
    where = Place(Milvus("milvus/lite.db"), "milvus/added")
    bundle = Path("bundles/shaped")
    with open_engine(Path("pictures"), Path("milvus/var"), bundle, where=where) as engine:
        engine.rebuild()
        data = picture(scratch / "d.png", "house", 54)
        engine.writer.add([Upload(data, "d", "house", payload={"price": 3, "tags": ["new"]})])
        ids = {entry.source: entry.id for entry in engine.catalogue.page(-1, 100)}
        engine.writer.delete(ids["train/tree/2.png"])
        engine.writer.update(ids["train/boat/1.png"], label="house")


def make_run() -> None:
    """A run that was interrupted after two of its four epochs."""
    recipe = Recipe(
        name="interrupted",
        widths=(24, 24, 24),
        epochs=4,
        batch_size=6,
        optimiser="muon",
        lr=0.05,
        dropout=0.1,
        low_share=0.25,
        proxy=Proxy(keep=0.5, widths=(24, 24, 24), every=1),
        shaping=Shaping(likeness=4),
        validation=0.3,
        patience=3,
    )

    def stop(epoch: Any) -> None:
        if epoch.epoch == 1:
            raise KeyboardInterrupt

    data = load_dataset(open_corpus(Path("pictures")), recipe.size, recipe.validation, recipe.seed)
    with contextlib.suppress(KeyboardInterrupt):
        train(recipe, data, Path("run"), report=stop)


def make_recipes(program: Lookalike) -> None:
    """What ``--print-recipe`` prints, a recipe that uses every part that stayed, and one more."""
    Path("recipes").mkdir()
    for name in NAMED:
        text = program.run("train", "--print-recipe", "--recipe", name)
        Path(f"recipes/{name}.json").write_text(text)
    custom = {
        "name": "custom",
        "widths": [24, 24, 32],
        "depth": 3,
        "epochs": 4,
        "batch_size": 6,
        "optimiser": "adamw",
        "lr": 0.002,
        "schedule": "linear",
        "augment": {"flip": "alternating", "translate": 2, "rotate": 5, "cutout": 4},
        "proxy": {"keep": 0.75, "widths": [24, 24, 24], "every": 2},
        "shaping": {"likeness": 6, "rows": 1, "weight": 0.5},
        "validation": 0.3,
        "class_balance": 0.9,
    }
    Path("recipes/custom.json").write_text(json.dumps(custom, indent=2) + "\n")
    read_recipe("recipes/custom.json")
    custom["selection"] = {"hardest": 0.3, "others": 0.2, "first": 0.25, "last": 0.25}
    Path("recipes/selection.json").write_text(json.dumps(custom, indent=2) + "\n")


def make_sidecar(program: Lookalike) -> None:
    """A picture that is not in the store, and its sidecar file."""
    picture(Path("photo/photo.png"), "house", 70)
    program.run("classify", "photo/photo.png", "--xmp")


def make_cursors(program: Lookalike, scratch: Path) -> None:
    """A request of each kind, each with the cursor of its next page."""
    upload = base64.b64encode(picture(scratch / "query.png", "boat", 71)).decode()
    where = {"must": [{"key": "label", "match": {"any": ["house", "tree"]}}]}
    deep = {
        "should": [
            {"must": [{"key": "price", "range": {"lt": 8}}]},
            {"key": "split", "match": {"value": "train"}},
        ],
        "must_not": [{"has_id": [2, 3]}],
    }
    examples = {"positive": [2, 5], "negative": [8], "limit": 3}
    similar = "/v1/images/2/similar"
    requests: list[dict[str, Any]] = [
        {"method": "GET", "path": similar, "params": {"limit": 3}},
        {"method": "GET", "path": similar, "params": {"limit": 2, "filter": json.dumps(where)}},
        {"method": "GET", "path": similar, "params": {"limit": 2, "filter": json.dumps(deep)}},
        {"method": "GET", "path": similar, "params": {"limit": 1, "group_by": "label"}},
        {"method": "POST", "path": "/v1/recommend", "json": examples},
        {
            "method": "POST",
            "path": "/v1/recommend",
            "json": {**examples, "strategy": "best_score", "group_by": "tags", "limit": 1},
        },
        {
            "method": "POST",
            "path": "/v1/search",
            "params": {"limit": 3},
            "files": {"image": upload},
        },
    ]
    with program.serving() as client:
        for request in requests:
            answer = send(client, request).raise_for_status().json()
            target = request["json"] if "json" in request else request["params"]
            target["cursor"] = answer["next_cursor"]
            assert target["cursor"], request
    Path("cursors.json").write_text(json.dumps(requests, indent=1) + "\n")


def in_lines(expected: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each value of the second level."""
    parts = []
    for name, values in expected.items():
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.items()]
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def tidy() -> None:
    """Remove what belongs to this machine or is made again: exports, locks, logs of the board."""
    names = (".export", "events.out.*", "*.lock", "LOCK")
    for path in [path for name in names for path in Path().rglob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(Path().rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()  # git would not keep it
    left = [str(path) for path in Path().rglob("*-wal")]
    assert not left, f"not closed: {left}"


def main() -> None:
    """See the module."""
    target = Path(sys.argv[1]).absolute() / NAME
    target.mkdir(parents=True)
    torch.set_num_threads(1)
    program = Lookalike(CLI)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        os.chdir(target)
        make_pictures(Path("pictures"), range(3), range(4, 5))
        make_bundles(scratch)
        make_store(program, scratch)
        make_approximate(Bundle.load(Path("bundles/shaped")).digest)
        program.run(
            *("index", "embed", "--shard", "1/1", "--out", "shards"), BUNDLE="bundles/shaped"
        )
        make_milvus(scratch)
        make_run()
        make_recipes(program)
        make_sidecar(program)
        shutil.copytree(target, scratch / "copy")  # a server writes into the store
        os.chdir(scratch / "copy")
        make_cursors(program, scratch)
        shutil.copy("cursors.json", target)
        os.chdir(target)
        tidy()
        expected = {}
        for observation in OBSERVATIONS:
            name = observation.__name__
            expected[name] = observe(observation, target, scratch / "observed" / name, CLI)
    Path("expected.json").write_text(in_lines(expected), encoding="utf-8")


if __name__ == "__main__":
    main()
