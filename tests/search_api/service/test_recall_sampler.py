"""The recall of real queries."""

from __future__ import annotations

import numpy as np
import pytest

from index.ann.overlay import Overlay
from search_api.service import recall_sampler
from search_api.service.recall_sampler import RecallSampler
from tests.index.ann.test_kinds import IDS, XB, XQ, D
from tests.index.vectors import built


def test_samples_are_averaged() -> None:
    index = Overlay.over(built(IDS, XB, D, "ivf"))
    sampler = RecallSampler(share=1, rest=0)
    assert sampler.recall is None
    for row in range(20):
        thread = sampler.offer(index, XQ[row : row + 1])
        assert thread is not None
        thread.join()
    found = index.search(XQ[:20], 10).ids
    truth = built(IDS, XB, D, "exact").search(XQ[:20], 10).ids
    expected = np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
    assert sampler.recall == expected


def test_an_exact_index_is_not_asked_again_and_the_share_is_kept() -> None:
    exact = Overlay.over(built(IDS, XB, D, "exact"))
    assert RecallSampler(share=1).offer(exact, XQ) is None
    index = Overlay.over(built(IDS, XB, D, "ivf"))
    assert RecallSampler(share=0).offer(index, XQ) is None


def test_only_the_last_samples_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_sampler, "_KEPT", 2)
    index = Overlay.over(built(IDS, XB, D, "ivf"))
    sampler, last = RecallSampler(share=1, rest=0), RecallSampler(share=1, rest=0)
    for row in range(5):
        for each in (sampler, last) if row > 2 else (sampler,):
            thread = each.offer(index, XQ[row : row + 1])
            assert thread is not None
            thread.join()
    assert sampler.recall == last.recall
    assert list(sampler._values) == list(last._values)
    assert len(sampler._values) == 2


def test_it_rests_after_a_sample() -> None:
    index = Overlay.over(built(IDS, XB, D, "ivf"))
    sampler = RecallSampler(share=1, rest=1e9)
    thread = sampler.offer(index, XQ)
    assert thread is not None
    thread.join()
    assert sampler.offer(index, XQ) is None
