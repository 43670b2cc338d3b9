"""What a generation says about itself: ``manifest.json``, with a checksum of its own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
INDEX_FILE = "index.faiss"
MANIFEST_FILE = "manifest.json"
REBUILD = "the catalogue holds everything, so run `lookalike index build`"


class SnapshotError(Exception):
    """A generation cannot be used; the message names the file and the remedy."""


class SnapshotCorruptError(SnapshotError):
    """A file of a generation is missing or damaged."""


class SnapshotFormatError(SnapshotError):
    """A generation is whole, but this version of Lookalike cannot read it."""


@dataclass(frozen=True)
class Manifest:
    """A generation: ``count`` vectors of ``dimension``, made by the model ``model_digest``.

    ``created`` is ISO 8601 in UTC; ``files`` gives each file's SHA-256 in hexadecimal digits.
    """

    format_version: int
    generation: int
    count: int
    dimension: int
    metric: str
    kind: str
    model_digest: str
    created: str
    files: Mapping[str, str]


def to_json(manifest: Manifest) -> str:
    """The manifest as JSON text, with ``checksum`` over its other fields."""
    content = asdict(manifest)
    return json.dumps({**content, "checksum": _checksum(content)}, indent=2) + "\n"


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
    found = _checksum(content)
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
    if content["metric"] != "cosine" or set(content["files"]) != {INDEX_FILE}:
        raise SnapshotFormatError(
            f"{path}: has metric {content['metric']!r} and files {sorted(content['files'])}; "
            f"expected 'cosine' and {INDEX_FILE!r}; {REBUILD}"
        )
    return Manifest(**content)


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
