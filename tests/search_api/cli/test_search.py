"""`lookalike search` in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.search_api.cli.helpers import CLASSES, Env, run


def test_search(store: Env, scenes: Path) -> None:
    image = scenes / "house" / "2.png"
    done = run("search", image, "--limit", 4, "--json", env=store)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["points"]) == 4
    assert answer["points"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    assert sum(answer["prediction"]["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    text = run("search", image, "--limit", 4, env=store).stdout
    assert text.startswith("class  ")
    assert len(text.splitlines()) == 4 + 4


def test_search_by_stored_ids_and_in_other_ways(store: Env, scenes: Path) -> None:
    def answer(*args: object) -> dict[str, Any]:
        done = run("search", *args, "--json", env=store)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    image = scenes / "house" / "2.png"
    first = answer(image, "--limit", 1)["points"][0]["id"]
    similar = answer(first, "--limit", 24)["points"]
    assert first not in {point["id"] for point in similar}
    assert len(similar) == 23
    houses = '{"must": [{"key": "label", "match": {"value": "house"}}]}'
    found = answer(image, "--filter", houses, "--threshold", -1, "--offset", 1, "--limit", 24)
    assert {point["payload"]["label"] for point in found["points"]} == {"house"}
    groups = answer(first, "--group-by", "label", "--group-size", 1)["groups"]
    assert {group["value"] for group in groups} == set(CLASSES)
    assert all(len(group["points"]) == 1 for group in groups)
    varied = answer(image, "--diversity", 1, "--candidates", 10, "--limit", 2)["points"]
    assert varied[0]["id"] == first
    boat = scenes / "boat" / "1.png"
    both = answer(image, "--like", first, "--unlike", boat, "--strategy", "best_score")
    assert first not in {point["id"] for point in both["points"]}
    text = run("search", first, "--group-by", "label", env=store).stdout
    assert "house:\n" in text
