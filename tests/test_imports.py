"""What importing a package loads, each in a fresh interpreter; import-linter checks the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__") and module.name not in sys.argv[2:]:
        importlib.import_module(module.name)
print("\\n".join(sys.modules))
"""
IMPORT_CLI = "import sys, search_api.cli.main; print('\\n'.join(sys.modules))"


def loaded(code: str, *arguments: str) -> set[str]:
    """All modules that are loaded after running ``code``."""
    command = [sys.executable, "-c", code, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("package", "left_out", "forbidden"),
    [
        ("embed", (), {"faiss", "fastapi", "torchvision"}),
        ("index", (), {"torch", "torchvision", "fastapi", "PIL", "pymilvus", "fsspec"}),
        ("train", (), {"faiss", "fastapi"}),
        (
            "search_api",
            # Only these commands train.
            ("search_api.cli.training", "search_api.cli.shaping", "search_api.cli.tuning"),
            {"train", "torchvision", "tensorboard", "matplotlib", "pymilvus", "milvus_lite"}
            # These take 200 MB and seconds; a model with a cached export is served without them.
            | {"torch", "scipy", "sklearn", "pandas", "pyarrow", "optuna"},
        ),
    ],
)
def test_a_package_loads_nothing_heavy(
    package: str, left_out: tuple[str, ...], forbidden: set[str]
) -> None:
    modules = loaded(IMPORT_ALL, package, *left_out)
    assert package in modules
    assert not modules & forbidden


def test_help_does_not_wait_for_torch() -> None:
    modules = loaded(IMPORT_CLI)
    assert "search_api.cli.main" in modules
    assert not {"torch", "faiss", "fastapi", "numpy"} & modules
