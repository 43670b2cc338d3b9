"""What a generation says about itself: ``manifest.json``, with a checksum of its own."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
_FILE_NAME = re.compile(r"[a-z0-9_]+\.[a-z0-9]+")
REBUILD = "the catalogue holds everything, so run `lookalike index build`"


class SnapshotError(Exception):
    """A generation cannot be used; the message names the file and the remedy."""


class SnapshotCorruptError(SnapshotError):
    """A file of a generation is missing or damaged."""


class SnapshotAheadError(SnapshotError):
    """A generation holds writes that the catalogue does not have (any more)."""


class SnapshotFormatError(SnapshotError):
    """A generation is whole, but this version of Lookalike cannot read it."""


@dataclass(frozen=True)
class Manifest:
    """A generation: ``count`` vectors of ``dimension``, made by the model ``model_digest``.

    It holds every write of the catalogue up to ``sequence``. ``parameters`` are those of its
    ``kind``, ``recall`` what was measured when it was built: the mean share ``value`` of the
    ``k`` nearest that a search finds, over so many held-out ``queries``; None for an exact one.
    ``created`` is ISO 8601 in UTC; ``files`` gives each file's SHA-256 in hexadecimal digits.
    """

    format_version: int
    generation: int
    count: int
    dimension: int
    metric: str
    kind: str
    model_digest: str
    sequence: int
    parameters: Mapping[str, Any]
    recall: Mapping[str, float] | None
    created: str
    files: Mapping[str, str]


def to_json(manifest: Manifest) -> str:
    """The manifest as JSON text, with ``checksum`` over its other fields."""
    content = asdict(manifest)
    return json.dumps({**content, "checksum": checksum_of(content)}, indent=2) + "\n"


def from_json(text: str, path: Path, generation: int) -> Manifest:
    """Read what `to_json` wrote for this generation; ``path`` is for the messages.

    Raises SnapshotFormatError for a newer format, SnapshotCorruptError for anything else that
    is not as it was written.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SnapshotCorruptError(f"{path}: is not JSON ({error}); {REBUILD}") from error
    if not isinstance(content, dict):
        raise SnapshotCorruptError(f"{path}: is not a JSON object; {REBUILD}")
    expected = content.pop("checksum", None)
    found = checksum_of(content)
    if found != expected:
        raise SnapshotCorruptError(
            f"{path}: has SHA-256 {found} over its fields; it says {expected}; {REBUILD}"
        )
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise SnapshotFormatError(
            f"{path}: has format version {version}, and this Lookalike reads {FORMAT_VERSION}; "
            f"use the Lookalike that wrote it, or rebuild: {REBUILD}"
        )
    names = {field.name for field in fields(Manifest)}
    if set(content) != names or content["generation"] != generation:
        raise SnapshotCorruptError(
            f"{path}: describes generation {content.get('generation')} with the fields "
            f"{sorted(content)}; expected generation {generation} with {sorted(names)}; {REBUILD}"
        )
    if content["metric"] != "cosine" or not all(map(_FILE_NAME.fullmatch, content["files"])):
        raise SnapshotFormatError(
            f"{path}: has metric {content['metric']!r} and files {sorted(content['files'])}; "
            f"expected 'cosine' and plain file names; {REBUILD}"
        )
    return Manifest(**content)


def checksum_of(content: Mapping[str, Any]) -> str:
    """SHA-256 over the fields as JSON with sorted keys, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
