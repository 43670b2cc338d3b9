"""What the program reads from the artefacts and does with them, as values for JSON.

``make.py`` records it with the revision that made the artefacts, ``test_compat.py`` compares it
with what the present code does. So that this file runs with both, it uses the command line and
HTTP, and only three modules: `embed.bundle`, `embed.encoder` and `train.recipe`. Each observation
runs in a folder of its own, with a copy of the artefacts.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import numpy as np
import torch
from PIL import Image

from embed.bundle import Bundle
from embed.encoder import Encoder
from train.recipe import read_recipe

KINDS = {1: "ivf", 2: "hnsw", 3: "rabitq"}
"""The kinds of index in ``approximate/``, by generation."""

NAMED = ("quick", "best", "best-taught", "finetune", "resnet18")
"""The recipes that the program has by name."""

HOUSES = '{"must": [{"key": "label", "match": {"value": "house"}}]}'


class Lookalike:
    """The program, with the store and the pictures in the working directory."""

    def __init__(self, module: str) -> None:
        """``module`` is where the command line's ``main`` is."""
        self.module = module

    def environment(self, **settings: str) -> dict[str, str]:
        """This process's environment with the settings of the program replaced."""
        kept = {name: v for name, v in os.environ.items() if not name.startswith("LOOKALIKE_")}
        ours = {
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "LOOKALIKE_DATA": "pictures",
            "LOOKALIKE_VAR": "store",
            "LOOKALIKE_DRAIN_SECONDS": "0.1",
        }
        return {**kept, **ours, **{f"LOOKALIKE_{name}": v for name, v in settings.items()}}

    def run(self, *arguments: object, code: int = 0, **settings: str) -> str:
        """Run a command in this process; return what it prints, once its exit code is ``code``."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "12")
        found: object = 0
        try:
            with (
                mock.patch.object(sys, "argv", ["lookalike", *map(str, arguments)]),
                mock.patch.dict(os.environ, self.environment(**settings), clear=True),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                importlib.import_module(self.module).main()
        except SystemExit as exit_:
            found = exit_.code
        finally:
            torch.set_flush_denormal(False)  # `train` sets it for the process
        text, said = (f.buffer.getvalue().decode() for f in (out, err))  # type: ignore[attr-defined]
        assert found == code, f"lookalike {arguments} ended with {found}: {said}"
        return text

    def json(self, *arguments: object, **settings: str) -> Any:
        """What a command prints with ``--json``."""
        return json.loads(self.run(*arguments, "--json", **settings))

    @contextlib.contextmanager
    def serving(self) -> Iterator[httpx2.Client]:
        """A client of ``lookalike serve``, which runs in a process of its own."""
        log = Path("server.log")
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "search_api.cli", "serve", "--port", "0"],
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        try:
            assert process.stdout is not None
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert url is not None, log.read_text()
            with httpx2.Client(base_url=url[0], timeout=30) as client:
                yield client
        finally:
            process.terminate()
            process.wait(30)


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """A page of results: ids with their scores, and what does not differ from run to run."""

    def ranked(points: list[dict[str, Any]]) -> list[list[float]]:
        return [[point["id"], round(point["score"], 6)] for point in points]

    groups = found["groups"]
    return {
        "points": ranked(found["points"]),
        "groups": groups and [[group["value"], ranked(group["points"])] for group in groups],
        "more": found["next_cursor"] is not None,
        **{name: found[name] for name in ("vote", "generation", "sequence")},
    }


def rounded(values: Any) -> list[list[float]]:
    """A matrix with six decimals."""
    return [[round(float(value), 6) for value in row] for row in values]


def in_float32() -> contextlib.AbstractContextManager[object]:
    """Train in float32 on every machine, so that the results can be compared."""
    return mock.patch("embed.precision.has_bfloat16", return_value=False)


def bundles(program: Lookalike) -> Any:
    """Digests, and embeddings and probabilities of all pictures in float32, by torch."""
    paths = sorted(path for path in Path("pictures").rglob("*.png") if path.stem != "broken")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    found = {}
    for folder in sorted(Path("bundles").iterdir()):
        bundle = Bundle.load(folder)
        encoder = Encoder(bundle, runtime="torch", precision="float32")
        probabilities, embeddings = encoder.encode(pictures)
        bundle.save(Path("saved"))
        found[folder.name] = {
            "digest": bundle.digest,
            "saved": Bundle.load(Path("saved")).digest,
            "architecture": bundle.architecture.to_dict(),
            "preprocess": json.loads(json.dumps(asdict(bundle.preprocess))),
            "classes": list(bundle.classes),
            "temperature": bundle.temperature,
            "metrics": bundle.metrics,
            "training": bundle.training,
            "dimension": encoder.dimension,
            "probabilities": rounded(probabilities),
            "embeddings": rounded(embeddings),
        }
    return found


def without_pictures(report: Any) -> Any:
    """A report of `index verify` without the added pictures, which later versions check too."""
    return {**report, "findings": [p for p in report["findings"] if p["part"] != "pictures"]}


def state(program: Lookalike) -> Any:
    """Status, checksums and snapshots; then damage, and a catalogue that lacks the last writes."""
    found = {
        "status": program.json("index", "status"),
        "verify": without_pictures(program.json("index", "verify")),
        "snapshots": program.json("index", "snapshot", "--list"),
    }
    path = max(Path("store/generations").glob("*/index.faiss"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    report = without_pictures(json.loads(program.run("index", "verify", "--json", code=1)))
    shutil.copy("store/snapshots/monday/catalogue.sqlite", "store/catalogue.sqlite")
    program.run("index", "status", code=1)
    return {**found, "damaged": [part["ok"] for part in report["findings"]]}


def searches(program: Lookalike) -> Any:
    """Searches by stored pictures, whose scores do not depend on what runs the network."""
    ways = {
        "one": (2, "--limit", 5),
        "all": (2, "--limit", 100),
        "threshold": (7, "--threshold", 0.5),
        "filter": (2, "--filter", HOUSES),
        "payload": (2, "--filter", '{"should": [{"key": "price", "range": {"gte": 5, "lt": 9}}]}'),
        "groups": (2, "--group-by", "label", "--group-size", 2),
        "tags": (2, "--group-by", "tags", "--limit", 2),
        "mean": ("--like", 2, "--like", 5, "--unlike", 8),
        "best": ("--like", 2, "--like", 5, "--unlike", 8, "--strategy", "best_score"),
        "diverse": (2, "--diversity", 0.7, "--limit", 4),
    }
    whole = program.json("search", 2, "--limit", 1)["points"]
    return {"whole": whole, **{n: brief(program.json("search", *w)) for n, w in ways.items()}}


def pictures(program: Lookalike) -> Any:
    """A search by a picture's file, with the runtime and the precision of this machine."""
    found = program.json("search", "pictures/test/boat/4.png", "--limit", 3)
    return {**brief(found), "prediction": found["prediction"]}


