"""The model: what a store must hold after each operation, and the fake encoders it is filled with.

A picture is one of a few colours, so a vector tells which picture it was made of. A state is never
changed; each operation gives the next one. Ids that the store is yet to assign are None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from embed.encoder import Encoding
from embed.pictures import RGB, encode_png
from embed.preprocess import Preprocess
from index.contract import Vectors


def _colours() -> tuple[tuple[int, int, int], ...]:
    """Colours whose directions differ clearly."""
    found: list[tuple[int, int, int]] = []
    for colour in product((9, 59, 139, 239), repeat=3):
        others = [_unit(other) @ _unit(colour) for other in found]
        if not others or max(others) < 0.995:
            found.append(colour)
    return tuple(found)


def _unit(colour: Sequence[float]) -> Vectors:
    vector = np.asarray(colour, np.float32) + 1
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


COLOURS = _colours()
PNG = tuple(encode_png(np.full((4, 4, 3), colour, np.uint8)) for colour in COLOURS)


class Painter:
    """An encoder whose embedding is the mean colour, the channels rolled and padded with zeros."""

    classes = ("blue", "green", "red")
    input_size = 4
    preprocess = Preprocess(input_size=4)

    def __init__(self, roll: int, dimension: int) -> None:
        self.digest = f"sha256:{roll:064x}"
        self.dimension = dimension
        self._roll = roll

    def fit(self, picture: RGB) -> RGB:
        return picture

    def vectors(self, colours: Iterable[Sequence[float]]) -> Vectors:
        """The embeddings of plain pictures, float32 ``(n, dimension)``."""
        xb = np.zeros((len(rows := list(colours)), self.dimension), np.float32)
        for row, colour in enumerate(rows):
            xb[row, :3] = np.roll(_unit(colour), self._roll)
        return xb

    def encode(self, pictures: Sequence[RGB] | RGB, *, spare: bool = False) -> Encoding:
        means = [picture.reshape(-1, 3).mean(0) for picture in pictures]
        share = np.array([mean[::-1] + 1 for mean in means], np.float32).reshape(-1, 3)
        return Encoding(share / share.sum(1, keepdims=True), self.vectors(means))


PAINTERS = {painter.digest: painter for painter in (Painter(0, 3), Painter(1, 5))}
FIRST, SECOND = PAINTERS
VECTORS = {digest: painter.vectors(COLOURS) for digest, painter in PAINTERS.items()}


@dataclass(frozen=True)
class Picture:
    """A stored picture: ``colour`` is what was embedded, ``model`` the digest of the model.

    ``content`` is the colour of the picture that its content hash is of: that of a file which was
    replaced since, if another model embedded the new one.
    """

    id: int | None
    source: str
    colour: int
    model: str
    label: str | None = None
    split: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    edited: bool = False
    content: int | None = None

    def __post_init__(self) -> None:
        if self.content is None:
            object.__setattr__(self, "content", self.colour)

    @property
    def added(self) -> bool:
        return self.source.startswith(("key:", ADDED))

    def is_seen_as(self, seen: Picture, last_id: int) -> bool:
        """Whether ``seen`` is this picture; with an id above ``last_id`` if it is new."""
        if self.source == ADDED:
            known = replace(seen, source=ADDED) if seen.source.startswith(ADDED) else seen
        else:
            known = seen
        if self.id is None:
            return seen.id is not None and seen.id > last_id and replace(known, id=None) == self
        return known == self


ADDED = "added:"
"""The source of a picture added without a key; the store adds random digits."""


@dataclass(frozen=True)
class State:
    """What a store holds; ``trash`` are deleted pictures that can come back."""

    pictures: tuple[Picture, ...] = ()
    trash: tuple[Picture, ...] = ()
    tombstones: frozenset[str] = frozenset()
    model: str | None = None
    corpus: bool = False
    snapshots: Mapping[str, State] = field(default_factory=dict)

    def by_source(self) -> dict[str, Picture]:
        return {picture.source: picture for picture in self.pictures if picture.source != ADDED}


@dataclass(frozen=True)
class Disk:
    """What lies outside of the store or was damaged by force.

    Attributes:
        files: the corpus: source to colour and label.
        lost: colours whose bytes in the store are damaged.
        broken: names of damaged snapshots.
    """

    files: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)

    def readable(self, picture: Picture) -> bool:
        """Whether a picture can be embedded again."""
        if picture.added:
            return picture.colour not in self.lost
        return picture.source in self.files


class Refused(Exception):
    """The operation must fail with the error of this name."""


@dataclass(frozen=True)
class Step:
    """An operation by name, with its arguments."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gradual(self) -> bool:
        """Whether it writes in several transactions."""
        return self.name in ("rebuild", "compact", "switch", "embed")

    def __repr__(self) -> str:
        return (
            f"step({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in self.args.items())])})"
        )


