"""What `test_suite` runs in place of benchmarks; each call leaves a line in a file."""

from __future__ import annotations

from benchmarks.suite.result import Headline, Result, Work, table


def _called(work: Work, name: str) -> None:
    with (work.folder / "calls").open("a") as file:
        file.write(f"{name}\n")


def good(work: Work) -> Result:
    _called(work, "good")
    calls = (work.folder / "calls").read_text().count("good")
    return Result(
        table(("call", "ms"), [(calls, "1.5")]),
        n="1",
        threads="1",
        models=(),
        headlines=[Headline("a search", "1 ms", "the plain way 3 ms", 3.0)],
        ratios={"search": 3.0},
    )


def bad(work: Work) -> Result:
    _called(work, "bad")
    raise RuntimeError("no such index")


def other(work: Work) -> Result:
    _called(work, "other")
    return Result(table(("b",), [(2,)]), n="2", threads="2", models=())


def some_ratios(work: Work) -> dict[str, float]:
    return {"search": 2.0}
