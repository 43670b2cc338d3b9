from __future__ import annotations

from embed.folders.kinds import Skipped, count_kinds


def test_kinds_are_counted_by_their_files() -> None:
    skipped = [Skipped(".mov", "?"), Skipped("links", "?"), Skipped(".mov", "?")]
    assert count_kinds([*skipped, Skipped("in @eaDir", "?", 7)]) == {
        "in @eaDir": 7,
        ".mov": 2,
        "links": 1,
    }
    assert count_kinds([]) == {}
