"""From pictures into the catalogue: embed what is new, leave what is known."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, CorpusError, Item
from embed.encoder import PictureEncoder
from embed.pictures import RGB, PictureError
from index.blobs import BlobError
from index.catalogue import Entry, Record
from index.payload import Payload
from index.stores import RecordOfAll

BATCH = 500
"""Pictures embedded, and acknowledged by the catalogue, at a time."""

_TAGGED = "corpus_tags"
_READERS = min(4, os.cpu_count() or 1)
_BATCHES_AHEAD = 2
_CHUNK = 25
"""Pictures that a thread reads in one go: handing over each by itself costs as much as reading."""

Progress = Callable[[str, int, int], None]
"""Told of (stage, done, total)."""
Skip = Callable[[Mapping[str, str]], None]
"""Told of pictures that are left out: source and reason."""
Thing = TypeVar("Thing")


class CancelledError(RuntimeError):
    """The caller asked to stop."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def no_skip(reasons: Mapping[str, str]) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Counts:
    """What an ingest did, in pictures; ``skipped`` gives the reason for each unreadable source."""

    total: int
    embedded: int
    kept: int
    removed: int
    skipped: dict[str, str] = field(default_factory=dict)


def ingest(
    encoder: PictureEncoder,
    corpus: Corpus,
    catalogue: RecordOfAll,
    progress: Progress,
    reembed: bool,
    cancelled: Callable[[], bool],
    skip: Skip = no_skip,
) -> Counts:
    """Bring the catalogue up to date with the corpus: what is new, what is gone, what moved.

    Pictures that were added by hand are left alone, those deleted by hand stay deleted, and a
    label or split set by hand stays as it is.

    Args:
        encoder: makes the embeddings, of the model that the catalogue holds.
        corpus: where the pictures are.
        catalogue: where they are recorded; each batch is durable before the next begins.
        progress: told after each batch.
        reembed: embed also what is known.
        cancelled: asked before each batch.
        skip: told of what is left out, as it is met.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    forgotten = catalogue.forgotten_sources()
    foreign = catalogue.all_sources("added")
    items = [item for item in corpus.items if item.source not in forgotten]
    skipped = {
        item.source: "a picture that was added has this name"
        for item in items
        if item.source in foreign
    }
    skip(skipped)
    known = {} if reembed else catalogue.known_sources(encoder.digest)
    stored = catalogue.all_sources("corpus")
    _relabel(catalogue, items)
    missing = [i for i in items if i.source not in known and i.source not in skipped]
    embedded = 0
    progress("embedding", 0, len(missing))

    def read(item: Item) -> RGB | str:
        try:
            return corpus.read(item.source, at_least=encoder.input_size)
        except (PictureError, CorpusError) as error:
            return str(error)

    done = 0
    for batch in batches(missing, read):
        done += len(batch)
        if cancelled():
            raise CancelledError(
                f"stopped after {embedded:,} of {len(missing):,} pictures; the next build goes on"
                " from there"
            )
        good = [(item, picture) for item, picture in batch if not isinstance(picture, str)]
        bad = {item.source: why for item, why in batch if isinstance(why, str)}
        skipped |= bad
        skip(bad)
        if good:
            _, embeddings = encoder.encode([picture for _, picture in good])
            _record(catalogue, good, embeddings, encoder.digest, stored)
            embedded += len(good)
        progress("embedding", done, len(missing))
    present = {item.source for item in items} - skipped.keys()
    gone = sorted(id_ for source, id_ in stored.items() if source not in present)
    return Counts(
        total=len(present),
        embedded=embedded,
        kept=len(items) - len(missing),
        removed=catalogue.delete(gone),
        skipped=skipped,
    )


def stage(
    encoder: PictureEncoder,
    catalogue: RecordOfAll,
    read: Callable[[Entry, int], RGB],
    progress: Progress,
    cancelled: Callable[[], bool],
    skip: Skip = no_skip,
) -> Counts:
    """Embed what is stored and the model has not embedded yet.

    Beside the present embeddings, where another model is in use; in their place, where this one is,
    for what was added in the moment of going over to it. Goes on where an earlier call stopped, and
    again until nothing that was added meanwhile is missing. ``read`` gives an entry's picture, its
    shorter side at least so many pixels.

    Raises:
        CancelledError: ``cancelled`` said so; what was embedded stays staged.
    """
    skipped: dict[str, str] = {}
    unreadable: set[int] = set()
    embedded = 0
    in_use = catalogue.model() == encoder.digest

    def read_entry(entry: Entry) -> RGB | str:
        try:
            return read(entry, encoder.input_size)
        except (PictureError, CorpusError, BlobError) as error:
            return str(error)

    while True:
        missing = [i for i in catalogue.staging.missing(encoder.digest) if i not in unreadable]
        if not missing:
            break
        total = embedded + len(missing)
        progress("embedding", embedded, total)
        entries = (
            entry
            for start in range(0, len(missing), BATCH)
            for entry in catalogue.find(missing[start : start + BATCH])
        )
        for pairs in batches(entries, read_entry):
            if cancelled():
                raise CancelledError(
                    f"stopped after {embedded:,} of {total:,} pictures; the next attempt goes on"
                    " from there"
                )
            good = [(entry, picture) for entry, picture in pairs if not isinstance(picture, str)]
            bad = {entry.source: why for entry, why in pairs if isinstance(why, str)}
            unreadable |= {entry.id for entry, _ in pairs if entry.source in bad}
            skipped |= bad
            skip(bad)
            if good:
                _, embeddings = encoder.encode([picture for _, picture in good])
                ids = [entry.id for entry, _ in good]
                if in_use:
                    hashes = [entry.content_hash for entry, _ in good]
                    catalogue.embed(ids, embeddings, encoder.digest, hashes)
                else:
                    catalogue.staging.add(ids, embeddings, encoder.digest)
                embedded += len(good)
            progress("embedding", embedded, total)
    total = catalogue.count()
    return Counts(total, embedded, total - embedded - len(unreadable), 0, skipped)


def pixels_hash(picture: RGB) -> str:
    """What names a corpus picture's content: ``pixels:`` and a SHA-256 of size and values."""
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    return f"pixels:{digest.hexdigest()}"


