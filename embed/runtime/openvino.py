"""OpenVINO as the runtime: the fastest on a CPU, and serving needs no torch.

The network is exported once, which needs torch and takes a few seconds. Later starts read the
export from a private cache after verifying its checksums. One that lies next to a bundle is never
read: it could be somebody else's network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embed.bundle import Bundle
from embed.private_cache import private_folder
from embed.runtime.protocol import WORKERS, Precision, Raw, available_cores

# Importing OpenVINO sends telemetry from a forked copy of the whole process, but only if this
# package can be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402 - only after that

if TYPE_CHECKING:
    from torch.nn import Conv2d

    from embed.preprocess import Preprocess

log = logging.getLogger(__name__)

_NETWORK, _SUMS = "network.xml", "checksums.json"
_MIDDLE = 128  # subtracted from pixels 0..255
_FORMAT = 2
"""Increased whenever the exported graph changes, so that older exports are not used."""
_TEMPORARY = ".tmp-"
_MOST_BYTES = 2 * 2**30
_MOST_SECONDS = 30 * 24 * 3600
"""Exports beyond this size, and those unused for longer, are removed when another is written."""


class OpenVinoRuntime:
    """Runs the network with OpenVINO on the CPU."""

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "auto",
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Export the network, or read its export, and compile it for this CPU.

        Args:
            bundle: the trained model.
            precision: ``auto`` chooses bfloat16 if the CPU has instructions for it.
            threads: CPU threads; None for one per core.
            cache: private folder in which the export is kept; None to keep none.
        """
        core = openvino.Core()
        if precision == "auto":
            fast = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = "bfloat16" if fast else "float32"
        self.precision: Precision = precision
        model = _read_or_export(core, bundle, cache)
        self._classes = len(bundle.classes)
        threads = threads or available_cores()

        self.workers = min(WORKERS, threads)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        # Compiling fixes how the threads are divided, so there are two compiled models.
        whole = core.compile_model(model, "CPU", {**options, "NUM_STREAMS": 1})
        self._on_all_threads = whole.create_infer_request()
        self._by_worker = [self._on_all_threads]
        if self.workers > 1:
            divided = core.compile_model(model, "CPU", {**options, "NUM_STREAMS": self.workers})
            self._by_worker = [divided.create_infer_request() for _ in range(self.workers)]

    def run(self, batch: NDArray[np.uint8], worker: int | None = None) -> Raw:
        """One forward pass over RGB pictures uint8 ``(n, input_size, input_size, 3)``.

        It runs on the threads of ``worker``, or on all threads for None.
        """
        request = self._on_all_threads if worker is None else self._by_worker[worker]
        found = request.infer({0: batch}, share_inputs=True)
        if not self._classes:
            return Raw(np.empty((len(batch), 0), np.float32), found[0])
        return Raw(found[0], found[1])


def _read_or_export(core: openvino.Core, bundle: Bundle, cache: Path | None) -> openvino.Model:
    if cache is None:
        return export(bundle)
    try:
        folder = private_folder(cache / "exports") / _key(bundle)
    except OSError as error:
        _say_once(f"exported networks cannot be kept: {error}")
        return _exported_for_now(core, bundle)
    if _intact(folder):
        with suppress(OSError):  # a cache that cannot be written
            os.utime(folder)
        return core.read_model(folder / _NETWORK)
    model = export(bundle)
    try:
        _write(model, folder)
        _tidy(folder)
    except OSError as error:
        if not _intact(folder):  # otherwise another process was first
            _say_once(f"the exported network cannot be kept in {folder.parent}: {error}")
            return _exported_for_now(core, bundle, model)
    # Read it back as later starts do, so that all of them round alike.
    return core.read_model(folder / _NETWORK)


def _key(bundle: Bundle) -> str:
    """The same for exports that are the same; they depend neither on the precision nor the CPU."""
    digest = bundle.content_digest.removeprefix("sha256:")
    return f"{_FORMAT}-{openvino.__version__.split('-')[0]}-{digest}"


def _exported_for_now(
    core: openvino.Core, bundle: Bundle, model: openvino.Model | None = None
) -> openvino.Model:
    """The network by way of a temporary private folder; OpenVINO keeps what it has read."""
    model = model or export(bundle)
    try:
        with tempfile.TemporaryDirectory(prefix="lookalike-") as name:
            _save(model, Path(name))
            return core.read_model(Path(name) / _NETWORK)
    except OSError:
        return model


