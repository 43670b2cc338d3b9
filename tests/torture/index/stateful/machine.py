"""Which operations, kills, damage and races follow each other, as Hypothesis draws them."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.torture.index.stateful.model import COLOURS, FIRST, SECOND, Step
from tests.torture.index.stateful.world import CORPUS, World

LABELS = ("a", "b", "c")
NAMES = ("s0", "s1", "s2")
SOURCES = (*CORPUS, "4.png", "c/5.png", "test/6.png")
KINDS = ("exact", "ivf", "hnsw", "rabitq", "IVF1,SQ8")

numbers = st.integers(0, 30)
shares = st.integers(0, 99).map(lambda percent: percent / 100)
labels = st.sampled_from((None, *LABELS))
splits = st.sampled_from((None, "train", "test"))
payloads = st.dictionaries(st.sampled_from(("n", "t")), st.integers(0, 3), max_size=2)
servers = st.sampled_from((0, 1))
points = st.integers(0, 70)

colours = st.integers(0, len(COLOURS) - 1)
uploads = st.lists(
    st.fixed_dictionaries(
        {"colour": colours},
        optional={
            "key": st.sampled_from(("k0", "k1", "k2")),
            "label": labels,
            "split": splits,
            "payload": payloads,
        },
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda upload: upload.get("key") or id(upload),
)


def draft(name: str, /, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """An operation in which ``pick``, ``picks`` and ``other`` stand for what is stored then."""
    return st.fixed_dictionaries({}, optional=optional).map(lambda args: Step(name, args))


def whole(name: str, /, **args: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """As `draft`, with all arguments."""
    return st.fixed_dictionaries(args).map(lambda found: Step(name, found))


names = st.sampled_from(NAMES)
ADDITIONS = whole("add", uploads=uploads)
EDITS = st.one_of(
    draft("update", pick=numbers, label=labels, split=splits, payload=payloads),
    draft("update", pick=numbers, payload=payloads, replace_payload=st.just(True)),
    whole("delete_one", pick=numbers),
    whole("delete", picks=st.lists(numbers, min_size=1, max_size=3)),
    whole("delete_where", label=st.sampled_from(LABELS)),
)
TRASH = st.one_of(
    whole("undelete", trashed=st.lists(numbers, min_size=1, max_size=3)),
    draft("purge", trashed=st.lists(numbers, min_size=1, max_size=3)),
)
BUILDS = st.one_of(
    draft("rebuild", reembed=st.just(True)),
    draft("compact", kind=st.sampled_from(KINDS)),
    whole("embed", other=st.just(True)),
    whole("switch", other=st.booleans()),
)
SNAPSHOTS = st.one_of(*(whole(name, name=names) for name in ("snapshot", "restore", "remove")))
OPERATIONS = st.one_of(ADDITIONS, EDITS, TRASH, BUILDS, SNAPSHOTS)


class TwoServers(RuleBasedStateMachine):
    """Two servers on a store, a third that is killed, and damage between."""

    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self._base = Path(tempfile.mkdtemp(prefix="lookalike-"))
        self._world = World(self._base)
        self._trail: list[str] = []

    def teardown(self) -> None:
        self._world.close()
        shutil.rmtree(self._base)

    def _do(self, name: str, *args: Any) -> None:
        """Call a method of `World`; what led to a failure is noted, to be replayed in a test."""
        self._trail.append(f"world.{name}({', '.join(map(repr, args))})")
        TwoServers.steps[name] += 1
        try:
            getattr(self._world, name)(*args)
        except Exception as error:
            error.add_note("\n".join(self._trail))
            raise

    def _step(self, drafted: Step) -> Step:
        """The operation on what is stored now."""
        args = dict(drafted.args)
        ids = sorted(picture.id or 0 for picture in self._world.state.pictures) or [0]
        if drafted.name == "update":
            args["id"] = ids[args.pop("pick", 0) % len(ids)]
        if drafted.name == "delete_one":
            args["id"] = ids[args.pop("pick") % len(ids)]
        if "picks" in args:
            args["ids"] = sorted({ids[pick % len(ids)] for pick in args.pop("picks")})
        if "trashed" in args:
            trash = sorted(picture.id or 0 for picture in self._world.state.trash) or [0]
            args["ids"] = sorted({trash[pick % len(trash)] for pick in args.pop("trashed")})
        if "other" in args:
            model = self._world.state.model
            args["model"] = model if not args.pop("other") else (FIRST, SECOND)[model == FIRST]
        return Step(drafted.name, args)

    @rule(drafted=ADDITIONS, server=servers)
    def add(self, drafted: Step, server: int) -> None:
        self._do("run", self._step(drafted), server)

    @rule(drafted=OPERATIONS, server=servers)
    def operate(self, drafted: Step, server: int) -> None:
        self._do("run", self._step(drafted), server)

    @rule(drafted=OPERATIONS, point=points)
    def kill(self, drafted: Step, point: int) -> None:
        self._do("kill", self._step(drafted), point)

    @rule(first=OPERATIONS, others=st.lists(OPERATIONS, min_size=1, max_size=2), point=points)
    def race(self, first: Step, others: list[Step], point: int) -> None:
        self._do("race", self._step(first), [self._step(other) for other in others], point)

    @rule(source=st.sampled_from(SOURCES), colour=st.none() | colours, label=labels)
    def file(self, source: str, colour: int | None, label: str | None) -> None:
        if colour is not None:
            self._do("put_file", source, colour, label)
        elif len(self._world.disk.files) > 1 and source in self._world.disk.files:
            self._do("remove_file", source)

    @rule(
        what=st.sampled_from(("index", "snapshot", "picture", "watermark")),
        number=numbers,
        where=shares,
        truncate=st.booleans(),
    )
    def damage(self, what: str, number: int, where: float, truncate: bool) -> None:
        whole_ones = sorted(self._world.state.snapshots.keys() - self._world.disk.broken)
        if what == "watermark":
            self._do("lose_watermark", "emptied" if truncate else "removed")
        elif what == "snapshot" and whole_ones:
            self._do("damage_snapshot", whole_ones[number % len(whole_ones)], where, truncate)
        else:
            name = "damage_picture" if what == "picture" else "damage_index"
            self._do(name, number, where, truncate)

    @rule(what=st.sampled_from(("reopen", "back_up", "put_back")), number=st.integers(0, 2))
    def restart(self, what: str, number: int) -> None:
        if what == "put_back" and self._world.copies:
            self._do("put_back", number)
        elif what == "back_up" and len(self._world.copies) < 3:
            self._do("back_up")
        else:
            self._do("reopen", *((0,), (1,), (0, 1))[number])
