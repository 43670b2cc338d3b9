"""Tables of figures that are made up; nothing is served."""

from __future__ import annotations

from pathlib import Path

from benchmarks.search import Found as Stages
from benchmarks.serving import Found, Plan
from benchmarks.serving_tables import PAUSES, as_tables


def figures(per_s: float) -> dict[str, dict[str, float]]:
    load = {"per_s": per_s, "p50": 10.0, "p99": 25.0, "bad": 0}
    cpu = {"batch": 4.0, "network": 2.0, "search": 0.5, "beyond": 0.75, "total": 3.25, "others": 0}
    return {
        "search, 64 clients": {**load, **cpu},
        "livez, 8 clients": load,
        "metadata, 8 clients": load,
        PAUSES: {"warm": 3.0, "after 5 s": 4.5, "idle": 0.001},
        "process": {"start_s": 2.0, "rss_mb": 400, "peak_mb": 1500, "itself_first": 1.0},
    }


def test_both_services_are_in_the_tables() -> None:
    plan = Plan(Path("pictures"), Path("var"), rebuild=8)
    rebuilt = [
        {"what": "no job", "per_s": per_s, "p50": 20.0, "p99": 30.0, "bad": 0, "jobs": []}
        for per_s in (100, 300, 200)
    ]
    found = Found(plan, {"ours": figures(1500), "tutorial": figures(300)}, 900.0, rebuilt)
    lines = as_tables(found).splitlines()
    assert "| 64 | 300 | 1,500 | 5.0 | 10.0, 25.0 | 2.5 | 10.0, 25.0 |" in lines
    assert "| Lookalike | 64 | 2.00 | 0.50 | 0.75 | 3.25 |" in lines
    assert "| `/livez`, 8 clients, requests/s | 300 | 1,500 | 5.0 |" in lines
    assert "| plain | 3.0 | 4.5 | 0.1% |" in lines
    assert "| no job | 200.0 | 20.0 | 30.0 |" in lines
    assert lines[-1].endswith("100% of the pictures found themselves first.")


def test_stages_are_medians() -> None:
    found = Stages({"decode": [1.0, 2.0, 6.0], "whole request": [5.0, 5.0, 5.0]}, 1.0)
    lines = found.table().splitlines()
    assert lines[2].startswith("| decode | 2.00 | ")
    assert lines[3] == "| whole request | 5.00 | 5.00 |"