def service(program: Lookalike) -> Any:
    """What a server says of the store, then of the snapshot, once that is restored."""
    with program.serving() as client:

        def get(path: str, **params: Any) -> Any:
            return client.get(path, params=params).raise_for_status().json()

        jobs = get("/v1/jobs")["jobs"]
        for job in jobs:
            if job["state"] == "interrupted":  # when it was noticed, and in which words
                del job["finished"], job["error"]
        index, images = get("/v1/index"), get("/v1/images", limit=100)
        del index["limits"]  # of the server, not of the store
        index.pop("storage", None)  # later versions count
        return {
            "index": index,
            "models": get("/v1/models"),
            "snapshots": get("/v1/snapshots"),
            "jobs": jobs,
            "log": get(f"/v1/jobs/{jobs[-1]['id']}/log", limit=2),
            "images": images,
            "houses": get("/v1/images", filter=HOUSES),
            "files": {
                point["id"]: hashlib.sha256(client.get(point["image_url"]).content).hexdigest()
                for point in images["points"]
            },
            "tags": tags_of(client),
            "pages": [brief(page) for page in pages_of(client)],
            "restored": client.post("/v1/snapshots/monday/restore").raise_for_status().json(),
            "then": get("/v1/images", limit=100),
            "similar": brief(get("/v1/images/2/similar", limit=3)),
        }


