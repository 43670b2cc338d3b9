"""Published results on CIFAR-10, for comparison in the evaluation report."""

from __future__ import annotations

from typing import NamedTuple


class Baseline(NamedTuple):
    """A published model: its accuracy on the 10,000 test pictures, size and cost, as published."""

    name: str
    accuracy: str
    parameters: str
    gflop: str
    source: str


NETWORKS = (
    Baseline(
        "airbench94_muon",
        "94.0 %, with test-time augmentation",
        "2.0 M",
        "0.24",
        "Jordan 2024, arXiv:2404.00498",
    ),
    Baseline(
        "airbench96_faster",
        "96.0 %, with test-time augmentation",
        "9.9 M",
        "0.90",
        "Jordan 2024, github.com/KellerJordan/cifar10-airbench",
    ),
    Baseline("ResNet-18, SAMix", "97.2 to 97.5 %", "11.2 M", "1.11", "Li et al., arXiv:2111.15454"),
    Baseline("WRN-16-8, ASAM", "97.45 %", "11.0 M", "3.10", "Kwon et al. 2021, arXiv:2102.11600"),
)

REFERENCE_VALUES = {
    "class mAP": "raw pixels 14.4 %, airbench94's features 93.5 %; target 96 %",
    "fine precision@10": "raw pixels 13.5 %, airbench94's features 34.7 %",
    "copies": "target 95 %",
    "calibration": "target 1 %",
}
"""What other embeddings reach in the same measurements, and the targets of this project; features
are those of the last layer."""
