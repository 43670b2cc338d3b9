"""A vote of the nearest neighbours on the class of a picture."""

from collections import Counter
from collections.abc import Sequence

VOTERS = 10
"""The number of nearest neighbours that vote on the class and on tags."""


def vote(labels: Sequence[str | None]) -> tuple[str, float] | None:
    """The most frequent label of neighbours given nearest first, and its share in 0..1.

    Neighbours without a label do not vote and do not count towards the share. A tie goes to the
    label of the nearest neighbour. None if there is no label.
    """
    votes = Counter(label for label in labels if label is not None)
    if not votes:
        return None
    # most_common keeps the order of first appearance among equals.
    ((label, number),) = votes.most_common(1)
    return label, number / votes.total()
