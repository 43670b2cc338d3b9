"""Brings the catalogue up to date with a corpus: embeds what is new, leaves what is known."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, CorpusError, Item
from embed.encoder import PictureEncoder
from embed.folders.kinds import Skipped, count_kinds
from embed.pictures import RGB, PictureError, turn
from index.contract import (
    KEEP,
    NO_ID,
    BlobError,
    CancelledError,
    Catalogue,
    Change,
    IndexInputError,
    JobControl,
)
from index.payload import check_bounds, check_record
from index.records import Entry, Payload, PayloadBounds, Record
from search_api.service.following.contents import file_hash, pixels_hash

BATCH = 500
"""Pictures embedded, and recorded durably in the catalogue, at a time."""

UNREADABLE = "unreadable pictures"
"""The kind of a picture that is in the corpus and cannot be read, or whose name is in use."""

_TAGGED = "corpus_tags"
_READERS = min(4, os.cpu_count() or 1)
_BATCHES_AHEAD = 2
_CHUNK = 25
"""Pictures that a thread reads per task; a task for each would cost as much as the reading."""

T = TypeVar("T")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Counts:
    """Pictures by outcome.

    Attributes:
        total: pictures of the corpus that are in the catalogue.
        embedded: pictures embedded now.
        kept: pictures left as they were.
        removed: pictures that are gone.
        skipped: the reason for each source that cannot be used, and each file that is not taken.
        not_taken: what the scan of the corpus found and did not take, by path; part of ``skipped``.
    """

    total: int
    embedded: int
    kept: int
    removed: int
    skipped: dict[str, str] = field(default_factory=dict)
    not_taken: Mapping[str, Skipped] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, int]:
        """How many files were skipped of each kind."""
        unusable = [
            Skipped(UNREADABLE, why)
            for path, why in self.skipped.items()
            if path not in self.not_taken
        ]
        return count_kinds([*unusable, *self.not_taken.values()])


def sync_corpus(
    encoder: PictureEncoder,
    corpus: Corpus,
    catalogue: Catalogue,
    control: JobControl,
    *,
    reembed: bool = False,
) -> Counts:
    """Record the corpus's new pictures, remove those that are gone, and follow label changes.

    Pictures added by hand are left alone, those deleted by hand stay deleted, and a label or split
    set by hand is kept.

    Args:
        encoder: computes the embeddings; its model is the one in use in the catalogue.
        corpus: where the pictures are.
        catalogue: where they are recorded; each batch is durable before the next begins.
        control: receives progress and can cancel.
        reembed: embed known pictures again, too.

    Raises:
        CancelledError: ``control`` cancelled it.
    """
    tombstones = catalogue.tombstones()
    added = catalogue.all_sources("added")
    scan = corpus.scan()
    items = [item for item in scan.items if item.source not in tombstones]
    skipped = {
        item.source: "an added picture has this name" for item in items if item.source in added
    }
    skipped |= {path: one.reason for path, one in scan.skipped.items()}
    control.skip(skipped)
    known = {} if reembed else catalogue.known_sources(encoder.digest)
    stored = catalogue.all_sources("corpus")
    refused = _relabel(catalogue, items)
    control.skip(refused)
    missing = [i for i in items if i.source not in known and i.source not in skipped]
    embedded = 0
    control.progress("embedding", 0, len(missing))

    done = 0
    for batch in batches(missing, item_reader(corpus, encoder)):
        done += len(batch)
        if control.cancelled():
            raise CancelledError(
                f"stopped after {embedded:,} of {len(missing):,} pictures; the next build continues"
                " from there"
            )
        good: list[tuple[Item, Reading]] = []
        bad: dict[str, str] = {}
        for item, found in batch:
            if isinstance(found, str):
                bad[item.source] = found
            elif (why := _unstorable(item, found, catalogue.bounds)) is not None:
                bad[item.source] = why
            else:
                good.append((item, found))
        skipped |= bad
        control.skip(bad)
        if good:
            _, embeddings = encoder.encode([found.picture for _, found in good])
            _record(catalogue, good, embeddings, encoder.digest, stored)
            embedded += len(good)
        control.progress("embedding", done, len(missing))
    present = {item.source for item in items} - skipped.keys()
    gone = sorted(id_ for source, id_ in stored.items() if source not in present)
    return Counts(
        total=len(present),
        embedded=embedded,
        kept=len(items) - len(missing),
        removed=catalogue.delete(gone),
        skipped=skipped | refused,
        not_taken=scan.skipped,
    )


def embed_missing(
    encoder: PictureEncoder,
    catalogue: Catalogue,
    read: Callable[[Entry, int], RGB],
    control: JobControl,
) -> Counts:
    """Embed the stored pictures that this model has not embedded yet.

    If another model is in use, the embeddings are staged. If this one is, they are stored directly:
    they belong to pictures added during the switch to it. Continues where an earlier call stopped,
    and repeats until nothing added meanwhile is missing.

    Args:
        encoder: the model.
        catalogue: holds the entries and receives the embeddings.
        read: returns an entry's picture, with a shorter side of at least the given pixels.
        control: receives progress and can cancel.

    Raises:
        CancelledError: ``control`` cancelled it; finished embeddings are kept.
    """
    skipped: dict[str, str] = {}
    unreadable: set[int] = set()
    embedded = 0
    in_use = catalogue.model() == encoder.digest

    def read_entry(entry: Entry) -> RGB | str:
        try:
            with turn(patient=True):
                return encoder.fit(read(entry, encoder.input_size))
        except (PictureError, CorpusError, BlobError) as error:
            return str(error)

    while True:
        missing = [i for i in catalogue.staging.missing(encoder.digest) if i not in unreadable]
        if not missing:
            break
        total = embedded + len(missing)
        control.progress("embedding", embedded, total)
        entries = (
            entry
            for start in range(0, len(missing), BATCH)
            for entry in catalogue.find(missing[start : start + BATCH])
        )
        for pairs in batches(entries, read_entry):
            if control.cancelled():
                raise CancelledError(
                    f"stopped after {embedded:,} of {total:,} pictures; the next attempt continues"
                    " from there"
                )
            good = [(entry, picture) for entry, picture in pairs if not isinstance(picture, str)]
            bad = {entry.source: why for entry, why in pairs if isinstance(why, str)}
            unreadable |= {entry.id for entry, _ in pairs if entry.source in bad}
            skipped |= bad
            control.skip(bad)
            if good:
                _, embeddings = encoder.encode([picture for _, picture in good])
                ids = [entry.id for entry, _ in good]
                # A picture that was replaced meanwhile must not get what the old one looks like.
                hashes = [entry.content_hash for entry, _ in good]
                if in_use:
                    digest = encoder.digest
                    embedded += catalogue.embed(ids, embeddings, digest, hashes, only_same=True)
                else:
                    embedded += catalogue.staging.add(ids, embeddings, encoder.digest, hashes)
            control.progress("embedding", embedded, total)
    total = catalogue.count()
    return Counts(total, embedded, total - embedded - len(unreadable), 0, skipped)


class Reading(NamedTuple):
    """A corpus picture, read.

    Attributes:
        picture: fitted to the encoder, uint8 ``(input_size, input_size, 3)``.
        content: what identifies its content; see `content_name`.
        facts: what its file says of itself, as payload.
    """

    picture: RGB
    content: str
    facts: Payload


def item_reader(corpus: Corpus, encoder: PictureEncoder) -> Callable[[Item], Reading | str]:
    """Returns, for an item, its `Reading`, or the reason why the picture cannot be used."""

    def read(item: Item) -> Reading | str:
        try:
            with turn(patient=True):
                picture, data, facts = corpus.load(item.source, encoder.input_size)
                content = pixels_hash(picture) if data is None else file_hash(data)
                # Scaled here, in a reading thread, so that a batch of photographs needs little
                # memory.
                return Reading(encoder.fit(picture), content, facts)
        except (PictureError, CorpusError) as error:
            return str(error)

    return read


def batches(
    items: Iterable[T], read: Callable[[T], Found | str]
) -> Iterator[list[tuple[T, Found | str]]]:
    """Batches of items, each with what was read or the reason why it cannot be read.

    A few threads read and decode while the previous batch is embedded, at most
    ``_BATCHES_AHEAD`` batches ahead, so that memory use does not grow with the corpus.
    """
    remaining = iter(items)
    ahead: deque[tuple[list[T], list[Future[list[Found | str]]]]] = deque()

    def read_some(some: Sequence[T]) -> list[Found | str]:
        return [read(item) for item in some]

    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        while True:
            while len(ahead) < _BATCHES_AHEAD and (batch := list(islice(remaining, BATCH))):
                chunks = [batch[start : start + _CHUNK] for start in range(0, len(batch), _CHUNK)]
                ahead.append((batch, [pool.submit(read_some, chunk) for chunk in chunks]))
            if not ahead:
                return
            batch, futures = ahead.popleft()
            found = [one for future in futures for one in future.result()]
            yield list(zip(batch, found, strict=True))


def _record(
    catalogue: Catalogue,
    good: Sequence[tuple[Item, Reading]],
    embeddings: NDArray[np.float32],
    digest: str,
    stored: dict[str, int],
) -> None:
    """Store new pictures; update only the embeddings of those already stored."""
    hashes = [found.content for _, found in good]
    new = [row for row, (item, *_) in enumerate(good) if item.source not in stored]
    old = [row for row, (item, *_) in enumerate(good) if item.source in stored]
    if new:
        items = [good[row][0] for row in new]
        records = [
            Record(
                item.source, item.split, item.label, payload_of(item, found.facts), found.content
            )
            for item, found in (good[row] for row in new)
        ]
        # One that was deleted by hand or restored since is left as it is.
        ids = catalogue.upsert(records, embeddings[new], digest, only_new=True)
        stored |= {item.source: id_ for item, id_ in zip(items, ids, strict=True) if id_ != NO_ID}
    if old:
        ids = [stored[good[row][0].source] for row in old]
        same = catalogue.unchanged(ids, embeddings[old], digest, [hashes[row] for row in old])
        # Unchanged rows are not written: every server would have to replay them as changes.
        left = [n for n in range(len(old)) if not same[n]]
        if left:
            rows = [old[n] for n in left]
            catalogue.embed(
                [ids[n] for n in left], embeddings[rows], digest, [hashes[row] for row in rows]
            )


def _record_of(item: Item, found: Reading) -> Record:
    return Record(item.source, item.split, item.label, payload_of(item, found.facts), found.content)


def _unstorable(item: Item, found: Reading, bounds: PayloadBounds) -> str | None:
    """Why this one cannot be stored, so that it alone is left out; None if it can be."""
    try:
        record = _record_of(item, found)
        check_record(record, item.source)
        check_bounds(record, bounds)
    except IndexInputError as error:
        return str(error)
    return None


def payload_of(item: Item, facts: Payload) -> Payload:
    """The payload of a new corpus picture, apart from label and split.

    What its file says of itself, its tags, and what the corpus says of it, which comes first.
    """
    tags: Payload = {"tags": list(item.tags)} if item.tags else {}
    owned = {name: value for name, value in item.payload.items() if value is not None}
    return {**facts, **tags, **owned}


def _relabel(catalogue: Catalogue, items: Sequence[Item]) -> dict[str, str]:
    """Update labels, splits and owned payload that changed in the corpus since they were recorded.

    A store built before the corpus had tags receives them once; later edits to a payload are kept.

    Returns:
        Why, for each source whose changes cannot be stored; what was recorded stays.
    """
    wanted = {item.source: item for item in items}
    tagged = catalogue.get_meta(_TAGGED) is not None
    changes: dict[tuple[Change, Change, str], list[Entry]] = {}
    refused: dict[str, str] = {}
    for entry in _entries(catalogue):
        item = wanted.get(entry.source)
        if item is None or entry.origin != "corpus":
            continue
        moved = not entry.edited and (item.split, item.label) != (entry.split, entry.label)
        split, label = (item.split, item.label) if moved else (KEEP, KEEP)
        payload: Payload = {
            name: value for name, value in item.payload.items() if entry.payload.get(name) != value
        }
        if item.tags and not tagged and "tags" not in entry.payload:
            payload["tags"] = list(item.tags)
        if moved or payload:
            changes.setdefault((split, label, json.dumps(payload)), []).append(entry)
    for (split, label, fields), entries in changes.items():
        # What others have changed or deleted since it was read stays as they left it.
        try:
            catalogue.update(
                [entry.id for entry in entries],
                split=split,
                label=label,
                payload=json.loads(fields) or None,
                expected=entries,
            )
        except IndexInputError as error:
            refused |= {entry.source: str(error) for entry in entries}
    if not tagged and any(item.tags for item in items):
        catalogue.set_meta(_TAGGED, "yes")
    return refused


def _entries(catalogue: Catalogue) -> Iterator[Entry]:
    after = -1
    while page := catalogue.page(after, 5000):
        yield from page
        after = page[-1].id
