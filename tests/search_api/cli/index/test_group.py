"""`lookalike index status` and `verify`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from embed.bundle import Bundle
from index.blobs.folder import FolderBlobs
from index.local.catalogue import SqliteCatalogue
from index.records import Record
from tests.search_api.cli.helpers import Env, Server, run


def test_index_status_and_verify(store: Env) -> None:
    status = json.loads(run("index", "status", "--json", env=store).stdout)
    assert status["pictures"] == status["indexed"] == 24
    assert status["corpus"] == store["LOOKALIKE_DATA"]
    assert status["labels"] == {"boat": 8, "house": 8, "tree": 8}
    assert status["model"] == Bundle.load(Path(store["LOOKALIKE_BUNDLE"])).digest
    text = run("index", "status", env=store).stdout
    assert re.search(r"^pictures +24$", text, re.MULTILINE)
    verify = json.loads(run("index", "verify", "--json", env=store).stdout)
    assert verify["ok"] is True
    assert [finding["part"] for finding in verify["findings"]][-1] == "catalogue"


def test_verify_finds_a_flipped_byte(own: Env) -> None:
    (path,) = Path(own["LOOKALIKE_VAR"]).glob("generations/*/index.faiss")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    done = run("index", "verify", "--json", env=own)
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert [finding["ok"] for finding in findings] == [False, True]
    assert "index.faiss" in findings[0]["problem"]
    server = Server("serve", own)
    assert server.get("/v1/index")["generation"] == 2
    _, stderr = server.stop()
    assert "index.faiss: has SHA-256" in stderr
    assert "Rebuilt from the catalogue: generation 2 with 24 pictures." in stderr


def test_verify_names_damaged_pictures(own: Env) -> None:
    var = Path(own["LOOKALIKE_VAR"])
    name = FolderBlobs(var / "pictures").put(b"some picture")
    with SqliteCatalogue(var / "catalogue.sqlite") as catalogue:
        model = catalogue.model() or ""
        xb = catalogue.embeddings(model)[1][:1]
        record = Record("key:mine", None, None, {}, name, "added")
        (id_,) = catalogue.upsert([record], xb, model)
    assert "pictures       ok" in run("index", "verify", env=own).stdout
    (path,) = var.glob("pictures/??/*")
    path.write_bytes(b"other picture")
    done = run("index", "verify", "--rate", "0.5", env=own)
    assert done.returncode == 1
    assert f"picture {name} " in done.stdout
    assert "is damaged, its SHA-256 is" in done.stdout
    assert f"it belongs to id {id_} (key:mine)" in done.stdout
    assert run("index", "verify", "--no-pictures", env=own).returncode == 0
    assert run("index", "verify", "--rate", "0", env=own).returncode == 2


@pytest.mark.slow
def test_a_build_that_would_remove_too_much_stops(own: Env, scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(scenes, folder)
    env = {**own, "LOOKALIKE_DATA": str(folder), "LOOKALIKE_VAR": str(tmp_path / "var")}
    assert run("index", "build", env=env).returncode == 0
    shutil.rmtree(folder / "boat")
    done = run("index", "build", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "would remove 8 of the 24 pictures" in done.stderr
    assert "--allow-removal" in done.stderr
    assert json.loads(run("index", "status", "--json", env=env).stdout)["pictures"] == 24
    done = run("index", "build", "--allow-removal", "--json", env=env)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert (built["removed"], built["total"], built["changed"], built["moved"]) == (8, 16, 0, 0)
