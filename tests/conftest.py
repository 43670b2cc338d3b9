"""What tests of several packages share."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from embed.architecture import Architecture
from embed.bundle import Bundle
from embed.pictures import RGB
from embed.preprocess import Preprocess
from embed.resnet import build

# Its import closes all handlers of logging. absl's then closes its stream, pytest's stderr, if a
# test has redirected stderr. So import it here, before OpenVINO brings absl.
with contextlib.suppress(ImportError):
    import pymilvus  # noqa: F401

# Its Host would be "testserver", which a server without keys does not answer.
_defaults = TestClient.__init__.__defaults__
assert _defaults is not None and _defaults[0] == "http://testserver"
TestClient.__init__.__defaults__ = ("http://localhost", *_defaults[1:])  # type: ignore[attr-defined]

# Nothing is left in the user's own cache.
os.environ.setdefault(
    "LOOKALIKE_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "lookalike")
)
# A GPU rounds differently; set the variable to test on one.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# One thread: tests then give the same figures everywhere, and do not compete for cores.
torch.set_num_threads(1)

SLOW_FIXTURES = frozenset({"live_server", "trained"})
"""Fixtures that start a server or train a model, so that whatever uses them is slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """An untrained network for three classes; embeddings of 32 numbers."""
    torch.manual_seed(0)
    architecture = Architecture(classes=3, widths=(24, 24, 32))
    weights = {
        # As saved and loaded: fp16 on disk, float32 in memory.
        name: (tensor.half().float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in build(architecture).state_dict().items()
    }
    return Bundle(architecture, Preprocess(), ("red", "green", "blue"), weights, temperature=1.5)


@pytest.fixture(scope="session")
def pictures() -> RGB:
    """Seven pictures of noise, uint8 ``(7, 32, 32, 3)``."""
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
