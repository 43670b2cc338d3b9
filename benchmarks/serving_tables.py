"""What `benchmarks.serving` and `benchmarks.search` measure, as parts of `make bench`.

python -m benchmarks serving stages
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Iterator

from benchmarks import search
from benchmarks.serving import PORT, Found, Plan, measure, server
from benchmarks.suite import prepared
from benchmarks.suite.result import Headline, Result, Work, table

PAUSES = "pauses, 1 client"
_PACKAGES = ("torch", "openvino", "faiss-cpu", "fastapi", "uvicorn")

Figures = dict[str, dict[str, float]]
"""Medians by what was asked and by name."""


def part(work: Work) -> Result:
    """Load on the service and on the tutorial's."""
    seconds, rounds, pauses = (1, 1, (0.2,)) if work.short else (8, 2, Plan.pauses)
    found = _measured(work, seconds, rounds, pauses, 0 if work.short else 8)
    return Result(
        as_tables(found),
        n=f"medians of {rounds} rounds of {seconds} s",
        threads="2, which wrk shares",
        packages=_PACKAGES,
        headlines=_headlines(found),
    )


def ratios(work: Work) -> dict[str, float]:
    """For `make bench-check`: requests a second, as many times as the tutorial's."""
    found = _measured(work, 1 if work.short else 5, 1, clients=(8, 64))
    return {
        f"serving: {what} against the tutorial, requests a second": ratio
        for what, ratio in found.ratios().items()
        if what.startswith("search")
    }


def stages_part(work: Work) -> Result:
    """One client, by stage."""
    requests = 20 if work.short else 300
    command = [sys.executable, "-m", "search_api.cli", "serve", "--port", str(PORT)]
    command += ["--data", str(work.data), "--var", str(prepared.store(work))]
    with server(command):
        found = search.measure(f"http://127.0.0.1:{PORT}", work.data, requests)
    return Result(
        found.table(),
        n=f"{requests} requests of one client, which opens a connection for each",
        threads="2",
        packages=_PACKAGES,
    )


def as_tables(found: Found) -> str:
    """Markdown: load, CPU time, other routes and the process, and pauses if there were any."""
    ours, plain = found.medians["ours"], found.medians[found.plan.other]
    tables = [_load(ours, plain), _cpu(ours, plain), _rest(ours, plain)]
    if PAUSES in ours:
        tables.append(_pauses(ours[PAUSES], plain[PAUSES]))
    if found.rebuilt:
        tables.append(_rebuilds(found))
    tables.append(
        f"The model alone, in batches of 64, processes {found.alone:,.0f} pictures a second."
        f" {ours['process']['itself_first']:.0%} of the pictures found themselves first."
    )
    return "\n\n".join(tables)


def _load(ours: Figures, plain: Figures) -> str:
    return table(
        (
            *("clients", "plain, requests/s", "Lookalike, requests/s", "times"),
            *("Lookalike p50, p99 ms", "p99/p50", "plain p50, p99 ms"),
        ),
        (
            (
                clients,
                f"{plain[what]['per_s']:,.0f}",
                f"{ours[what]['per_s']:,.0f}",
                f"{ours[what]['per_s'] / plain[what]['per_s']:.1f}",
                f"{ours[what]['p50']:.1f}, {ours[what]['p99']:.1f}",
                f"{ours[what]['p99'] / ours[what]['p50']:.1f}",
                f"{plain[what]['p50']:.1f}, {plain[what]['p99']:.1f}",
            )
            for what, clients in _searches(ours)
        ),
    )


def _cpu(ours: Figures, plain: Figures) -> str:
    stages = {"network": "network", "search": "search", "beyond": "beyond these", "total": "total"}
    return table(
        ("CPU ms a request", "clients", *stages.values()),
        (
            (name, clients, *(f"{one[what][stage]:.2f}" for stage in stages))
            for name, one in (("Lookalike", ours), ("plain", plain))
            for what, clients in _searches(ours)
        ),
    )


def _rest(ours: Figures, plain: Figures) -> str:
    rows: list[tuple[object, ...]] = []
    for name, what in (("`/livez`", "livez"), ("metadata of a picture", "metadata")):
        mine, theirs = (one[f"{what}, 8 clients"]["per_s"] for one in (ours, plain))
        times = f"{mine / theirs:.1f}"
        rows.append((f"{name}, 8 clients, requests/s", f"{theirs:,.0f}", f"{mine:,.0f}", times))
    both = plain["process"], ours["process"]
    memory = (f"{one['rss_mb']:,.0f}, {one['peak_mb']:,.0f} MB" for one in both)
    start = (f"{one['start_s']:.1f} s" for one in both)
    rows += [
        ("memory of the process: after the load, peak", *memory, None),
        ("start until `/livez` answers", *start, None),
    ]
    return table(("", "plain", "Lookalike", "times"), rows)


def _pauses(ours: dict[str, float], plain: dict[str, float]) -> str:
    columns = [name for name in ours if name != "idle"]
    return table(
        ("one client, ms until the answer", *columns, "CPU of the idle server"),
        (
            (name, *(f"{one[x]:.1f}" for x in columns), f"{one['idle']:.1%}")
            for name, one in (("Lookalike", ours), ("plain", plain))
        ),
    )


def _rebuilds(found: Found) -> str:
    figures = ("per_s", "p50", "p99")
    runs: dict[str, list[dict[str, float]]] = {}
    for run in found.rebuilt:
        runs.setdefault(run["what"], []).append(run)
    return table(
        (f"{found.plan.rebuild} clients, meanwhile", "requests/s", "p50 ms", "p99 ms"),
        (
            (what, *(f"{statistics.median(run[x] for run in some):,.1f}" for x in figures))
            for what, some in runs.items()
        ),
    )


def _searches(ours: Figures) -> Iterator[tuple[str, str]]:
    for what in ours:
        if what.startswith("search, "):
            yield what, what.removeprefix("search, ").split()[0]


def _measured(
    work: Work,
    seconds: int,
    rounds: int,
    pauses: tuple[float, ...] = (),
    rebuild: int = 0,
    clients: tuple[int, ...] = Plan.clients,
) -> Found:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: `apt-get install wrk`")
    work.say("the service and the tutorial's in turn")
    var = prepared.store(work)
    return measure(
        Plan(
            work.data,
            var,
            seconds=seconds,
            rounds=rounds,
            clients=clients,
            pauses=pauses,
            rebuild=rebuild,
        )
    )


def _headlines(found: Found) -> list[Headline]:
    ours, plain = found.medians["ours"], found.medians[found.plan.other]
    return [
        Headline(
            f"uploads searched for, {what.removeprefix('search, ')}",
            f"{ours[what]['per_s']:,.0f} requests/s",
            f"a tutorial's service {plain[what]['per_s']:,.0f}",
            ratio,
        )
        for what, ratio in found.ratios().items()
        if what in ("search, 8 clients", "search, 64 clients")
    ]
