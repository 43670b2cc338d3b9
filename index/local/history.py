"""Which history a catalogue and a generation belong to.

Sequence numbers alone do not say that: a catalogue that is put back from an older copy assigns the
same numbers again, to other writes. So each history has an epoch, a random word. A catalogue takes
a new one whenever it may not continue the history that others know: it was put back or copied, or
something on disk is ahead of it. It remembers its earlier epochs, each with the last write that it
shares with it, so that a generation made before that stays valid.
"""

import json
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from index.contract import CatalogueError

EPOCH, EARLIER = "epoch", "earlier_epochs"
_KEPT = 64


class Moment(NamedTuple):
    """The state of a catalogue after the write ``sequence`` of the history ``epoch``.

    ``epoch`` is empty if it is not known, as before there were epochs.
    """

    epoch: str
    sequence: int


@dataclass(frozen=True)
class History:
    """What a catalogue has been through: ``earlier`` gives the last shared write of each epoch."""

    now: Moment
    earlier: Mapping[str, int] = field(default_factory=dict)

    def holds(self, moment: Moment) -> bool:
        """Whether the catalogue was in this state."""
        if moment.epoch == self.now.epoch:
            return moment.sequence <= self.now.sequence
        return moment.sequence <= self.earlier.get(moment.epoch, -1)

    def ahead(self, moment: Moment) -> bool:
        """Whether this state is the future of a catalogue that has lost it."""
        return moment.epoch == self.now.epoch and moment.sequence > self.now.sequence


def read_moment(connection: sqlite3.Connection) -> Moment:
    """The catalogue's present state; takes some microseconds. Raises CatalogueError if damaged."""
    epoch, sequence = connection.execute(
        "SELECT (SELECT value FROM meta WHERE key = 'epoch'), "
        "(SELECT value FROM meta WHERE key = 'sequence')"
    ).fetchone()
    if sequence is None or not sequence.isdecimal():
        raise CatalogueError(
            "the catalogue has lost its sequence number; restore a snapshot or a backup"
        )
    return Moment(epoch or "", int(sequence))


def read_history(connection: sqlite3.Connection) -> History:
    """The catalogue's history, inside the caller's transaction."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (EARLIER,)).fetchone()
    return History(read_moment(connection), {} if row is None else json.loads(row[0]))


def begin_epoch(connection: sqlite3.Connection) -> None:
    """Begin a new epoch, inside the caller's transaction."""
    history = read_history(connection)
    earlier = dict(history.earlier)
    if history.now.epoch:
        earlier[history.now.epoch] = history.now.sequence
    kept = dict(list(earlier.items())[-_KEPT:])
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (EPOCH, secrets.token_hex(16)))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (EARLIER, json.dumps(kept)))
