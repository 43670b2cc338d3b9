"""How a folder of pictures is read; quick to import, because settings hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal


@dataclass(frozen=True)
class FolderOptions:
    """How a folder or table of pictures is read; a store keeps those that it was built with.

    Attributes:
        splits: whether top-level folders such as ``train`` and ``test`` are splits: ``auto`` finds
            out from the layout.
        follow_links: follow links to files and folders, also out of the folder.
        hidden: take hidden files and folders, too.
        program_folders: take the folders of other programs, such as ``@eaDir``, too.
        table_payload: keep the further columns of a table as payload.
        gps_place: keep where a photograph was taken, not only whether that is known.
        given: which of them somebody chose; the others are defaults, for which `over` has those of
            a store instead.
    """

    splits: Literal["auto", "yes", "no"] = "auto"
    follow_links: bool = False
    hidden: bool = False
    program_folders: bool = False
    table_payload: bool = False
    gps_place: bool = False
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @staticmethod
    def chosen(**values: Any) -> FolderOptions:
        """Options of which some are chosen; a value of None is no choice."""
        made = {name: value for name, value in values.items() if value is not None}
        return FolderOptions(**made, given=frozenset(made))

    def over(self, stored: FolderOptions) -> FolderOptions:
        """``stored`` with what was chosen here."""
        return replace(stored, **{name: getattr(self, name) for name in self.given})

    def to_dict(self) -> dict[str, Any]:
        """All of them as JSON values, without ``given``; see `from_dict`."""
        values = asdict(self)
        del values["given"]
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FolderOptions:
        """The options that `to_dict` wrote, here or in another version: names are optional."""
        known = {one.name for one in fields(FolderOptions)} - {"given"}
        return FolderOptions(**{name: value for name, value in values.items() if name in known})