def step(name: str, /, **args: Any) -> Step:
    """An operation by name."""
    return Step(name, args)


def effect(state: State, disk: Disk, done: Step) -> State:
    """The state after the operation. Raises Refused."""
    return _EFFECTS[done.name](state, disk, **done.args)


def _add(state: State, disk: Disk, uploads: Sequence[Mapping[str, Any]]) -> State:
    known = state.by_source()
    pictures = list(state.pictures)
    model = state.model or FIRST
    for upload in uploads:
        fields = dict(upload)
        key = fields.pop("key", None)
        source = ADDED if key is None else f"key:{key}"
        old = known.get(source)
        fields = {"label": None, "split": None, "payload": {}, **fields}
        if old is None:
            pictures.append(Picture(None, source, model=model, **fields))
            continue
        pictures.remove(old)
        fields["payload"] = {**old.payload, **fields["payload"]}
        colour = fields.pop("colour")
        if colour != old.content:
            fields |= {"colour": colour, "content": colour, "model": model, "edited": False}
        pictures.append(replace(old, **fields))
    return replace(state, pictures=tuple(pictures), model=model)


def _update(state: State, disk: Disk, id: int, **changes: Any) -> State:
    found = [picture for picture in state.pictures if picture.id == id]
    if not found:
        raise Refused("UnknownIdError")
    fields = {name: changes[name] for name in ("label", "split") if name in changes}
    if fields:
        fields["edited"] = True
    if "payload" in changes:
        old = {} if changes.get("replace_payload") else found[0].payload
        fields["payload"] = {**old, **changes["payload"]}
    new = replace(found[0], **fields)
    return replace(state, pictures=tuple(new if p is found[0] else p for p in state.pictures))


def _delete(state: State, disk: Disk, ids: Sequence[int]) -> State:
    return _without(state, lambda picture: picture.id in ids)


def _delete_one(state: State, disk: Disk, id: int) -> State:
    if id not in {picture.id for picture in state.pictures}:
        raise Refused("UnknownIdError")
    return _without(state, lambda picture: picture.id == id)


def _delete_where(state: State, disk: Disk, label: str) -> State:
    return _without(state, lambda picture: picture.label == label)


def _without(state: State, gone: Callable[[Picture], bool]) -> State:
    deleted = tuple(picture for picture in state.pictures if gone(picture))
    return replace(
        state,
        pictures=tuple(picture for picture in state.pictures if picture not in deleted),
        trash=state.trash + deleted,
        tombstones=state.tombstones | {p.source for p in deleted if not p.added},
    )


def _undelete(state: State, disk: Disk, ids: Sequence[int]) -> State:
    wanted = [picture for picture in state.trash if picture.id in ids]
    if len(wanted) < len(set(ids)):
        raise Refused("UnknownIdError")
    taken = {picture.source for picture in state.pictures}
    back: dict[str, Picture] = {}
    for picture in sorted(wanted, key=lambda picture: picture.id or 0):
        if picture.source not in taken:
            back[picture.source] = picture  # the newest of one source
    if ids and not back:
        raise Refused("RestoreConflictError")
    found = tuple(back.values())
    return replace(
        state,
        pictures=state.pictures + found,
        trash=tuple(picture for picture in state.trash if picture not in found),
        tombstones=state.tombstones - back.keys(),
    )


def _purge(state: State, disk: Disk, ids: Sequence[int] | None = None) -> State:
    kept = () if ids is None else tuple(p for p in state.trash if p.id not in ids)
    return replace(state, trash=kept)


def _embedded(state: State, disk: Disk, model: str | None = None) -> State:
    """Pictures that ``model`` has not embedded, with it, unless their bytes cannot be read."""
    model = model or state.model or FIRST
    pictures = []
    for picture in state.pictures:
        if picture.model != model and disk.readable(picture):
            colour, _ = disk.files.get(picture.source, (picture.colour, None))
            picture = replace(picture, model=model, colour=colour)
        pictures.append(picture)
    return replace(state, pictures=tuple(pictures))


