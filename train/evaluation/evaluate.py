"""Evaluates a model: classification, calibration of its confidence, and search."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.architecture import Backbone
from embed.encoder import Encoder
from train import environment
from train.data import Dataset, Split
from train.evaluation.embedding_map import EmbeddingMap, embedding_map
from train.evaluation.inspection import (
    Duplicates,
    Gallery,
    Mistake,
    duplicates,
    label_errors,
    mistakes,
)
from train.evaluation.metrics import (
    Calibration,
    ClassScore,
    Macro,
    Retrieval,
    calibration,
    class_scores,
    confusion_matrix,
    macro,
)
from train.evaluation.outliers import Outliers, outlier_count, outliers
from train.evaluation.search_quality import (
    SearchQuality,
    evaluation_splits,
    pictures_of,
    search_quality,
)
from train.evaluation.similarity import Vectors


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, single view: each picture is classified once, unaugmented.

    An imported network that does not know the data's classes is measured by its search alone:
    everything about classification is then None or empty.

    Attributes:
        split: ``test``, or ``validation`` if the data has no test split.
        pictures: number of pictures evaluated.
        classes: of the data, in the order of the confusion matrix.
        digest: of the model.
        accuracy: share classified correctly, 0..1.
        scores: by class.
        macro: means of ``scores``.
        confusion: counts by true (rows) and predicted (columns) class.
        calibration: of the confidence that users see, after temperature scaling.
        uncalibrated: of the confidence before temperature scaling.
        search: by embedding; queries from the split, the gallery from the pictures trained on.
        mistakes: most confident first.
        label_errors: the mistakes whose label is likely wrong.
        duplicates: pictures with near-duplicates in the training set.
        outliers: how well other kinds of pictures are distinguished from the split's.
        map: a sample of the split on a plane, only for the report.
        precision: of the forward pass, ``float32`` or ``bfloat16``.
        environment: hardware, threads and versions.
    """

    split: str
    pictures: int
    classes: tuple[str, ...]
    digest: str
    accuracy: float | None
    scores: tuple[ClassScore, ...]
    macro: Macro | None
    confusion: tuple[tuple[int, ...], ...]
    calibration: Calibration | None
    uncalibrated: Calibration | None
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
        """The search by class among the pictures trained on."""
        return self.search.retrieval

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON, floats rounded to 5 places."""
        values = asdict(self)
        values["retrieval"] = values["search"].pop("retrieval")
        del values["map"]
        values["label_errors"] = [mistake.row for mistake in self.label_errors]
        plain: dict[str, Any] = _plain(values)
        return plain


@dataclass(frozen=True)
class _Classification:
    """What ``Evaluation`` says about classification; by default, nothing."""

    accuracy: float | None = None
    scores: tuple[ClassScore, ...] = ()
    macro: Macro | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    calibration: Calibration | None = None
    uncalibrated: Calibration | None = None
    mistakes: tuple[Mistake, ...] = ()
    label_errors: tuple[Mistake, ...] = ()


def evaluate(encoder: Encoder, data: Dataset) -> Evaluation:
    """Evaluate a model on pictures that it was not trained with.

    On the test split, with training and validation pictures as the gallery; without a test split,
    on the validation split, with the training pictures as the gallery. If the model is an imported
    network with other classes than the data's, or none, only its search is measured.

    Args:
        encoder: the model.
        data: pictures of the model's input size, with the model's classes.

    Raises:
        ValueError: the classes of the model and of the data differ, and it is not imported.
    """
    known = encoder.classes == data.classes
    if not known and not isinstance(encoder.bundle.architecture, Backbone):
        raise ValueError(
            f"the model has the classes {', '.join(encoder.classes)}, the data has"
            f" {', '.join(data.classes)}; evaluate on data with the model's classes"
        )
    name, queries, splits = evaluation_splits(data)
    gallery = Gallery(splits, data.classes)
    probabilities, xq = encoder.encode(pictures_of(queries))
    xb = _embed(encoder, splits)
    found, confidence, correct = _Classification(), None, None
    if known:
        labels = queries.labels.numpy()
        confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
        wrong = mistakes(probabilities, labels, data.classes, xq, xb, gallery)
        found = _classification(encoder, data.classes, probabilities, labels, wrong)
    return Evaluation(
        split=name,
        pictures=len(queries),
        classes=data.classes,
        digest=encoder.digest,
        **vars(found),
        search=search_quality(encoder, queries, list(splits.values()), xq, xb),
        duplicates=duplicates(queries, correct, data.classes, gallery),
        outliers=outliers(encoder, confidence, xq, xb, outlier_count(queries.pictures.shape[-1])),
        map=embedding_map(xq),
        precision=encoder.precision,
        environment={**environment.describe(encoder.device), "runtime": encoder.runtime.name},
    )


def _classification(
    encoder: Encoder,
    classes: tuple[str, ...],
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    wrong: tuple[Mistake, ...],
) -> _Classification:
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    confusion = confusion_matrix(labels, predicted, len(classes))
    scores = class_scores(confusion, classes)
    uncalibrated = _without_temperature(probabilities, encoder.bundle.temperature).max(1)
    correct = predicted == labels
    return _Classification(
        accuracy=float(correct.mean()),
        scores=scores,
        macro=macro(scores),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=calibration(confidence, correct),
        uncalibrated=calibration(uncalibrated, correct),
        mistakes=wrong,
        label_errors=label_errors(wrong, probabilities, labels, classes),
    )


def evaluate_search(encoder: Encoder, data: Dataset) -> SearchQuality:
    """Measure the search of another model on the same data, for comparison."""
    _, queries, splits = evaluation_splits(data)
    xq = encoder.encode(pictures_of(queries)).embeddings
    return search_quality(encoder, queries, list(splits.values()), xq, _embed(encoder, splits))


def _embed(encoder: Encoder, splits: dict[str, Split]) -> Vectors:
    """Embeddings ``(n, d)`` of all splits, one after the other."""
    return np.concatenate(
        [encoder.encode(pictures_of(split)).embeddings for split in splits.values()]
    )


def _without_temperature(
    probabilities: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """The probabilities before temperature scaling: the softmax of logits times ``temperature``."""
    logits = np.log(np.maximum(probabilities, 1e-38)) * temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return softmax.astype(np.float32)


def summary(evaluation: Evaluation) -> str:
    """A few lines for the console: the headline figures, then a line for each class."""
    e, r = evaluation, evaluation.retrieval
    precision = ", ".join(f"{value:.1%} at {k}" for k, value in r.precision_at.items())
    lines = [f"Evaluated on {e.pictures:,} {e.split} pictures, single view.", ""]
    if e.accuracy is not None and e.calibration is not None:
        lines += [
            f"  accuracy            {e.accuracy:7.2%}   share of pictures classified correctly",
            f"  calibration error   {e.calibration.error:7.2%}   mean difference between confidence"
            " and accuracy",
        ]
    else:
        lines.append("  No accuracy: the network's own classes are not those of these pictures.")
    lines += [
        f"  search mAP          {r.mean_average_precision:7.2%}   {r.queries:,} queries among"
        f" {r.gallery:,} pictures, relevant if of the same class",
        f"  search precision    {precision}",
        f"  altered copies      {e.search.copies.recall_at['mean'][1]:7.2%}   share of originals"
        " ranked first for a cropped, rotated, brightened, compressed or mirrored copy",
    ]
    if e.scores:
        width = max(len("class"), *(len(score.name) for score in e.scores))
        lines += ["", f"  {'class':{width}}  precision  recall      F1  pictures"]
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
