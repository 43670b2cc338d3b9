"""FAISS factory strings: which ones are accepted, and what building one would cost.

FAISS allocates what a string says before it looks at any vector: ``IVF4,PQ2x24`` reserves tables
of 16 GB. So strings are parsed here first, by a strict grammar with bounds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from index.contract import IndexInputError
from index.memory import available_memory

KINDS = ("auto", "exact", "ivf", "hnsw", "rabitq")
"""The kinds with a name; see `index.ann.kinds`."""

_GRAMMAR = (
    "[PCAd, | PCARd, | RRd, | OPQm, | OPQm_d,] IVFn[_HNSWm],CODE or HNSWm[,CODE], where CODE is "
    "Flat, SQ4, SQ6, SQ8, SQfp16, SQbf16, PQm, PQmxb, PQmx4fs or, after IVF, RaBitQ or, after "
    "HNSW without a reduction, SQ8_direct"
)
STEP = 16
"""FAISS's scalar quantisers use SIMD for multiples of this many dimensions only, and are ten times
slower for others. (Measured: multiples of 32 or 64 are no faster.)"""
TRAINING_PER_LIST = 64
LEAST_LISTS = 256

_MAX_CHARS = 100
_MAX_LISTS = 2**20
_LINKS = (4, 128)
_BITS = (4, 12)
_PICTURES_PER_LIST = 4
# About as many operations as two cores compute in six hours.
_MAX_WORK = 10**15
_EF_CONSTRUCTION = 160
# A step in a graph waits for memory as long as this many computations take.
_GRAPH_STEP = 5
_PRECOMPUTED = 2 * 2**30

_NUMBER = "([1-9][0-9]{0,8})"
_CODE = f"(Flat|SQ4|SQ6|SQ8_direct|SQ8|SQfp16|SQbf16|RaBitQ|PQ{_NUMBER}(?:x{_NUMBER}(fs)?)?)"
_FORM = re.compile(
    f"(?:(PCAR?|RR|OPQ){_NUMBER}(?:_{_NUMBER})?,)?"
    f"(?:IVF{_NUMBER}(?:_HNSW{_NUMBER})?|HNSW{_NUMBER})"
    f"(?:[,_]{_CODE})?"
)
_TRANSFORM = re.compile("(PCAR?|RR|OPQ)[0-9_]+,")
DIRECT = "SQ8_direct"
"""The code of `index.ann.byte_codes`."""
_SCALAR_BITS = {
    "Flat": 32,
    "SQ4": 4,
    "SQ6": 6,
    "SQ8": 8,
    DIRECT: 8,
    "SQfp16": 16,
    "SQbf16": 16,
}


@dataclass(frozen=True)
class Factory:
    """A parsed string.

    Attributes:
        transform: ``PCA``, ``PCAR``, ``RR``, ``OPQ`` or empty.
        width: dimensions after it; None for as many as before.
        blocks: of ``OPQ``.
        lists: number of inverted lists; 0 for a graph of the vectors.
        links: of each node of the graph, which is over the lists if there are any; 0 without one.
        code: ``Flat``, ``PQ`` and so on.
        parts: of a ``PQ``.
        bits: of each part.
    """

    transform: str
    width: int | None
    blocks: int
    lists: int
    links: int
    code: str
    parts: int
    bits: int

    def output(self, dimension: int) -> int:
        """The dimensions that are indexed, without padding."""
        return dimension if self.width is None else self.width

    def indexed(self, dimension: int) -> int:
        """The dimensions that are indexed, with zeros for padding.

        A ``PQ`` needs none for its speed, so it gets none unless its parts divide only the padded
        dimensions.
        """
        width = self.output(dimension)
        return width if self.parts and width % self.parts == 0 else padded(width)

    def trained_on(self, count: int) -> int:
        """How many of ``count`` vectors it is trained on."""
        return min(count, TRAINING_PER_LIST * max(LEAST_LISTS, self.lists))

    def code_bytes(self, width: int) -> int:
        """The size of one vector's code."""
        if self.code == "PQ":
            return -(-self.parts * self.bits // 8)
        if self.code == "RaBitQ":
            return -(-width // 8) + 8
        return -(-width * _SCALAR_BITS[self.code] // 8)

    def memory(self, dimension: int, count: int) -> int:
        """Bytes that building it over ``count`` vectors takes, estimated."""
        width, trained = self.indexed(dimension), self.trained_on(count)
        graph = (self.lists or count) * (8 * self.links + 16) if self.links else 0
        tables = 2 * 4 * width * 2**self.bits if self.parts else 0
        precomputed = 4 * self.lists * self.parts * 2**self.bits
        return (
            count * (self.code_bytes(width) + 8)
            + 2 * 4 * self.lists * width
            + graph
            + tables
            + (precomputed if precomputed <= _PRECOMPUTED else 0)
            + 4 * trained * (dimension + width)
            + (24 * dimension * dimension if self.transform else 0)
        )

    def work(self, dimension: int, count: int) -> int:
        """Operations that training and adding ``count`` vectors take, estimated."""
        width, trained = self.indexed(dimension), self.trained_on(count)
        total = 2 * 10 * trained * self.lists * width
        if self.lists:
            total += 2 * count * width * (64 * self.links if self.links else self.lists)
        else:
            total += 2 * count * _EF_CONSTRUCTION * self.links * width * _GRAPH_STEP
        if self.parts:
            total += 2 * (25 * trained + count) * 2**self.bits * width
        if self.transform:
            total += 2 * (trained + count) * dimension * width + 20 * dimension**3
        if self.transform == "OPQ":
            total += 50 * (2 * 4 * min(trained, 2**16) * 256 * width + 20 * width**3)
        return total


def padded(dimension: int) -> int:
    """The least multiple of STEP that is not below ``dimension``."""
    return -(-dimension // STEP) * STEP


def padding(text: str, dimension: int) -> str:
    """The string ``text``, which `parse` accepts, with the padding that FAISS's index needs.

    The index still takes vectors of ``dimension`` and pads them itself.
    """
    factory = parse(text, dimension, None)
    width = factory.indexed(dimension)
    if width == factory.output(dimension) or factory.code == DIRECT:
        return text
    found = _TRANSFORM.match(text)
    if found is None:
        return f"Pad{width},{text}"
    if factory.transform == "RR":  # may rotate into more dimensions, which then are not zeros
        return f"RR{width},{text[found.end() :]}"
    return f"{found[0]}Pad{width},{text[found.end() :]}"


def parse(text: str, dimension: int, count: int | None) -> Factory:
    """The factory string ``text``, for ``count`` vectors of ``dimension``; None if not known yet.

    Raises IndexInputError, naming what was received and expected, if it is not of the grammar,
    exceeds a bound, does not suit the vectors, or would take too much memory or work.
    """
    shown = text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}..."

    def refuse(why: str) -> IndexInputError:
        return IndexInputError(f"kind is {shown!r}; {why}")

    found = None if len(text) > _MAX_CHARS else _FORM.fullmatch(text)
    if found is None:
        raise refuse(f"expected one of {', '.join(KINDS)}, or a FAISS factory string {_GRAMMAR}")
    factory = _factory(found, refuse)
    _check(factory, dimension, count, refuse)
    return factory


_Refuse = Callable[[str], IndexInputError]


def _factory(found: re.Match[str], refuse: _Refuse) -> Factory:
    transform, first, second, lists, coarse, links, code, parts, bits, fast = found.groups()
    if second is not None and transform != "OPQ":
        raise refuse(f"{transform} takes one number; expected {_GRAMMAR}")
    if lists is not None and (code is None or f",{code}" not in found[0]):
        raise refuse(f"IVF needs a comma and a code after it; expected {_GRAMMAR}")
    if lists is None and code == "RaBitQ":
        raise refuse(f"RaBitQ needs lists; expected {_GRAMMAR}")
    if code == DIRECT and (lists is not None or transform):
        raise refuse(f"{DIRECT} needs a graph of the vectors as they are; expected {_GRAMMAR}")
    if fast is not None and bits != "4":
        raise refuse("PQmx4fs has 4 bits; expected x4fs, or a PQ without fs")
    width = second if transform == "OPQ" else first
    return Factory(
        transform=transform or "",
        width=None if width is None else int(width),
        blocks=int(first) if transform == "OPQ" else 0,
        lists=int(lists or 0),
        links=int(coarse or links or 0),
        code="PQ" if parts else code or "Flat",
        parts=int(parts or 0),
        bits=int(bits or 8),
    )


def _check(factory: Factory, dimension: int, count: int | None, refuse: _Refuse) -> None:
    width = factory.output(dimension)
    if width > dimension:
        raise refuse(f"the vectors have {dimension} dimensions; expected at most as many after it")
    if factory.lists > _MAX_LISTS:
        raise refuse(f"{factory.lists:,} lists; expected at most {_MAX_LISTS:,}")
    if factory.links and not _LINKS[0] <= factory.links <= _LINKS[1]:
        raise refuse(f"HNSW{factory.links}; expected HNSW{_LINKS[0]} to HNSW{_LINKS[1]}")
    if not _BITS[0] <= factory.bits <= _BITS[1]:
        raise refuse(f"a PQ of {factory.bits} bits; expected {_BITS[0]} to {_BITS[1]}")
    for name, parts, widths in (
        ("PQ", factory.parts, sorted({width, padded(width)})),
        ("OPQ", factory.blocks, [width]),
    ):
        if parts and all(one % parts for one in widths):
            either = " or ".join(str(one) for one in widths)
            raise refuse(f"{name}{parts} of {width} dimensions; expected a divisor of {either}")
    if count is None:
        return
    if factory.lists * _PICTURES_PER_LIST > max(count, _PICTURES_PER_LIST):
        raise refuse(
            f"{factory.lists:,} lists for {count:,} pictures; expected at most "
            f"{max(count // _PICTURES_PER_LIST, 1):,}"
        )
    if factory.parts and 2**factory.bits > factory.trained_on(count):
        raise refuse(
            f"a PQ of {factory.bits} bits for {count:,} pictures; expected at least "
            f"{2**factory.bits:,} pictures to train it on"
        )
    memory, available = factory.memory(dimension, count), available_memory()
    if memory > available:
        raise refuse(
            f"building it over {count:,} pictures would take about {memory / 1e9:.1f} GB of "
            f"memory, and {available / 1e9:.1f} GB may be used; choose a smaller one"
        )
    if (work := factory.work(dimension, count)) > _MAX_WORK:
        raise refuse(
            f"building it over {count:,} pictures would take about {work:.0e} operations; "
            f"expected at most {_MAX_WORK:.0e}; use fewer lists, links or bits"
        )
