"""PyTorch as the runtime: slower on a CPU, but it works everywhere, including on GPUs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from embed.bundle import Bundle
from embed.precision import has_bfloat16
from embed.runtime.protocol import Precision, Raw


class TorchRuntime:
    """Runs the network eagerly, on the GPU if there is one, otherwise on the CPU."""

    name = "torch"
    workers = 1

    def __init__(
        self, bundle: Bundle, precision: Precision = "auto", threads: int | None = None
    ) -> None:
        """Prepare the network.

        Args:
            bundle: the trained model.
            precision: ``auto`` chooses bfloat16 if the hardware has it.
            threads: torch's CPU threads, for the whole process; None leaves them unchanged.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "auto":
            precision = "bfloat16" if has_bfloat16(self.device) else "float32"
        self.precision: Precision = precision
        self._preprocess = bundle.preprocess
        self._network = bundle.network().to(self.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, batch: NDArray[np.uint8], worker: int | None = None) -> Raw:
        """One forward pass over RGB pictures uint8 ``(n, input_size, input_size, 3)``.

        Torch's threads belong to the whole process, so the only worker uses all of them.
        """
        pictures = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)
        reduced = self.precision == "bfloat16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device, torch.bfloat16, enabled=reduced),
        ):
            output = self._network(self._preprocess.normalise(pictures))
        return Raw(output.logits.float().cpu().numpy(), output.features.float().cpu().numpy())
