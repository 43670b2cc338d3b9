from __future__ import annotations

import pytest

from embed.bundle import Bundle
from embed.runtime import openvino
from embed.runtime.select import make_runtime


def test_if_openvino_fails_torch_takes_over(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(openvino, "OpenVinoRuntime", broken)
    assert make_runtime(tiny_bundle).name == "torch"
    with pytest.raises(RuntimeError, match="no such instruction"):
        make_runtime(tiny_bundle, "openvino")


def test_an_unknown_runtime_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="runtime is 'magic'; expected auto, openvino or torch"):
        make_runtime(tiny_bundle, "magic")  # type: ignore[arg-type]
