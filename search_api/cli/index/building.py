"""Building the index with progress bars, for `lookalike index build` and `lookalike up`."""

from __future__ import annotations

from index.contract import JobControl
from search_api.cli.options import Bars, counted, say, skipped_kinds
from search_api.service.corpus_sync import Counts
from search_api.service.engine import SearchEngine


def build(
    engine: SearchEngine,
    reembed: bool = False,
    kind: str | None = None,
    replace_corpus: bool = False,
    allow_removal: bool = False,
) -> Counts:
    """Rebuild the index with progress bars, and print a summary."""
    with Bars() as bars:
        manifest, counts = engine.builder.rebuild(
            engine.encoder,
            engine.corpus,
            JobControl(bars),
            reembed=reembed,
            kind=kind,
            replace_corpus=replace_corpus,
            allow_removal=allow_removal,
        )
    more = {"changed": counts.changed, "moved": counts.moved}
    what = "".join(f", {number:,} {name}" for name, number in more.items() if number)
    say(
        f"Index: generation {manifest.generation} with {counted(manifest.count)}"
        f" ({counts.embedded:,} embedded now{what}, {counts.kept:,} unchanged,"
        f" {counts.removed:,} removed)."
    )
    for notice in counts.notices:
        say(notice)
    if counts.unreachable:
        stay = "stays as it was" if counts.unreachable == 1 else "stay as they were"
        say(
            f"{counted(counts.unreachable)} could not be looked at and {stay}; see"
            f" {engine.var / 'skipped.json'} for the reasons."
        )
    if counts.skipped:
        say(
            f"Skipped {skipped_kinds(counts.kinds)}; see {engine.var / 'skipped.json'} for the"
            " reasons."
        )
    return counts
