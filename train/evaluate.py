"""How good a model is: classification, calibration of its confidence, and retrieval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.encoder import Encoder
from train import environment
from train.data import Dataset
from train.embedding_map import EmbeddingMap, embedding_map
from train.inspection import (
    Duplicates,
    Gallery,
    Mistake,
    duplicates,
    label_errors,
    mistakes,
)
from train.measures import (
    Calibration,
    ClassScore,
    Macro,
    Retrieval,
    calibration,
    class_scores,
    confusion_matrix,
    macro,
)
from train.outliers import Outliers, outliers
from train.search_quality import SearchQuality, encoded, evaluated, pictures_of, search_quality

__all__ = ["Evaluation", "Mistake", "evaluate", "search_of", "summary"]


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
        uncalibrated: of the confidence before it.
        search: what is found; queries from the split, the gallery from what was trained on.
        mistakes: most confident first.
        label_errors: those of them whose label is likely wrong.
        duplicates: pictures of which the training set has nearly the same.
        outliers: how well pictures of other kinds are told from these.
        map: some pictures of the split on a plane; for the report alone.
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
    uncalibrated: Calibration
    search: SearchQuality
    mistakes: tuple[Mistake, ...]
    label_errors: tuple[Mistake, ...]
    duplicates: Duplicates
    outliers: tuple[Outliers, ...]
    map: EmbeddingMap
    precision: str
    environment: dict[str, Any]

    @property
    def retrieval(self) -> Retrieval:
        """The search among what was trained on, by class."""
        return self.search.known

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON, floats rounded to 5 places."""
        values = asdict(self)
        values["retrieval"] = values["search"].pop("known")
        del values["map"]
        values["label_errors"] = [mistake.row for mistake in self.label_errors]
        plain: dict[str, Any] = _plain(values)
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
    name, queries, known = evaluated(data)
    gallery = Gallery(known, data.classes)
    probabilities, xq = encoder.encode(pictures_of(queries))
    xb = np.concatenate([encoder.encode(pictures_of(split)).embeddings for split in known.values()])
    labels, predicted = queries.labels.numpy(), probabilities.argmax(1)
    confidence, right = probabilities.max(1), predicted == labels
    confusion = confusion_matrix(labels, predicted, len(data.classes))
    scores = class_scores(confusion, data.classes)
    wrong = mistakes(probabilities, labels, data.classes, xq, xb, gallery)
    before = _before(probabilities, encoder.bundle.temperature)
    return Evaluation(
        split=name,
        pictures=len(labels),
        classes=data.classes,
        digest=encoder.digest,
        accuracy=float(right.mean()),
        scores=scores,
        macro=macro(scores),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=calibration(confidence, right),
        uncalibrated=calibration(before.max(1), right),
        search=search_quality(encoder, queries, list(known.values()), xq, xb),
        mistakes=wrong,
        label_errors=label_errors(wrong, probabilities, labels, data.classes),
        duplicates=duplicates(queries, right, data.classes, gallery),
        outliers=outliers(encoder, confidence, xq, xb),
        map=embedding_map(xq),
        precision=encoder.precision,
        environment={**environment.describe(encoder.device), "runtime": encoder.runtime.name},
    )


def search_of(encoder: Encoder, data: Dataset) -> SearchQuality:
    """What another model's search finds on the same data, to stand beside an evaluation."""
    _, queries, known = evaluated(data)
    splits = list(known.values())
    return search_quality(encoder, queries, splits, *encoded(encoder, queries, splits))


def _before(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """The probabilities without the temperature: a softmax of logits that are multiplied by it."""
    logits = np.log(np.maximum(probabilities, 1e-38)) * temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


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
        f"  altered copies      {e.search.copies.recall_at['mean'][1]:7.2%}   found first by a copy"
        " that is cropped, turned, brightened, compressed or mirrored",
        "",
        f"  {'class':{width}}  precision  recall      F1  pictures",
    ]
    lines += [
        f"  {s.name:{width}}  {s.precision:9.1%} {s.recall:7.1%} {s.f1:7.1%}  {s.support:8,}"
        for s in e.scores
    ]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