@lru_cache
def _say_once(message: str) -> None:
    log.warning("%s; this takes seconds at each start", message)


def export(bundle: Bundle) -> openvino.Model:
    """The bundle's network, preceded by its normalisation, as an OpenVINO graph.

    The input is uint8 ``(n, input_size, input_size, 3)``; the outputs are logits, if the bundle has
    classes, and features.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from embed.resnet import WhitenedResNet

    class WithPreprocessing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = bundle.network()
            self.whole_pixels = isinstance(self.network, WhitenedResNet)
            if isinstance(self.network, WhitenedResNet):
                self.network.stem = _over_whole_pixels(self.network.stem, bundle.preprocess)

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            pixels = batch.permute(0, 3, 1, 2)
            if self.whole_pixels:
                x = pixels.float() - _MIDDLE
                x = torch.cat([x, x], 1)
            else:
                x = bundle.preprocess.normalise(pixels)
            output = self.network(x)
            return tuple(output) if bundle.classes else (output.features,)

    size = bundle.preprocess.input_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    # What openvino.convert_model does, without its telemetry.
    with warnings.catch_warnings():
        # Tracing warns that it turns mean and deviation into constants, as intended.
        warnings.simplefilter("ignore")
        # Each trace of a transformer mangles other names, which the check would refuse.
        decoder = TorchScriptPythonDecoder(
            WithPreprocessing().eval(), example_input=example, trace_kwargs={"check_trace": False}
        )
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape({0: openvino.PartialShape([-1, size, size, 3])})
    return model


def _over_whole_pixels(stem: Conv2d, preprocess: Preprocess) -> Conv2d:
    """The whitening layer with the normalisation merged into it, so bfloat16 loses almost nothing.

    Whitening amplifies small differences between neighbouring pixels, and with them the rounding
    errors of normalised pixels and of weights in bfloat16. Pixels 0..255 minus ``_MIDDLE`` are
    exact in bfloat16, and a weight is almost exact as the sum of two. The layer therefore takes
    each picture twice, float ``(n, 6, h, w)``: once for the rounded weights and once for what
    rounding lost.
    """
    import torch

    mean = 255 * torch.tensor(preprocess.mean).view(1, 3, 1, 1)
    std = 255 * torch.tensor(preprocess.std).view(1, 3, 1, 1)
    weight = stem.weight.detach() / std
    rounded = weight.bfloat16().float()
    layer = torch.nn.Conv2d(6, stem.out_channels, stem.kernel_size)  # type: ignore[arg-type]
    layer.weight.data = torch.cat([rounded, weight - rounded], 1)
    assert stem.bias is not None
    layer.bias.data = stem.bias.detach() + (weight * (_MIDDLE - mean)).sum((1, 2, 3))  # type: ignore[union-attr]
    return layer


def _write(model: openvino.Model, folder: Path) -> None:
    """Write the export and its checksums atomically."""
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder.parent) as name:
        new = Path(name) / "new"
        new.mkdir(mode=0o700)
        _save(model, new)
        sums = {path.name: _sha256(path) for path in new.iterdir()}
        (new / _SUMS).write_text(json.dumps(sums))
        if folder.exists():  # damaged
            folder.rename(Path(name) / "old")
        new.rename(folder)


def _save(model: openvino.Model, folder: Path) -> None:
    # Not in fp16, which would round the constants of the normalisation.
    openvino.save_model(model, folder / _NETWORK, compress_to_fp16=False)


def _tidy(newest: Path) -> None:
    """Remove exports that are too old or too many, and what killed processes left behind."""
    now, size = time.time(), _bytes_of(newest)
    others = [(path.stat().st_mtime, path) for path in newest.parent.iterdir() if path != newest]
    for used, path in sorted(others, reverse=True):
        if path.name.startswith(_TEMPORARY):
            if now - used > 3600:
                shutil.rmtree(path, ignore_errors=True)
            continue
        size += _bytes_of(path)
        if size > _MOST_BYTES or now - used > _MOST_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _intact(folder: Path) -> bool:
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
        return _NETWORK in sums and all(_sha256(folder / n) == s for n, s in sums.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
