"""The rules on who may import whom, each package in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("embed", "index", "train", "search_api")

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.startswith(tuple(sys.argv[2:]) or ("-",)):
        importlib.import_module(module.name)
print("\\n".join(sys.modules))
"""


def loaded(package: str, *left_out: str) -> set[str]:
    """All modules loaded after importing every module of ``package``, without ``left_out``."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, *left_out],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("package", "left_out", "allowed", "forbidden"),
    [
        ("embed", (), {"embed"}, {"faiss", "fastapi", "torchvision"}),
        ("index", (), {"index"}, {"torch", "torchvision", "fastapi", "PIL", "pymilvus", "fsspec"}),
        ("train", (), {"embed", "train"}, {"faiss", "fastapi"}),
        # Serving never imports train: only the commands that train do.
        (
            "search_api",
            (
                "search_api.commands.training",
                "search_api.commands.shaping",
                "search_api.commands.tuning",
            ),
            {"embed", "index", "search_api"},
            {"torchvision", "tensorboard", "matplotlib", "pymilvus", "milvus_lite"}
            # A model whose export is kept is served without these, which take 200 MB and seconds.
            | {"torch", "scipy", "sklearn", "pandas", "pyarrow", "optuna"},
        ),
    ],
)
def test_rooms(package: str, left_out: tuple[str, ...], allowed: set[str], forbidden: set) -> None:
    modules = loaded(package, *left_out)
    assert package in modules
    assert modules & set(ROOMS) <= allowed
    assert not modules & forbidden


def test_only_one_module_knows_the_client_of_milvus() -> None:
    root = Path(__file__).parents[1]
    files = [path for room in ROOMS for path in (root / room).rglob("*.py")]
    found = [path for path in files if "import pymilvus" in path.read_text("utf-8")]
    found += [path for path in files if "from pymilvus" in path.read_text("utf-8")]
    assert set(found) == {root / "index" / "milvus" / "connection.py"}


def test_help_does_not_wait_for_torch() -> None:
    modules = subprocess.run(
        [sys.executable, "-c", "import sys, search_api.cli; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "search_api.cli" in modules
    assert not {"torch", "faiss", "fastapi", "numpy"} & set(modules)
