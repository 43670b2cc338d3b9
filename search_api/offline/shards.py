"""Embedding a corpus on many machines: each writes a shard, and one machine imports them all.

A shard is a folder of parts. Each part is one batch with its checksum in the file name, so an
interrupted shard continues where it stopped, and any scheduler can run the shards in any order.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, Item
from embed.encoder import PictureEncoder
from index.contract import Catalogue, Progress, no_progress
from index.files import fsync_folder, write_atomically
from index.records import Record
from search_api.service.corpus_sync import BATCH, Reading, batches, item_reader, payload_of

_PART = re.compile(r"part-([0-9]{6})-([0-9a-f]{64})\.npz")
_ABOUT = "shard.json"


class ShardError(ValueError):
    """A shard is damaged, incomplete, or of another model or corpus."""


@dataclass(frozen=True)
class Shard:
    """Every ``of``-th picture of the corpus, starting with the ``number``-th, 1..``of``."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= 100_000:
            raise ShardError(
                f"shard is {self.number}/{self.of}; expected a number from 1 to the number of"
                " shards, for example 3/8"
            )

    @staticmethod
    def parse(text: str) -> Shard:
        """Parse text such as ``3/8``. Raises ShardError."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise ShardError(
                f"shard is {text!r}; expected its number and the number of shards, for example 3/8"
            )
        return Shard(int(number), int(of))

    def folder(self, root: Path) -> Path:
        """The shard's folder under ``root``."""
        return root / f"shard-{self.number:05d}-of-{self.of:05d}"