def tags_of(client: httpx2.Client) -> Any:
    """The finer tags that the nearest pictures give a picture."""
    data = Path("photo/photo.png").read_bytes()
    answer = client.post("/v1/classify", params={"tags": True}, files={"images": data})
    (result,) = answer.raise_for_status().json()["results"]
    return result["tags"]


def pages_of(client: httpx2.Client) -> Iterator[Any]:
    """The next page of each request in ``cursors.json``, by the cursor kept with it."""
    for request in json.loads(Path("cursors.json").read_text()):
        yield send(client, request).raise_for_status().json()


def send(client: httpx2.Client, request: dict[str, Any]) -> httpx2.Response:
    """Send a request of ``cursors.json``: method, path, params, and JSON or a picture in base64."""
    files = {name: base64.b64decode(data) for name, data in request.get("files", {}).items()}
    return client.request(
        request["method"],
        request["path"],
        params=request.get("params"),
        json=request.get("json"),
        files=files or None,
    )


def maintenance(program: Lookalike) -> Any:
    """A compaction and a rebuild: what was deleted stays deleted, what was edited stays."""
    compact, build = program.json("index", "compact"), program.json("index", "build")
    skipped = json.loads(Path("store/skipped.json").read_text())
    return {
        "compact": compact,
        "build": {**build, "skipped": list(build["skipped"])},
        "skipped": list(skipped),
        "verify": without_pictures(program.json("index", "verify")),
        "labels": program.json("index", "status")["labels"],
        "search": brief(program.json("search", 2, "--limit", 100)),
    }


def restoring(program: Lookalike) -> Any:
    """The snapshot put back by the command line."""
    return {
        "restore": program.json("index", "restore", "monday"),
        "labels": program.json("index", "status")["labels"],
        "search": brief(program.json("search", 2, "--limit", 100)),
    }


def migration(program: Lookalike) -> Any:
    """A switch to the model whose embeddings are staged."""
    found = {"diff": program.json("index", "diff")}
    program.run("index", "model", "bundles/stages", "--switch")
    return {**found, "search": brief(program.json("search", 2, "--limit", 5))}


def approximate(program: Lookalike) -> Any:
    """Searches in each kind of approximate index."""
    found = {"verify": without_pictures(program.json("index", "verify", VAR="approximate"))}
    for number, kind in KINDS.items():
        Path("approximate/CURRENT").write_text(f"{number:06d}\n")
        found[kind] = {
            "status": program.json("index", "status", VAR="approximate"),
            "search": brief(
                program.json("search", 5, "--limit", 4, VAR="approximate", BUNDLE="bundles/shaped")
            ),
        }
    return found


def shards(program: Lookalike) -> Any:
    """A store made from the shard."""
    ours = {"VAR": "imported", "BUNDLE": "bundles/shaped"}
    found = {"import": program.json("index", "import", "shards", **ours)}
    status = program.json("index", "status", **ours)
    return {
        **found,
        "labels": status["labels"],
        "splits": status["splits"],
        "search": brief(program.json("search", 2, "--limit", 100, **ours)),
    }


def milvus(program: Lookalike) -> Any:
    """A store in milvus-lite, with a picture that was added and one that was deleted."""
    ours = ("--index", "milvus", "--milvus-uri", "milvus/lite.db", "--pictures", "milvus/added")
    status = program.json("index", "status", *ours)
    del status["store"]  # a text for people
    found = program.json("search", "pictures/test/house/4.png", *ours, BUNDLE="bundles/shaped")
    first = found["points"][0]
    near = program.json("search", first["id"], "--limit", 20, *ours, BUNDLE="bundles/shaped")
    similar = brief(near)
    del similar["sequence"]  # a time
    return {
        "status": status,
        "verify": program.json("index", "verify", *ours)["ok"],
        "first": first["payload"],
        "similar": similar,
    }


