"""Labels that look alike are one label: they are stored in Unicode NFC."""

from __future__ import annotations

from index.conditions import Filter, Match
from index.contract import Catalogue
from index.payload import nfc


def compose_labels(catalogue: Catalogue) -> int:
    """Store the labels that an earlier version left in another form in NFC; return how many.

    What is stored now has that form already.
    """
    changed = 0
    for label in catalogue.label_counts():
        if (composed := nfc(label)) != label:
            entries = catalogue.find(catalogue.ids(Filter((Match("label", (label,)),))))
            ids = [entry.id for entry in entries]
            changed += catalogue.update(ids, label=composed, expected=entries)
    return changed
