"""Camera RAW: what a camera's sensor recorded, in the containers that its maker chose.

Most are TIFFs whose first picture is a thumbnail, so that a TIFF decoder would read that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from embed.decoding.headers import tiff
from embed.decoding.headers.measured import UnreadableError

_MAKE, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 271, 262, 330, 50706
_SENSOR = (32803, 34892)
"""Photometric interpretations: a mosaic of the sensor's colours, or linear values of a sensor."""
_MOST_DIRECTORIES = 16

_SIGNATURES = {
    b"IIRO": "Olympus ORF",
    b"IIRS": "Olympus ORF",
    b"MMOR": "Olympus ORF",
    b"IIU\0": "Panasonic RW2",
    b"FUJIFILMCCD-RAW": "Fujifilm RAF",
    b"II\x1a\0\0\0HEAPCCDR": "Canon CRW",
    b"FOVb": "Sigma X3F",
    b"\0MRM": "Minolta MRW",
}
_MAKERS = {
    "nikon": "Nikon NEF",
    "sony": "Sony ARW",
    "canon": "Canon CR2",
    "pentax": "Pentax PEF",
    "ricoh": "Pentax PEF",
    "samsung": "Samsung SRW",
    "hasselblad": "Hasselblad 3FR",
    "phase one": "Phase One IIQ",
    "leaf": "Leaf MOS",
    "mamiya": "Mamiya MEF",
    "epson": "Epson ERF",
    "kodak": "Kodak DCR",
    "eastman kodak": "Kodak DCR",
    "panasonic": "Panasonic RAW",
    "leica": "Leica RWL",
}


def named(data: bytes) -> str | None:
    """Maker and kind, as ``Canon CR2``; empty if unknown; None if it is no camera RAW file."""
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[4:12] == b"ftypcrx ":
        return "Canon CR3"
    if not data.startswith(tiff.SIGNATURES):
        return None
    # Elsewhere, the pixels may start there.
    if data[8:11] == b"CR\2" and data[4:8] == b"\x10\0\0\0":
        return "Canon CR2"
    if data[8:16] in (b"IIIITwaR", b"MMMMRawT"):
        return "Phase One IIQ"
    try:
        return _tiff(data)
    except (UnreadableError, struct.error, IndexError, OverflowError):
        return None


def _tiff(data: bytes) -> str | None:
    layout = tiff.Layout(data)
    tags = {entry.tag: entry for entry in layout.entries(layout.first)}
    if _DNG_VERSION in tags:
        return "DNG"
    if not any(value in _SENSOR for value in _interpretations(layout)):
        return None
    make = tags[_MAKE].values.split(b"\0")[0].decode("ascii", "replace") if _MAKE in tags else ""
    return next((name for start, name in _MAKERS.items() if make.lower().startswith(start)), "")


def _interpretations(layout: tiff.Layout) -> Iterator[int]:
    """The photometric interpretation of each picture in the file."""
    waiting, seen = [layout.first], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop()
        if at in seen or not 0 < at < len(layout.data) - 2:
            continue
        seen.add(at)
        for entry in layout.entries(at):
            if entry.tag == _PHOTOMETRIC:
                yield from entry.numbers(layout.order)
            elif entry.tag == _SUB_DIRECTORIES:
                waiting += entry.numbers(layout.order)
        waiting.append(layout.following(at))
