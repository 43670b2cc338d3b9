from collections.abc import Sequence

import numpy as np
import pytest

from index.ann import tuning
from index.ann.approximate import ApproximateIndex
from tests.index.ann.test_build import IDS, XB, D
from tests.index.vectors import built


def test_the_effort_is_the_cheapest_that_reaches_the_target() -> None:
    index = built(IDS, XB, D, "rabitq", 0.9)
    assert isinstance(index, ApproximateIndex)
    assert isinstance(index.parameters["rescored"], int)
    assert index.recall is not None
    assert index.recall["value"] >= 0.95
    more = built(IDS, XB, D, "rabitq", 0.99)
    assert isinstance(more, ApproximateIndex)
    assert more.recall is not None
    assert more.recall["value"] >= 0.995
    assert more.parameters["effort"] * more.parameters["rescored"] > (
        index.parameters["effort"] * index.parameters["rescored"]
    )


def test_rows_that_may_be_on_the_disk_are_spared_by_probing_more_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = built(IDS, XB, D, "rabitq", 0.9)
    assert isinstance(index, ApproximateIndex)

    def recalls(*arguments: object) -> list[float]:
        """100 candidates reach the target, and 50 do from 54 of the 64 lists on; 63 are tried."""
        fetches, effort = arguments[3], arguments[4]
        assert isinstance(fetches, Sequence)
        assert isinstance(effort, int)
        return [1.0 if fetch >= (50 if effort >= 54 else 100) else 0.0 for fetch in fetches]

    monkeypatch.setattr(tuning, "_recalls", recalls)
    held_out = np.arange(20)
    assert tuning.tuned(index._parts, held_out, "rabitq", 0.9)[:2] == (63, 5)
    assert tuning.tuned(index._parts, held_out, "factory IVF64,SQ8", 0.9)[:2] == (6, 10)
