"""How good a model is: classification, calibration of its confidence, and retrieval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from embed.encoder import Encoder
from train import environment
from train.data import Dataset, Split
from train.measures import (
    Calibration,
    ClassScore,
    Macro,
    Retrieval,
    calibration,
    class_scores,
    confusion_matrix,
    macro,
    retrieval,
)


@dataclass(frozen=True)
class Mistake:
    """A picture taken for another class; ``row`` is its place in the split."""

    row: int
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured, each picture seen once and unchanged (single view).

    Attributes:
        split: ``test``, or ``validation`` where the data has no test split.
        pictures: how many were classified.
        classes: in the order of the confusion matrix.
        digest: of the model.
        accuracy: share classified rightly, 0..1.
        scores: by class.
        macro: means of ``scores``.
        confusion: counts, rows true, columns predicted.
        calibration: of the confidence given to users, after the temperature.
        retrieval: queries from the split, the gallery from what was trained on.
        mistakes: most confident first.
        precision: ``float32`` or ``bfloat16``, of the forward pass.
        environment: hardware, threads and versions that this was measured with.
    """

    split: str
    pictures: int
    classes: tuple[str, ...]
    digest: str
    accuracy: float
    scores: tuple[ClassScore, ...]
    macro: Macro
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration
    retrieval: Retrieval
    mistakes: tuple[Mistake, ...]
    precision: str
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON, floats rounded to 5 places."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def evaluate(encoder: Encoder, data: Dataset) -> Evaluation:
    """Measure a model on pictures that it did not learn from.

    On the test split, searched for among training and validation pictures; without a test split,
    on the validation split, searched for among the training pictures.

    Args:
        encoder: the model.
        data: pictures of the model's input size, with the model's classes.

    Raises:
        ValueError: the classes of the model and of the data differ.
    """
    if encoder.classes != data.classes:
        raise ValueError(
            f"the model knows the classes {', '.join(encoder.classes)}, the data has"
            f" {', '.join(data.classes)}; evaluate on data with the model's classes"
        )
    if data.test is not None:
        name, queries, known = "test", data.test, [data.train, data.validation]
    else:
        name, queries, known = "validation", data.validation, [data.train]
    probabilities, xq = encoder.encode(_pictures(queries))
    labels, predicted = queries.labels.numpy(), probabilities.argmax(1)
    confidence = probabilities.max(1)
    confusion = confusion_matrix(labels, predicted, len(data.classes))
    scores = class_scores(confusion, data.classes)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return Evaluation(
        split=name,
        pictures=len(labels),
        classes=data.classes,
        digest=encoder.digest,
        accuracy=float((predicted == labels).mean()),
        scores=scores,
        macro=macro(scores),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=calibration(confidence, predicted == labels),
        retrieval=retrieval(
            xq,
            labels,
            np.concatenate([encoder.encode(_pictures(split)).embeddings for split in known]),
            np.concatenate([split.labels.numpy() for split in known]),
        ),
        mistakes=tuple(
            Mistake(
                int(row),
                data.classes[labels[row]],
                data.classes[predicted[row]],
                float(confidence[row]),
            )
            for row in wrong
        ),
        precision=encoder.precision,
        environment={**environment.describe(encoder.device), "runtime": encoder.runtime.name},
    )


def summary(evaluation: Evaluation) -> str:
    """A few lines for the console: the headline figures, then a line for each class."""
    e, r = evaluation, evaluation.retrieval
    precision = ", ".join(f"{value:.1%} of the first {k}" for k, value in r.precision_at.items())
    width = max(len("class"), *(len(score.name) for score in e.scores))
    lines = [
        f"Measured on {e.pictures:,} {e.split} pictures, each seen once.",
        "",
        f"  accuracy            {e.accuracy:7.2%}   pictures whose class is right",
        f"  calibration error   {e.calibration.error:7.2%}   how far confidence is from accuracy",
        f"  search mAP          {r.mean_average_precision:7.2%}   {r.queries:,} pictures searched"
        f" for among {r.gallery:,}",
        f"  right class among   {precision} found",
        "",
        f"  {'class':{width}}  precision  recall      F1  pictures",
    ]
    lines += [
        f"  {s.name:{width}}  {s.precision:9.1%} {s.recall:7.1%} {s.f1:7.1%}  {s.support:8,}"
        for s in e.scores
    ]
    return "\n".join(lines)


def _pictures(split: Split) -> NDArray[np.uint8]:
    pictures: Tensor = split.pictures.permute(0, 2, 3, 1)
    return pictures.numpy()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
