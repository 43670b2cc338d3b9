"""Which runtime is fastest on this CPU: PyTorch, inductor, ONNX Runtime or OpenVINO.

    pip install '.[bench]'
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.suite.result import Headline, Result, Work, table
from embed.bundle import PRETRAINED, Bundle
from embed.corpus import cifar10
from embed.imported.photo_encoder import photo_bundle
from embed.precision import has_bfloat16
from embed.private_cache import default_cache
from embed.runtime.openvino import OpenVinoRuntime
from embed.runtime.pytorch import TorchRuntime

EAGER = "eager float32"
SERVED = "OpenVINO bfloat16" if has_bfloat16("cpu") else "OpenVINO float32"
"""What `auto` chooses on this CPU."""
_PLAIN = (EAGER, "eager bfloat16", "OpenVINO float32", "OpenVINO bfloat16")
_ONNX = ("ONNX Runtime float32", "ONNX Runtime int8", "OpenVINO int8")
"""Without inductor, which compiles for minutes and needs a C++ compiler."""

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Row:
    """One runtime: medians in milliseconds, for one picture and for 64."""

    name: str
    one: float
    many: float
    cosine: float
    accuracy: float


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
        dynamic_shapes=({0: "n"},),
        external_data=False,
        verbose=False,
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


def candidates(bundle: Bundle, folder: Path, threads: int) -> dict[str, Callable[[], Run]]:
    """What makes each runtime; those of ONNX read files in ``folder``."""
    return {
        EAGER: lambda: TorchRuntime(bundle, "float32").run,
        "eager bfloat16": lambda: TorchRuntime(bundle, "bfloat16").run,
        "inductor float32": lambda: inductor(bundle, False),
        "inductor bfloat16": lambda: inductor(bundle, True),
        "ONNX Runtime float32": lambda: onnxruntime_of(folder / "plain.onnx", threads),
        "ONNX Runtime int8": lambda: onnxruntime_of(folder / "int8.onnx", threads),
        "OpenVINO float32": lambda: OpenVinoRuntime(bundle, "float32", threads).run,
        "OpenVINO bfloat16": lambda: OpenVinoRuntime(bundle, "bfloat16", threads).run,
        "OpenVINO int8": lambda: openvino_of(folder / "int8.onnx", threads),
    }


def measure(
    bundle: Bundle,
    pictures: np.ndarray,
    labels: np.ndarray,
    calibration: np.ndarray | None = None,
    names: Iterable[str] = (),
    *,
    threads: int = 2,
    rounds: int = 5,
    say: Callable[[str], object] = print,
) -> list[Row]:
    """Rows of the runtimes that run here, eager float32 first; the others are named.

    Args:
        bundle: whose network runs.
        pictures: for cosine and accuracy, uint8 ``(n, h, w, 3)`` of the network's input size.
        labels: of the pictures, int ``(n,)``.
        calibration: pictures for int8; without them there is no ONNX.
        names: of the runtimes; all by default.
        threads: of each.
        rounds: in which each runs once; the medians count.
        say: is told what is skipped.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            if calibration is not None:
                to_onnx(bundle, folder / "plain.onnx")
                quantise(folder / "plain.onnx", folder / "int8.onnx", calibration)
        except Exception as error:  # noqa: BLE001 - not installed, or an operation is unknown to it
            say(f"without ONNX: {' '.join(str(error).split())[:200]}")
        runs: dict[str, Run] = {}
        for label, make in candidates(bundle, folder, threads).items():
            if names and label not in names:
                continue
            try:
                run = make()
                for n in (1, 64):  # compile, and warm the caches
                    for _ in range(3):
                        run(pictures[:n])
                runs[label] = run
            except Exception as error:  # noqa: BLE001 - a missing runtime is reported
                say(f"skipped: {label}: {' '.join(str(error).split())[:120]}")
        return _rows(runs, _times(runs, pictures, rounds), pictures, labels)


def _times(
    runs: dict[str, Run], pictures: np.ndarray, rounds: int
) -> dict[tuple[str, int], list[float]]:
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for label, run in runs.items():
            for n, repeats in ((1, 40), (64, 5)):
                batch = np.ascontiguousarray(pictures[:n])
                for _ in range(repeats):
                    started = time.perf_counter()
                    run(batch)
                    passed = 1000 * (time.perf_counter() - started)
                    times.setdefault((label, n), []).append(passed)
    return times


