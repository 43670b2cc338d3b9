"""Engines that can switch between two fake models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embed.corpus import FolderCorpus
from search_api.service.engine import SearchEngine
from search_api.stores.model_store import keep_model
from tests.search_api.conftest import MeanColour, rebuild
from tests.search_api.helpers import OTHER, Wider

OLD = "sha256:" + "a" * 64


def opened(folder: Path, var: Path, encoder: MeanColour | None = None) -> SearchEngine:
    """An engine over the store in ``var``, as a further process would open it."""
    models = {OLD: MeanColour(OLD), OTHER: Wider()}
    return SearchEngine(
        encoder or models[OLD],
        FolderCorpus(folder),
        var,
        open_model=lambda path: models[f"sha256:{path.name}"],
    )


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Iterator[SearchEngine]:
    """An engine with the 24 pictures indexed by the model OLD, which also holds the model OTHER."""
    engine = opened(folder, tmp_path / "var")
    rebuild(engine)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    keep_model(engine.var, bundle, OTHER)
    yield engine
    engine.close()
