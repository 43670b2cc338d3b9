"""What the sub-folders of a folder of pictures mean: splits or classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "training": "train",
    "testing": "test",
}
"""Names of top-level folders that can denote a split, and the split that each denotes."""

_NAMED = 5


class LayoutError(ValueError):
    """The sub-folders can be read in two ways; the message names both, and what decides."""


def are_splits(places: Iterable[Sequence[str]]) -> bool:
    """Whether the top-level folders are splits, such as ``train`` and ``test``.

    They are if each is named like a split and holds class folders. They are not if none is named
    like one, or none of those that are holds folders and there are others: then ``train`` is a
    class like ``bus`` and ``car``. A single folder that holds nothing but splits can be around
    them, as ZIP files often have it, or be the class of all pictures.

    Args:
        places: of each picture, the names of the folders that it is in, from the top.

    Raises:
        LayoutError: neither is certain.
    """
    places = [place for place in places if place]
    _check_outer(places)
    direct: set[str] = set()
    classes: dict[str, set[str]] = {}
    for place in places:
        if len(place) > 1:
            classes.setdefault(place[0], set()).add(place[1])
        else:
            direct.add(place[0])
    every = direct | classes.keys()
    named = {name for name in every if name.lower() in SPLITS}
    others = every - named
    holding = named & classes.keys()
    if not named or (others and not holding):
        return False
    if not others and holding == named:
        return True
    of = "of pictures without a class"
    if found := set().union(*(classes[name] for name in holding)):
        of = f"with the class{'' if len(found) == 1 else 'es'} {_listed(found)}"
    like = f", like {_listed(others)}" if others else ""
    one = len(named) == 1
    raise LayoutError(
        f"{_listed(named)} can be {'a split' if one else 'splits'} {of}, or"
        f" {'a class' if one else 'classes'}{like}; choose with --splits yes (or"
        " LOOKALIKE_SPLITS=yes) or --splits no"
    )


def _check_outer(places: Sequence[Sequence[str]]) -> None:
    """Raise LayoutError if all is in one folder, or one in another, that holds only splits."""
    top: list[str] = []
    while len({place[0] for place in places}) == 1 and places[0][0].lower() not in SPLITS:
        top.append(places[0][0])
        places = [place[1:] for place in places if len(place) > 1]
    named = {place[0] for place in places}
    holding = {place[0] for place in places if len(place) > 1}
    if top and named and named == holding and all(name.lower() in SPLITS for name in named):
        splits = f"the split{'' if len(named) == 1 else 's'} {_listed(named)}"
        raise LayoutError(
            f"{top[0]} can be the class of all pictures, or just a folder around {splits}; name"
            f" {'/'.join(top)} itself for the second, or choose with --splits no (or"
            " LOOKALIKE_SPLITS=no) for the first"
        )


def split_and_class(place: Sequence[str], splits: bool) -> tuple[str | None, str | None]:
    """The split and the class of a picture in these folders; None for either that it has not."""
    split = SPLITS.get(place[0].lower()) if splits and place else None
    classes = place[1:2] if split else place[:1]
    return split, classes[0] if classes else None


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:_NAMED]
    more = len(names) - len(shown)
    if more:
        return f"{', '.join(shown)} and {more:,} more"
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last
