"""The ``manifest.json`` of a generation, and the checksum over its fields."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from index.contract import (
    MANIFEST_VERSION,
    GenerationCorruptError,
    GenerationFormatError,
    Manifest,
)

MANIFEST_FILE = "manifest.json"
_FILE_NAME = re.compile(r"[a-z0-9_]+\.[a-z0-9]+")
REBUILD = "the catalogue holds everything, so run `lookalike index build`"


def to_json(manifest: Manifest) -> str:
    """The manifest as JSON text, with a ``checksum``."""
    return with_checksum(asdict(manifest))


def with_checksum(content: Mapping[str, Any]) -> str:
    """The fields as JSON text, with a ``checksum`` over them."""
    return json.dumps({**content, "checksum": checksum_of(content)}, indent=2) + "\n"


def from_json(text: str, path: Path, generation: int) -> Manifest:
    """Parse what `to_json` wrote for this generation; ``path`` is for messages.

    Raises GenerationFormatError for another format, GenerationCorruptError for any damage.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GenerationCorruptError(f"{path}: is not JSON ({error}); {REBUILD}") from error
    if not isinstance(content, dict):
        raise GenerationCorruptError(f"{path}: is not a JSON object; {REBUILD}")
    expected = content.pop("checksum", None)
    found = checksum_of(content)
    if found != expected:
        raise GenerationCorruptError(
            f"{path}: has SHA-256 {found} over its fields; it says {expected}; {REBUILD}"
        )
    version = content.get("format_version")
    if version != MANIFEST_VERSION:
        raise GenerationFormatError(
            f"{path}: has format version {version}, and this Lookalike reads {MANIFEST_VERSION}; "
            f"use the Lookalike that wrote it, or rebuild: {REBUILD}"
        )
    content.setdefault("epoch", "")  # older ones have none
    names = {field.name for field in fields(Manifest)}
    if set(content) != names or content["generation"] != generation or not _typed(content):
        raise GenerationCorruptError(
            f"{path}: describes generation {content.get('generation')} with the fields "
            f"{sorted(content)}; expected generation {generation} with {sorted(names)}; {REBUILD}"
        )
    if content["metric"] != "cosine" or not all(map(_FILE_NAME.fullmatch, content["files"])):
        raise GenerationFormatError(
            f"{path}: has metric {content['metric']!r} and files {sorted(content['files'])}; "
            f"expected 'cosine' and plain file names; {REBUILD}"
        )
    return Manifest(**content)


def _typed(content: Mapping[str, Any]) -> bool:
    """Whether the fields have the types of a manifest; the checksum says nothing about that."""
    numbers = (content[name] for name in ("generation", "count", "dimension", "sequence"))
    texts = (content[name] for name in ("kind", "model_digest", "created", "epoch"))
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(text, str) for text in texts)
        and isinstance(content["parameters"], dict)
        and isinstance(content["recall"], dict | None)
        and isinstance(content["files"], dict)
        and all(isinstance(digest, str) for digest in content["files"].values())
    )


def checksum_of(content: Mapping[str, Any]) -> str:
    """SHA-256 over the fields as JSON with sorted keys, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
