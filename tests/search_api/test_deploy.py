"""The dashboard: every metric in it exists, and it shows every metric of ours."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fastapi.testclient import TestClient

from search_api.api.metrics import Metrics
from tests.search_api.conftest import colour, png

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-dashboard.json"
_NAMES = re.compile(r"\b(?:lookalike|process)_[a-z_]+")


def shown() -> set[str]:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    texts += [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
    return {name for text in texts for name in _NAMES.findall(text)}


def exported(metrics: Metrics) -> dict[str, str]:
    """The metric of each time series that can be scraped."""
    suffixes = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_count", "_sum"),
        "info": ("_info",),
        "gauge": ("",),
    }
    return {
        family.name + suffix: family.name
        for family in metrics.registry.collect()
        for suffix in suffixes.get(family.type, ("",))
    }


def test_every_metric_in_the_dashboard_exists() -> None:
    assert shown() <= set(exported(Metrics()))


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    names = exported(Metrics())
    ours = {name for name in names.values() if name.startswith("lookalike_")}
    assert ours == {names[name] for name in shown() if name.startswith("lookalike_")}


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own


def test_metrics_in_the_dashboard_are_served(client: TestClient) -> None:
    client.post("/v1/search", files={"image": ("q.png", png(colour("red", 1)))})
    text = client.get("/metrics").text
    for name in (
        "lookalike_requests_running 1.0",
        "lookalike_queue_depth 0.0",
        "lookalike_queue_refused_total 0.0",
        "lookalike_batch_size_count ",
        "lookalike_index_pictures 24.0",
        "lookalike_index_pending 0.0",
        "process_resident_memory_bytes ",
    ):
        assert f"\n{name}" in text
