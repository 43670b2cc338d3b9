"""Which runtime is fastest on this CPU: PyTorch, inductor, ONNX Runtime or OpenVINO.

    pip install onnx onnxscript onnxruntime
    python -m benchmarks.runtime --data ../shared

For each runtime and precision, alternating in one process: median milliseconds for 1 and for 64
pictures, the speed-up over eager PyTorch in float32, and, on the same pictures of the test split,
the smallest cosine between its embeddings and those of eager float32, and the accuracy. int8 is
ONNX Runtime's static quantisation (per channel, QDQ), calibrated on training pictures; OpenVINO
runs the same quantised graph. inductor needs a C++ compiler. What cannot be run is skipped and
named.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from embed.bundle import PRETRAINED, Bundle
from embed.corpus import cifar10
from embed.runtime.openvino import OpenVinoRuntime
from embed.runtime.pytorch import TorchRuntime

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class WithPreprocessing(torch.nn.Module):
    """The network preceded by its normalisation; the input is uint8 ``(n, h, w, 3)``."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network, self.preprocess = bundle.network(), bundle.preprocess

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.network(self.preprocess.normalise(batch.permute(0, 3, 1, 2)))
        return output.logits, output.features


def inductor(bundle: Bundle, reduced: bool) -> Run:
    network = bundle.network().to(memory_format=torch.channels_last)
    compiled = torch.compile(network, dynamic=False)

    def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = bundle.preprocess.normalise(torch.from_numpy(batch).permute(0, 3, 1, 2))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            output = compiled(x)
        return output.logits.float().numpy(), output.features.float().numpy()

    return run


def to_onnx(bundle: Bundle, path: Path) -> None:
    size = bundle.preprocess.input_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    torch.onnx.export(
        WithPreprocessing(bundle).eval(),
        (example,),
        path,
        input_names=["batch"],
        output_names=["logits", "features"],
        dynamic_axes={"batch": {0: "n"}},
        dynamo=False,
    )


def quantise(source: Path, target: Path, pictures: np.ndarray) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(pictures, len(pictures) // 64))

        def get_next(self) -> dict | None:
            batch = next(self.batches, None)
            return None if batch is None else {"batch": batch}

    prepared = source.with_name("prepared.onnx")
    # Its symbolic shape inference does not support all operations of this network.
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul"],
    )


def onnxruntime_of(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: tuple(session.run(["logits", "features"], {"batch": batch}))


def openvino_of(path: Path, threads: int) -> Run:
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(path, "CPU", options)
    request = model.create_infer_request()
    return lambda batch: tuple(request.infer({0: batch}, share_inputs=True).values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that contains CIFAR-10")
    parser.add_argument("--bundle", type=Path, default=PRETRAINED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=2000, help="number for cosine and accuracy")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bundle = Bundle.load(args.bundle)
    splits = cifar10(args.data).splits
    pictures, labels = (array[: args.pictures] for array in splits["test"])
    calibration = splits["train"][0][:1024]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidates: dict[str, Callable[[], Run]] = {
            "eager float32": lambda: TorchRuntime(bundle, "float32").run,
            "eager bfloat16": lambda: TorchRuntime(bundle, "bfloat16").run,
            "inductor float32": lambda: inductor(bundle, False),
            "inductor bfloat16": lambda: inductor(bundle, True),
            "ONNX Runtime float32": lambda: onnxruntime_of(folder / "plain.onnx", args.threads),
            "ONNX Runtime int8": lambda: onnxruntime_of(folder / "int8.onnx", args.threads),
            "OpenVINO float32": lambda: OpenVinoRuntime(bundle, "float32", args.threads).run,
            "OpenVINO bfloat16": lambda: OpenVinoRuntime(bundle, "bfloat16", args.threads).run,
            "OpenVINO int8": lambda: openvino_of(folder / "int8.onnx", args.threads),
        }
        try:
            to_onnx(bundle, folder / "plain.onnx")
            quantise(folder / "plain.onnx", folder / "int8.onnx", calibration)
        except ImportError as error:
            print(f"without ONNX: {error}")
        runs: dict[str, Run] = {}
        for label, make in candidates.items():
            try:
                run = make()
                for n in (1, 64):  # compile, and warm the caches
                    for _ in range(3):
                        run(pictures[:n])
                runs[label] = run
            except Exception as error:  # noqa: BLE001 - a missing runtime is reported
                print(f"skipped: {label}: {' '.join(str(error).split())[:120]}")
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(args.rounds):
            for label, run in runs.items():
                for n, repeats in ((1, 40), (64, 5)):
                    batch = np.ascontiguousarray(pictures[:n])
                    for _ in range(repeats):
                        started = time.perf_counter()
                        run(batch)
                        passed = 1000 * (time.perf_counter() - started)
                        times.setdefault((label, n), []).append(passed)
        truth = None
        print(f"{args.threads} threads, torch {torch.__version__}, {args.pictures} test pictures")
        print(f"{'':22}{'1, ms':>8}{'ratio':>7}{'64, ms':>9}{'ratio':>7}  minimum cosine  accuracy")
        for label, run in runs.items():
            parts = [
                run(np.ascontiguousarray(pictures[i : i + 64])) for i in range(0, len(pictures), 64)
            ]
            logits, features = (np.concatenate(column) for column in zip(*parts, strict=True))
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            truth = unit if truth is None else truth
            one, many = (statistics.median(times[label, n]) for n in (1, 64))
            base = [statistics.median(times["eager float32", n]) for n in (1, 64)]
            print(
                f"{label:22}{one:8.2f}{base[0] / one:7.2f}{many:9.2f}{base[1] / many:7.2f}"
                f"{(unit * truth).sum(1).min():14.5f}{(logits.argmax(1) == labels).mean():10.4f}"
            )


if __name__ == "__main__":
    main()