def run(program: Lookalike) -> Any:
    """The interrupted run, finished."""
    before = Path("run/log.csv").read_text()
    with in_float32():
        metrics = program.json("train", "--resume", "run")
    after = Path("run/log.csv").read_text()
    assert after.startswith(before), "the epochs of before have changed"
    bundle = Bundle.load(Path("run/bundle"))
    return {
        "before": before,
        "log": _log(Path("run")),
        "classes": list(bundle.classes),
        "architecture": bundle.architecture.to_dict(),
        "epochs": bundle.training["epochs_run"],
        "pictures": metrics["pictures"],
    }


def training(program: Lookalike) -> Any:
    """A run by the recipe that uses every part that a recipe can have."""
    with in_float32():
        program.run("train", "--recipe", "recipes/custom.json", "--out", "trained")
    return {"log": _log(Path("trained"))}


def recipes(program: Lookalike) -> Any:
    """The named recipes are as they were printed; a file means what it meant."""

    def printed(name: str) -> Any:
        return json.loads(program.run("train", "--print-recipe", "--recipe", name))

    for name in NAMED:
        path = f"recipes/{name}.json"
        assert read_recipe(name) == read_recipe(path), f"the recipe {name} has changed"
    return {name: printed(name) for name in (*NAMED, "recipes/custom.json")}


def evaluation(program: Lookalike) -> Any:
    """A bundle, measured on the data that its recipe says."""
    with in_float32():
        found = program.json("evaluate", "--bundle", "bundles/shaped", "--out", "reports")
    names = ("split", "classes", "pictures", "accuracy", "retrieval")
    return {name: found[name] for name in names}


def sidecar(program: Lookalike) -> Any:
    """A sidecar file is replaced where it is as it was written, and left where it is not."""
    path = Path("photo/photo.png.xmp")
    was = path.read_text()
    path.write_text(was.replace("</dc:subject>", "</dc:subject> "))
    program.run("classify", "photo/photo.png", "--xmp", code=1)
    path.write_text(was)
    path.touch()
    before = path.stat().st_ino
    program.run("classify", "photo/photo.png", "--xmp")
    assert path.stat().st_ino != before, "the sidecar file was not replaced"
    words = r"<(rdf:li|lookalike:name|lookalike:share|lookalike:class|lookalike:model)>([^<]*)<"
    program.run("classify", "photo/photo.png", "--out", "tags.csv")
    with Path("tags.csv").open(newline="") as file:
        columns, tags = next(csv.reader(file)), next(csv.reader(file))
    row = dict(zip(columns, tags, strict=True))
    return {
        "before": re.findall(words, was),
        "after": re.findall(words, path.read_text()),
        "table": {name: row[name] for name in ("path", "class", "tags", "tag_shares", "error")},
    }


def _log(folder: Path) -> list[dict[str, float]]:
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(v) for name, v in row.items() if name != "seconds"} for row in rows]


OBSERVATIONS: tuple[Callable[[Lookalike], Any], ...] = (
    bundles,
    state,
    searches,
    pictures,
    service,
    maintenance,
    restoring,
    migration,
    approximate,
    shards,
    milvus,
    run,
    training,
    recipes,
    evaluation,
    sidecar,
)


def observe(
    observation: Callable[[Lookalike], Any], artefacts: Path, folder: Path, module: str
) -> Any:
    """Make one observation of the program in ``module`` on a copy of the artefacts in ``folder``.

    Its value went through JSON, so that it can be compared with one that was read from a file.
    """
    shutil.copytree(artefacts, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder):
        return json.loads(json.dumps(observation(Lookalike(module))))