def batches(
    things: Iterable[Thing], read: Callable[[Thing], RGB | str]
) -> Iterator[list[tuple[Thing, RGB | str]]]:
    """Batches of pictures, or why one cannot be read.

    Files are read and decoded by a few threads while the batch before is embedded, and only a few
    batches ahead, so that memory stays flat however large the corpus.
    """
    remaining = iter(things)
    ahead: deque[tuple[list[Thing], list[Future[list[RGB | str]]]]] = deque()

    def read_some(some: Sequence[Thing]) -> list[RGB | str]:
        return [read(thing) for thing in some]

    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        while True:
            while len(ahead) < _BATCHES_AHEAD and (batch := list(islice(remaining, BATCH))):
                chunks = [batch[start : start + _CHUNK] for start in range(0, len(batch), _CHUNK)]
                ahead.append((batch, [pool.submit(read_some, chunk) for chunk in chunks]))
            if not ahead:
                return
            batch, futures = ahead.popleft()
            pictures = [picture for future in futures for picture in future.result()]
            yield list(zip(batch, pictures, strict=True))


def _record(
    catalogue: RecordOfAll,
    good: Sequence[tuple[Item, RGB]],
    embeddings: NDArray[np.float32],
    digest: str,
    stored: dict[str, int],
) -> None:
    """Store new pictures; give those that are stored a new embedding, and leave their fields."""
    hashes = [pixels_hash(picture) for _, picture in good]
    new = [row for row, (item, _) in enumerate(good) if item.source not in stored]
    old = [row for row, (item, _) in enumerate(good) if item.source in stored]
    if new:
        items = [good[row][0] for row in new]
        records = [
            Record(item.source, item.split, item.label, payload_of(item), hashes[row])
            for row, item in zip(new, items, strict=True)
        ]
        ids = catalogue.upsert(records, embeddings[new], digest)
        stored |= {item.source: id_ for item, id_ in zip(items, ids, strict=True)}
    if old:
        ids = [stored[good[row][0].source] for row in old]
        same = catalogue.unchanged(ids, embeddings[old], digest, [hashes[row] for row in old])
        # What is as it was is not written: every server would have to follow it as a change.
        left = [n for n in range(len(old)) if not same[n]]
        if left:
            rows = [old[n] for n in left]
            catalogue.embed(
                [ids[n] for n in left], embeddings[rows], digest, [hashes[row] for row in rows]
            )


def payload_of(item: Item) -> Payload:
    """What is stored with a new picture of the corpus beside label and split."""
    return {"tags": list(item.tags)} if item.tags else {}


def _relabel(catalogue: RecordOfAll, items: Sequence[Item]) -> None:
    """Follow pictures whose label or split changed since they were recorded.

    A store made before the corpus had tags gets them, once: from then on they belong to whoever
    changes a payload.
    """
    wanted = {item.source: item for item in items}
    tagged = catalogue.get_meta(_TAGGED) is not None
    changed: dict[tuple[str | None, str | None], list[int]] = {}
    tags: dict[tuple[str, ...], list[int]] = {}
    for entry in _entries(catalogue):
        item = wanted.get(entry.source)
        if item is None or entry.origin != "corpus":
            continue
        if not entry.edited and (item.split, item.label) != (entry.split, entry.label):
            changed.setdefault((item.split, item.label), []).append(entry.id)
        if not tagged and item.tags and "tags" not in entry.payload:
            tags.setdefault(item.tags, []).append(entry.id)
    for (split, label), ids in changed.items():
        catalogue.update(ids, split=split, label=label)
    for words, ids in tags.items():
        catalogue.update(ids, payload={"tags": list(words)})
    if not tagged and any(item.tags for item in items):
        catalogue.set_meta(_TAGGED, "yes")


def _entries(catalogue: RecordOfAll) -> Iterator[Entry]:
    after = -1
    while page := catalogue.page(after, 5000):
        yield from page
        after = page[-1].id
