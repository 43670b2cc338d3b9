"""The parts of `make bench`, in the order in which they run.

To add one, write ``def part(work: Work) -> Result`` next to what it measures, name it here, and put
the markers of its block into docs/benchmarks.md. Ratios against a peer that should never fall
unseen come from ``def ratios(work: Work) -> dict[str, float]``, in `RATIOS`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One process that measures something and whose tables become one block of the document.

    Attributes:
        name: of the block.
        what: for people, in a few words.
        minutes: it takes about, on two cores.
        function: ``module:name`` of a function from `Work` to `Result`.
    """

    name: str
    what: str
    minutes: float
    function: str


PARTS = (
    Part("building", "building a store of 60,000 pictures", 3, "benchmarks.building:part"),
    Part("index", "kinds of index, the model that ships", 4, "benchmarks.index:part"),
    Part("index-photo", "kinds of index, the photo encoder", 8, "benchmarks.index:photo_part"),
    Part("runtime", "inference runtimes", 4, "benchmarks.runtime:part"),
    Part("decoding", "decoding untrusted pictures", 2, "benchmarks.decoding:part"),
    Part("ingest", "photographs to an index", 4, "benchmarks.ingest:part"),
    Part("serving", "requests a second under load", 8, "benchmarks.serving_tables:part"),
    Part("stages", "a request by stage", 1, "benchmarks.serving_tables:stages_part"),
    Part("tagging", "tagging a folder", 3, "benchmarks.tagging:part"),
    Part("ratios", "what `make bench-check` compares", 4, "benchmarks.suite.ratios:part"),
)
LARGE = (
    Part("million", "a million vectors, the model that ships", 60, "benchmarks.million:part"),
    Part("million-photo", "the photo encoder", 30, "benchmarks.million:photo_part"),
    Part("growth", "from ten thousand to ten million", 30, "benchmarks.growth:part"),
)
"""Parts of `make bench-large`: of vectors that `benchmarks.vectors` has put into the folder
``million`` of `Work.folder`, in some hours and 25 GB."""
RATIOS = {
    "index": "benchmarks.index:ratios",
    "runtime": "benchmarks.runtime:ratios",
    "decoding": "benchmarks.decoding:ratios",
    "serving": "benchmarks.serving_tables:ratios",
}
"""Functions from `Work` to ratios against peers by name, larger is better: see `suite.ratios`."""
