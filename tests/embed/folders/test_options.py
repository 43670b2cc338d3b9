from __future__ import annotations

import json

from embed.folders.options import FolderOptions


def test_what_was_chosen_goes_over_what_a_store_keeps() -> None:
    chosen = FolderOptions.chosen(splits="no", hidden=False, follow_links=None)
    assert (chosen.splits, chosen.hidden, chosen.follow_links) == ("no", False, False)
    stored = FolderOptions(splits="yes", hidden=True, follow_links=True)
    assert chosen.over(stored) == FolderOptions(splits="no", hidden=False, follow_links=True)
    assert FolderOptions().over(stored) == stored


def test_options_as_json() -> None:
    options = FolderOptions.chosen(splits="yes", gps_place=True)
    values = json.loads(json.dumps(options.to_dict()))
    assert FolderOptions.from_dict(values) == options
    assert FolderOptions.from_dict({"splits": "no", "of a later version": 1}) == FolderOptions("no")
