from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train import environment


def test_environment_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    environment._revision.cache_clear()
    found = environment.describe("cpu")
    assert found["revision"] == "unknown"
    assert found["threads"] == torch.get_num_threads()
    assert list(found) == ["device", "threads", "torch", "python", "revision"]
    environment._revision.cache_clear()
