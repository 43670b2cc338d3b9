from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embed.array_cache import Splits, cached
from embed.corpus import ArrayCorpus


class Source:
    """Two splits of noise; counts how often they are loaded."""

    def __init__(self) -> None:
        self.loads = 0

    def __call__(self) -> Splits:
        self.loads += 1
        rng = np.random.default_rng(0)
        return {
            split: (rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8), np.arange(n) % 2)
            for split, n in (("train", 6), ("test", 3))
        }


def same(one: Splits, other: Splits) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(a, b) for s in one for a, b in zip(one[s], other[s], strict=True)
    )


def test_nothing_is_loaded_the_second_time(tmp_path: Path) -> None:
    source = Source()
    for _ in range(2):
        assert same(cached(tmp_path / "cache", source), Source()())
    assert source.loads == 1


def test_cached_arrays_are_mapped_and_read_only(tmp_path: Path) -> None:
    pictures, _ = cached(tmp_path / "cache", Source())["train"]
    assert isinstance(pictures, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pictures[0] = 0


@pytest.mark.parametrize("name", ["train-pictures.npy", "test-labels.npy", "checksums.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_is_detected_and_repaired(tmp_path: Path, name: str, harm: str) -> None:
    source = Source()
    cached(tmp_path / "cache", source)
    path = tmp_path / "cache" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flip" else data[:-2])
    for _ in range(2):
        assert same(cached(tmp_path / "cache", source), Source()())
    assert source.loads == 2
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_it_works_if_nothing_can_be_cached(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = Source()
    for _ in range(2):
        assert same(cached(tmp_path / "file" / "cache", source), Source()())
    assert source.loads == 2


def test_a_corpus_reads_the_same_pictures(tmp_path: Path) -> None:
    source = Source()
    corpora = [ArrayCorpus("made", ("a", "b"), source) for _ in range(3)]
    for corpus in corpora[1:]:
        corpus.keep_in(tmp_path / "cache")
    plain, first, second = corpora
    assert first.items == second.items == plain.items
    assert np.array_equal(second.read("test/00002"), plain.read("test/00002"))
    assert source.loads == 2