def _rows(
    runs: dict[str, Run],
    times: dict[tuple[str, int], list[float]],
    pictures: np.ndarray,
    labels: np.ndarray,
) -> list[Row]:
    truth, rows = None, []
    for label, run in runs.items():
        parts = [
            run(np.ascontiguousarray(pictures[i : i + 64])) for i in range(0, len(pictures), 64)
        ]
        logits, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        truth = unit if truth is None else truth
        one, many = (statistics.median(times[label, n]) for n in (1, 64))
        cosine = float((unit * truth).sum(1).min())
        accuracy = float((logits.argmax(1) == labels).mean())
        rows.append(Row(label, one, many, cosine, accuracy))
    return rows


def as_table(rows: Sequence[Row], accuracy: bool = True) -> str:
    """Markdown."""
    base = rows[0]
    columns = ("runtime", "1 picture ms", "times", "64 pictures ms", "times", "minimum cosine")
    return table(
        columns + ("accuracy",) * accuracy,
        (
            (
                row.name,
                f"{row.one:.2f}",
                f"{base.one / row.one:.2f}",
                f"{row.many:.1f}",
                f"{base.many / row.many:.2f}",
                f"{row.cosine:.5f}",
                *(f"{row.accuracy:.4f}",) * accuracy,
            )
            for row in rows
        ),
    )


def part(work: Work) -> Result:
    """For `make bench`: the networks of both models."""
    say, few = work.say, work.short
    test, labels = _cifar(work, "test", 128 if few else 2000)
    calibration = None if few else _cifar(work, "train", 1024)[0]
    bundle = Bundle.load(PRETRAINED)
    rounds, names = (1, _PLAIN) if few else (5, (*_PLAIN, *_ONNX))
    ours = measure(bundle, test, labels, calibration, names, rounds=rounds, say=say)
    say("the photo encoder")
    photo, pictures = _photo(test[:64])
    theirs = measure(photo, pictures, labels[:64], None, _PLAIN, rounds=rounds, say=say)
    headlines = []
    for what, rows in (("", ours), (" of photographs", theirs)):
        eager, served = (next(row for row in rows if row.name == name) for name in (EAGER, SERVED))
        headlines.append(
            Headline(
                f"network, a batch of 64{what}",
                f"{64_000 / served.many:,.0f} pictures/s",
                f"eager PyTorch {64_000 / eager.many:,.0f}",
                eager.many / served.many,
            )
        )
    return Result(
        f"The model that ships:\n\n{as_table(ours)}\n\nThe photo encoder:\n\n"
        + as_table(theirs, accuracy=False),
        n=f"{len(test):,} and {len(pictures)} test pictures, medians of {rounds} rounds",
        threads="2",
        models=("model", "photo encoder"),
        packages=("torch", "openvino", "onnxruntime"),
        headlines=headlines,
    )


def ratios(work: Work) -> dict[str, float]:
    """For `make bench-check`: what serves, against eager PyTorch in float32."""
    test, labels = _cifar(work, "test", 64)
    photo, pictures = _photo(test)
    found = {}
    for name, bundle, x in (
        ("the model that ships", Bundle.load(PRETRAINED), test),
        ("the photo encoder", photo, pictures),
    ):
        rounds = 1 if work.short or bundle is photo else 3
        rows = measure(bundle, x, labels, None, (EAGER, SERVED), rounds=rounds, say=work.say)
        if len(rows) == 2:
            eager, served = rows
            found[f"runtime: {name} against eager PyTorch, 1 picture"] = eager.one / served.one
            found[f"runtime: {name} against eager PyTorch, 64 pictures"] = eager.many / served.many
    return found


def _cifar(work: Work, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    pictures, labels = cifar10(work.data).splits[split]
    return pictures[:count], labels[:count]


def _photo(pictures: np.ndarray) -> tuple[Bundle, np.ndarray]:
    """The photo encoder and pictures as it takes them."""
    folder = photo_bundle(default_cache())
    if folder is None:
        raise SystemExit("the photo encoder's weights are not installed")
    bundle = Bundle.load(folder)
    return bundle, bundle.preprocess.stack(pictures)


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
    splits = cifar10(args.data).splits
    pictures, labels = (array[: args.pictures] for array in splits["test"])
    bundle = Bundle.load(args.bundle)
    calibration = splits["train"][0][:1024]
    rows = measure(bundle, pictures, labels, calibration, threads=args.threads, rounds=args.rounds)
    print(f"{args.threads} threads, torch {torch.__version__}, {args.pictures} test pictures")
    print(as_table(rows))


if __name__ == "__main__":
    main()