def _rebuild(state: State, disk: Disk, reembed: bool = False) -> State:
    """Ids go with what a file shows; see `search_api.service.following.comparison`."""
    state = replace(state, pictures=_followed(state, disk))
    model = state.model or FIRST
    known = _embedded(state, disk).by_source()
    pictures = [picture for picture in known.values() if picture.added]
    pictures += [picture for picture in _embedded(state, disk).pictures if picture.source == ADDED]
    for source, (colour, label) in sorted(disk.files.items()):
        if source in state.tombstones:
            continue
        split = "test" if source.startswith("test/") else None
        old = known.get(source)
        if old is None:
            pictures.append(Picture(None, source, colour, model, label, split))
            continue
        if reembed or old.model != model or old.content != colour:
            old = replace(old, colour=colour, model=model, content=colour)
        pictures.append(old if old.edited else replace(old, label=label, split=split))
    return replace(state, pictures=tuple(pictures), model=model, corpus=True)


def _followed(state: State, disk: Disk) -> tuple[Picture, ...]:
    """The pictures where their files are now; those whose place others have taken are gone."""
    files = {s: found[0] for s, found in sorted(disk.files.items()) if s not in state.tombstones}
    stored = {picture.source: picture for picture in state.pictures if not picture.added}
    displaced = sorted(
        (p for p in stored.values() if files.get(p.source) != p.content), key=lambda p: p.id or 0
    )
    replaced = [source for source in files if source in stored and stored[source] in displaced]
    free = replaced + [source for source in files if source not in stored]
    moved: dict[int | None, str] = {}
    for same_name in (True, False):
        for source in free:
            for picture in displaced:
                alike = not same_name or source.split("/")[-1] == picture.source.split("/")[-1]
                fits = picture.content == files[source] and picture.id not in moved
                if alike and fits and source not in moved.values():
                    moved[picture.id] = source
                    break
    return tuple(
        replace(picture, source=moved.get(picture.id, picture.source))
        for picture in state.pictures
        if picture.added or picture.id in moved or picture.source not in moved.values()
    )


def _compact(state: State, disk: Disk, kind: str | None = None) -> State:
    return _embedded(state, disk)


def _embed(state: State, disk: Disk, model: str) -> State:
    return _embedded(state, disk) if model == state.model else state


def _switch(state: State, disk: Disk, model: str) -> State:
    new = _embedded(state, disk, model)
    if state.pictures and all(picture.model != model for picture in new.pictures):
        raise Refused("IndexInputError")
    return replace(new, model=model)


def _snapshot(state: State, disk: Disk, name: str) -> State:
    if name in state.snapshots:
        raise Refused("SnapshotExistsError")
    kept = replace(state, snapshots={}, trash=())
    return replace(state, snapshots={**state.snapshots, name: kept})


def _restore(state: State, disk: Disk, name: str) -> State:
    kept = state.snapshots.get(name)
    if kept is None:
        raise Refused("UnknownSnapshotError")
    if name in disk.broken:
        raise Refused("SnapshotCorruptError")
    if (kept.model, kept.corpus) != (state.model, state.corpus):
        raise Refused("SnapshotModelError")
    back = {picture.id for picture in kept.pictures}
    gone = tuple(picture for picture in state.pictures if picture.id not in back)
    trash = gone + tuple(picture for picture in state.trash if picture.id not in back)
    return replace(kept, snapshots=state.snapshots, trash=trash)


def _remove(state: State, disk: Disk, name: str) -> State:
    if name not in state.snapshots:
        raise Refused("UnknownSnapshotError")
    rest = {other: kept for other, kept in state.snapshots.items() if other != name}
    return replace(state, snapshots=rest)


_EFFECTS: dict[str, Callable[..., State]] = {
    "add": _add,
    "update": _update,
    "delete": _delete,
    "delete_one": _delete_one,
    "delete_where": _delete_where,
    "undelete": _undelete,
    "purge": _purge,
    "rebuild": _rebuild,
    "compact": _compact,
    "embed": _embed,
    "switch": _switch,
    "snapshot": _snapshot,
    "restore": _restore,
    "remove": _remove,
}
