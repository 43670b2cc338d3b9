"""What others reach on CIFAR-10, for a reader who asks whether a figure is good."""

from __future__ import annotations

from typing import NamedTuple


class Anchor(NamedTuple):
    """A published model: accuracy on the 10,000 test pictures, size and cost as its authors say."""

    name: str
    accuracy: str
    parameters: str
    gflop: str
    source: str


NETWORKS = (
    Anchor(
        "airbench94_muon",
        "94.0 %, with test-time augmentation",
        "2.0 M",
        "0.24",
        "Jordan 2024, arXiv:2404.00498",
    ),
    Anchor(
        "airbench96_faster",
        "96.0 %, with test-time augmentation",
        "9.9 M",
        "0.90",
        "Jordan 2024, github.com/KellerJordan/cifar10-airbench",
    ),
    Anchor("ResNet-18, SAMix", "97.2 to 97.5 %", "11.2 M", "1.11", "Li et al., arXiv:2111.15454"),
    Anchor("WRN-16-8, ASAM", "97.45 %", "11.0 M", "3.10", "Kwon et al. 2021, arXiv:2102.11600"),
)

SCALE = {
    "class mAP": "raw pixels 0.144, airbench94's features 0.935; aim 0.96",
    "fine precision@10": "raw pixels 0.135, airbench94's features 0.347",
    "copies": "aim 95 %",
    "calibration": "aim 1 %",
}
"""What a figure of the same measurement is worth; the features are those of the last layer."""
