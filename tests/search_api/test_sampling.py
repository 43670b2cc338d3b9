"""The recall of real queries."""

from __future__ import annotations

import numpy as np

from index import kinds
from index.overlay import Overlay
from search_api.sampling import RecallSampler
from tests.index.test_kinds import IDS, XB, XQ, D


def test_samples_are_averaged() -> None:
    index = Overlay.over(kinds.build(IDS, XB, D, "ivf"))
    sampler = RecallSampler(share=1, rest=0)
    assert sampler.recall is None
    for row in range(20):
        thread = sampler.offer(index, XQ[row : row + 1])
        assert thread is not None
        thread.join()
    found = index.search(XQ[:20], 10).ids
    truth = kinds.build(IDS, XB, D, "exact").search(XQ[:20], 10).ids
    expected = np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
    assert sampler.recall == expected


def test_an_exact_index_is_not_asked_again_and_the_share_is_kept() -> None:
    exact = Overlay.over(kinds.build(IDS, XB, D, "exact"))
    assert RecallSampler(share=1).offer(exact, XQ) is None
    index = Overlay.over(kinds.build(IDS, XB, D, "ivf"))
    assert RecallSampler(share=0).offer(index, XQ) is None


def test_it_rests_after_a_sample() -> None:
    index = Overlay.over(kinds.build(IDS, XB, D, "ivf"))
    sampler = RecallSampler(share=1, rest=1e9)
    thread = sampler.offer(index, XQ)
    assert thread is not None
    thread.join()
    assert sampler.offer(index, XQ) is None