def embed_shard(
    encoder: PictureEncoder,
    corpus: Corpus,
    shard: Shard,
    root: Path,
    progress: Progress = no_progress,
) -> dict[str, str]:
    """Embed the shard's pictures into files under ``root``.

    Returns:
        The reason for each source that cannot be read.

    Raises:
        ShardError: the folder holds a shard of another model or corpus.
    """
    items = corpus.items[shard.number - 1 :: shard.of]
    folder = shard.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    names = hashlib.sha256("\n".join(item.source for item in items).encode()).hexdigest()
    parts = -(-len(items) // BATCH)
    about = {"model": encoder.digest, "corpus": corpus.name, "items": names, "parts": parts}
    path = folder / _ABOUT
    if path.exists():
        _check_about(path, about)
    else:
        text = json.dumps(about, indent=1) + "\n"
        write_atomically(path, lambda temporary: _write(temporary, text.encode()))
        fsync_folder(root)
    done = {int(match[1]) for match in map(_PART.fullmatch, _names(folder)) if match}
    missing = [n for n in range(parts) if n not in done]
    skipped: dict[str, str] = {}

    finished = len(items) - sum(len(items[n * BATCH : (n + 1) * BATCH]) for n in missing)
    progress("embedding", finished, len(items))
    wanted = (item for n in missing for item in items[n * BATCH : (n + 1) * BATCH])
    # Only the last part is shorter, so each batch is exactly one part.
    for n, batch in zip(missing, batches(wanted, item_reader(corpus, encoder)), strict=True):
        good = [(item, found) for item, found in batch if not isinstance(found, str)]
        skipped |= {item.source: why for item, why in batch if isinstance(why, str)}
        _write_part(folder, n, encoder, good)
        finished += len(batch)
        progress("embedding", finished, len(items))
    return skipped


def import_shards(
    catalogue: Catalogue,
    folders: Sequence[Path],
    model_digest: str,
    corpus: str,
    progress: Progress = no_progress,
) -> int:
    """Record the embeddings of these shards in the catalogue, after checking every file.

    Pictures deleted by hand stay deleted. Importing the same shards again changes nothing.

    Returns:
        How many embeddings were recorded.

    Raises:
        ShardError: a shard is damaged, incomplete, or of another model or corpus.
    """
    parts = [part for folder in folders for part in _checked(folder, model_digest, corpus)]
    tombstones = catalogue.tombstones()
    stored = catalogue.all_sources("corpus")
    known = catalogue.known_sources(model_digest)
    imported = 0
    for number, part in enumerate(parts):
        progress("importing", number, len(parts))
        records, embeddings = _read_part(part)
        rows = [i for i, r in enumerate(records) if r.source not in tombstones]
        new = [i for i in rows if records[i].source not in stored]
        old = [i for i in rows if records[i].source in stored and records[i].source not in known]
        if new:
            added = [records[i] for i in new]
            catalogue.upsert(added, embeddings[new], model_digest, only_new=True)
        if old:
            ids = [stored[records[i].source] for i in old]
            hashes = [records[i].content_hash for i in old]
            catalogue.embed(ids, embeddings[old], model_digest, hashes)
        imported += len(new) + len(old)
    progress("importing", len(parts), len(parts))
    return imported


def shard_folders(root: Path) -> list[Path]:
    """The folders of all shards under ``root``. Raises ShardError if any is missing."""
    folders = sorted(root.glob("shard-*-of-*")) if root.is_dir() else []
    if not folders:
        raise ShardError(f"no shards in {root}; create them with `lookalike index embed`")
    of = int(folders[0].name.rpartition("-")[2])
    expected = [Shard(n, of).folder(root) for n in range(1, of + 1)]
    missing = [path.name for path in expected if path not in folders]
    extra = [path.name for path in folders if path not in expected]
    if extra:
        raise ShardError(
            f"{root} holds shards of different divisions, such as {folders[0].name} and {extra[0]};"
            " keep those of one"
        )
    if missing:
        raise ShardError(
            f"{root} has {len(folders)} of {of} shards; create the missing ones"
            f" ({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}) with"
            " `lookalike index embed`"
        )
    return folders


def _checked(folder: Path, model_digest: str, corpus: str) -> Iterator[Path]:
    about = _check_about(folder / _ABOUT, {"model": model_digest, "corpus": corpus})
    found = {int(m[1]): (folder / m[0], m[2]) for m in map(_PART.fullmatch, _names(folder)) if m}
    for n in range(int(str(about["parts"]))):
        if n not in found:
            raise ShardError(f"{folder} lacks part {n} of {about['parts']}; embed this shard again")
        path, expected = found[n]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != expected:
            raise ShardError(f"{path} is damaged; delete it and embed its shard again")
        yield path


def _agree(name: str, found: object, expected: object) -> bool:
    if found == expected or name != "corpus":
        return found == expected
    # An earlier version kept the path as it was typed.
    return Path(str(found)).resolve() == Path(str(expected)).resolve()


def _check_about(path: Path, expected: dict[str, object]) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
        different = [name for name in expected if not _agree(name, found[name], expected[name])]
        int(found["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"{path} cannot be read ({error}); delete its shard and embed it again"
        ) from error
    if different:
        name = different[0]
        raise ShardError(
            f"{path.parent} was created with {name} {found[name]!r}, expected {expected[name]!r};"
            " use another folder"
        )
    return dict(found)


def _write_part(
    folder: Path, n: int, encoder: PictureEncoder, good: Sequence[tuple[Item, Reading]]
) -> None:
    embeddings: NDArray[np.float32] = np.empty((0, encoder.dimension), np.float32)
    if good:
        embeddings = encoder.encode([found.picture for _, found in good]).embeddings
    about = [
        [i.source, i.split, i.label, found.content, payload_of(i, found.facts)] for i, found in good
    ]
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
    np.savez(buffer, records=text, embeddings=embeddings)
    data = buffer.getvalue()
    name = f"part-{n:06d}-{hashlib.sha256(data).hexdigest()}.npz"
    write_atomically(folder / name, lambda temporary: _write(temporary, data))


def _read_part(path: Path) -> tuple[list[Record], NDArray[np.float32]]:
    # Without pickles, an untrusted shard cannot run code.
    with np.load(path, allow_pickle=False) as part:
        about = json.loads(part["records"].tobytes())
        embeddings: NDArray[np.float32] = part["embeddings"]
    # Older shards have no payloads.
    fields = [(*row, {})[:5] for row in about]
    records = [Record(s, split, label, more, hash_) for s, split, label, hash_, more in fields]
    return records, embeddings


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
