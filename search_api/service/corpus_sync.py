"""Brings the catalogue up to date with a corpus: embeds what is new, leaves what is known."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, CorpusError, Item, Scan
from embed.encoder import PictureEncoder
from embed.folders.kinds import Skipped, count_kinds
from embed.pictures import RGB, PictureError, turn
from embed.preprocess import Preprocess
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
from index.records import Entry, Payload, PayloadBounds, Record, Stamp
from search_api.service.following.comparison import (
    Comparison,
    check_removal,
    compare,
    without_drives,
)
from search_api.service.following.contents import file_hash, pixels_hash

BATCH = 500
"""Pictures embedded, and recorded durably in the catalogue, at a time."""

_FIRST = 50
"""So many are in the first batch of a build: searches of an empty store wait for it."""

UNREADABLE = "unreadable pictures"
"""The kind of a picture that is in the corpus and cannot be read, or whose name is in use."""

_MISSING = Skipped("missing files", "a table names it, but there is no such file")
_MOUNTS = "corpus_mounts"
_TAGGED = "corpus_tags"
_STAMPED = "corpus_stamps"
"""Set once all files of the corpus have stamps, which earlier versions did not keep."""
_FACTS = {"file", "exif"}
"""The fields that a file says of itself."""
_READERS = min(4, os.cpu_count() or 1)
_BATCHES_AHEAD = 2
_CHUNK = 5
"""Pictures that a thread reads per task: a task for each of CIFAR-10 would cost as much as reading
it, and the last photographs of a batch, 0.1 s each, should not be left to one thread."""

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
        changed: those of ``embedded`` that were stored before, with another content.
        moved: pictures that were found at another place, and not embedded for that.
        unreachable: those of ``kept`` whose file could not be looked at.
        notices: sentences for people about what the corpus holds and the store does not.
    """

    total: int
    embedded: int
    kept: int
    removed: int
    skipped: dict[str, str] = field(default_factory=dict)
    not_taken: Mapping[str, Skipped] = field(default_factory=dict)
    changed: int = 0
    moved: int = 0
    unreachable: int = 0
    notices: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, int]:
        """How many files were skipped of each kind."""
        unusable = [
            Skipped(UNREADABLE, why)
            for path, why in self.skipped.items()
            if path not in self.not_taken
        ]
        return count_kinds([*unusable, *self.not_taken.values()])


@dataclass(frozen=True)
class Prepared:
    """What a corpus holds now, with what could be followed without embedding.

    Attributes:
        items: the pictures that belong into the catalogue.
        found: what became of the stored ones.
        moved: ids of those that moved.
        removed: how many made way for those.
        skipped: the reason for each source that cannot be used, and each file that is not taken.
        refused: the reason for each source whose changes cannot be stored.
        not_taken: what the scan did not take.
        notices: those of the scan.
    """

    items: Sequence[Item]
    found: Comparison
    moved: set[int]
    removed: int
    skipped: Mapping[str, str]
    refused: Mapping[str, str]
    not_taken: Mapping[str, Skipped]
    notices: tuple[str, ...]


def prepare(
    corpus: Corpus,
    catalogue: Catalogue,
    at_least: int,
    control: JobControl,
    *,
    allow_removal: bool = False,
    scan: Scan | None = None,
    within: Callable[[str], bool] | None = None,
    built: float | None = None,
    replacing: bool = False,
) -> Prepared:
    """Find out what is new, changed, moved and gone; record the moves and label changes.

    The first half of `sync_corpus`, whose parameters these are; nothing is embedded, and nothing
    removed but what others have moved over. ``at_least`` is the shorter side, in pixels, that the
    encoder needs; ``built`` when the store's index was built, in seconds since 1970: an earlier
    version kept no stamps, so only files changed since then are read. With ``replacing`` what is
    stored is of another corpus: what has only the name of another picture is that picture no
    longer, nor deleted by hand, and all that is gone may be. Raises as `sync_corpus` does, before
    anything is changed.
    """
    allow_removal = allow_removal or replacing
    scan = scan or _scanned(corpus, catalogue)
    if not allow_removal:
        scan = without_drives(scan, json.loads(catalogue.get_meta(_MOUNTS) or "[]"))
    tombstones = set() if replacing else catalogue.tombstones()
    added = catalogue.all_sources("added")
    items = [i for i in scan.items if i.source not in tombstones and i.source not in scan.missing]
    not_taken = {**scan.skipped, **dict.fromkeys(scan.missing, _MISSING)}
    skipped = {
        item.source: "an added picture has this name" for item in items if item.source in added
    }
    items = [item for item in items if item.source not in skipped]
    skipped |= {path: one.reason for path, one in not_taken.items()}
    stored = catalogue.all_sources("corpus")
    looked_for = {s: id_ for s, id_ in stored.items() if within is None or within(s)}
    since = int(built * 1e9) if built and catalogue.get_meta(_STAMPED) is None else None
    found = compare(
        corpus, catalogue, scan, items, looked_for, at_least, control, since, another=replacing
    )
    gone = found.overwritten + found.gone
    if not allow_removal:
        names = {id_: source for source, id_ in looked_for.items()}
        check_removal([names[id_] for id_ in gone], len(stored), corpus.name, scan.skipped)
    skipped |= found.skipped
    control.skip(skipped)
    if replacing:
        catalogue.forget_tombstones()
    removed, moved = _follow(catalogue, found)
    if within is None and catalogue.get_meta(_STAMPED) is None:
        catalogue.set_meta(_STAMPED, "yes")
    if scan.mounts is not None and within is None:
        mounts = json.dumps(sorted(scan.mounts))
        if mounts != (catalogue.get_meta(_MOUNTS) or "[]"):
            catalogue.set_meta(_MOUNTS, mounts)
    refused = _relabel(catalogue, items, None if within is None else [*looked_for.values()])
    control.skip(refused)
    return Prepared(items, found, moved, removed, skipped, refused, not_taken, scan.notices)


def sync_corpus(
    encoder: PictureEncoder,
    corpus: Corpus,
    catalogue: Catalogue,
    control: JobControl,
    *,
    reembed: bool = False,
    allow_removal: bool = False,
    scan: Scan | None = None,
    within: Callable[[str], bool] | None = None,
    prepared: Prepared | None = None,
) -> Counts:
    """Record what is new, changed, moved and gone in the corpus, and follow label changes.

    Pictures added by hand are left alone, those deleted by hand stay deleted, and a label or split
    set by hand is kept. What cannot be looked at or read stays as it is.

    Args:
        encoder: computes the embeddings; its model is the one in use in the catalogue.
        corpus: where the pictures are.
        catalogue: where they are recorded; each batch is durable before the next begins.
        control: receives progress and can cancel.
        reembed: embed known pictures again, too.
        allow_removal: remove what is gone however much it is.
        scan: what was found in the corpus, or the part of it that is ``within``; looked for now
            if it is None.
        within: whether a source is in the part of the corpus that was looked at; the rest is left
            as it is. None for the whole.
        prepared: the result of `prepare`, if that was called before; then the three above are not
            used.

    Raises:
        CancelledError: ``control`` cancelled it.
        CorpusError: the corpus cannot be looked at, or there is no picture; nothing is changed.
        RemovalError: too many pictures are gone; see `check_removal`. Nothing is removed.
    """
    ready = prepared or prepare(
        corpus,
        catalogue,
        encoder.input_size,
        control,
        allow_removal=allow_removal,
        scan=scan,
        within=within,
    )
    found, skipped = ready.found, dict(ready.skipped)
    known = {} if reembed else catalogue.known_sources(encoder.digest)
    stored = catalogue.all_sources("corpus")
    changed = {item.source for item in found.changed}
    left_out = skipped.keys() | catalogue.tombstones()
    missing = [
        item
        for item in ready.items
        if item.source not in left_out and (item.source not in known or item.source in changed)
    ]
    before, unreachable = dict(stored), set(found.unreachable)
    embedded, again = 0, set[int]()
    control.progress("embedding", 0, len(missing))

    done = 0
    for batch in batches(missing, item_reader(corpus, encoder), _FIRST):
        done += len(batch)
        if control.cancelled():
            raise CancelledError(
                f"stopped after {embedded:,} of {len(missing):,} pictures; the next build continues"
                " from there"
            )
        good: list[tuple[Item, Reading]] = []
        bad: dict[str, str] = {}
        for item, read in batch:
            if isinstance(read, str):
                bad[item.source] = read
            elif (why := _unstorable(item, read, catalogue.bounds)) is not None:
                bad[item.source] = why
            else:
                good.append((item, read))
        skipped |= bad
        unreachable |= bad.keys() & stored.keys()
        control.skip(bad)
        if good:
            _, embeddings = encoder.encode([read.picture for _, read in good])
            if reembed:
                changed |= _replaced(catalogue, good, before)
            _record(catalogue, good, embeddings, encoder.digest, stored)
            known_before = {before[i.source]: (i, r) for i, r in good if i.source in before}
            _refresh(catalogue, known_before, changed)
            here = [
                (stored[item.source], item, read) for item, read in good if item.source in stored
            ]
            _stamp(
                catalogue,
                {id_: found.kept_stamp(item) for id_, item, _ in here},
                {id_: read.content for id_, _, read in here},
            )
            embedded += len(here)
            again |= {id_ for id_, *_ in here}
        control.progress("embedding", done, len(missing))
    total = len(stored) - len(found.gone)
    return Counts(
        total=total,
        embedded=embedded,
        kept=total - embedded - len(ready.moved - again),
        removed=ready.removed + catalogue.delete(found.gone),
        skipped={**skipped, **ready.refused},
        not_taken=ready.not_taken,
        notices=ready.notices,
        changed=sum(stored.get(source) in again for source in changed),
        moved=len(ready.moved),
        unreachable=len(unreachable),
    )


def _scanned(corpus: Corpus, catalogue: Catalogue) -> Scan:
    try:
        return corpus.scan()
    except CorpusError as error:
        count = len(catalogue.all_sources("corpus"))
        if not count:
            raise
        raise CorpusError(
            f"{error}. The pictures of it that are stored ({count:,}) stay as they are; if a drive"
            " or network share is gone, bring it back and build again"
        ) from error


def _stamp(
    catalogue: Catalogue,
    stamps: Mapping[int, Stamp | None],
    contents: Mapping[int, str | None] | None = None,
) -> None:
    known = {id_: stamp for id_, stamp in stamps.items() if stamp is not None}
    if known:
        catalogue.set_stamps(known, contents)


def _follow(catalogue: Catalogue, found: Comparison) -> tuple[int, set[int]]:
    """Record what needs no embedding: stamps, and moves to places that were others' before.

    Returns how many pictures were removed, and the ids of those that moved.
    """
    _stamp(catalogue, {id_: found.stamps[id_] for id_ in found.contents}, found.contents)
    _stamp(catalogue, {i: stamp for i, stamp in found.stamps.items() if i not in found.contents})
    removed = catalogue.delete(found.overwritten) if found.overwritten else 0
    if not found.moved:
        return removed, set()
    moved = catalogue.rename({id_: item.source for id_, item in found.moved.items()})
    _stamp(catalogue, {id_: found.kept_stamp(found.moved[id_]) for id_ in moved})
    for start in range(0, len(moved), BATCH):
        renamed: list[tuple[Entry, Payload]] = []
        for entry in catalogue.find(moved[start : start + BATCH]):
            file, name = entry.payload.get("file"), PurePosixPath(entry.source).name
            if isinstance(file, dict) and file.get("name", name) != name:
                renamed.append((entry, {"file": {**file, "name": name}}))
        _update_payloads(catalogue, renamed)
    return removed, set(moved)


def embed_missing(
    encoder: PictureEncoder,
    catalogue: Catalogue,
    read: Callable[[Entry, Preprocess], RGB],
    control: JobControl,
) -> Counts:
    """Embed the stored pictures that this model has not embedded yet.

    If another model is in use, the embeddings are staged. If this one is, they are stored directly:
    they belong to pictures added during the switch to it. Continues where an earlier call stopped,
    and repeats until nothing added meanwhile is missing.

    Args:
        encoder: the model.
        catalogue: holds the entries and receives the embeddings.
        read: returns an entry's picture, fitted by the given preprocessing.
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
                return read(entry, encoder.preprocess)
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
                picture, data, facts = corpus.load(item.source, encoder.preprocess)
                if data is not None:
                    return Reading(picture, file_hash(data), facts)
                return Reading(encoder.fit(picture), pixels_hash(picture), facts)
        except (PictureError, CorpusError) as error:
            return str(error)

    return read


def batches(
    items: Iterable[T], read: Callable[[T], Found | str], first: int | None = None
) -> Iterator[list[tuple[T, Found | str]]]:
    """Batches of items, each with what was read or the reason why it cannot be read.

    Of ``BATCH`` items; if ``first`` is given, the first has so many, and the next ones grow.

    A few threads read and decode while the previous batch is embedded, at most
    ``_BATCHES_AHEAD`` batches ahead, so that memory use does not grow with the corpus.
    """
    remaining = iter(items)
    size = min(first or BATCH, BATCH)
    ahead: deque[tuple[list[T], list[Future[list[Found | str]]]]] = deque()

    def read_some(some: Sequence[T]) -> list[Found | str]:
        return [read(item) for item in some]

    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        while True:
            while len(ahead) < _BATCHES_AHEAD and (batch := list(islice(remaining, size))):
                size = min(2 * size, BATCH)
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


def _replaced(
    catalogue: Catalogue, good: Sequence[tuple[Item, Reading]], stored: Mapping[str, int]
) -> set[str]:
    """The sources of those that are stored with another content, whatever their files' stamps."""
    read = {stored[i.source]: (i.source, r.content) for i, r in good if i.source in stored}
    found = set()
    for entry in catalogue.find(list(read)):
        source, content = read[entry.id]
        kind, _, name = (entry.content_hash or "").partition(":")
        if name and content.startswith(f"{kind}:") and content != entry.content_hash:
            found.add(source)
    return found


def _refresh(
    catalogue: Catalogue, read: Mapping[int, tuple[Item, Reading]], changed: Container[str]
) -> None:
    """Update what the files of these pictures, by id, say of themselves.

    Where the file has not changed, fields set by hand stay, and only those are added that an
    earlier version did not store.
    """
    found: list[tuple[Entry, Payload]] = []
    for entry in catalogue.find(list(read)):
        item, reading = read[entry.id]
        facts: Payload = dict(reading.facts)
        if item.source in changed:
            facts = {**dict.fromkeys(_FACTS & entry.payload.keys()), **facts}
        else:
            facts = {name: fact for name, fact in facts.items() if name not in entry.payload}
        owned = item.payload.keys()
        fields = {n: f for n, f in facts.items() if n not in owned and entry.payload.get(n) != f}
        found.append((entry, fields))
    _update_payloads(catalogue, found)


def _update_payloads(catalogue: Catalogue, changes: Sequence[tuple[Entry, Payload]]) -> None:
    """Merge fields into payloads; those that would get too large stay as they are."""
    found = [(entry, fields) for entry, fields in changes if fields]
    if not found:
        return
    try:
        catalogue.update(
            [entry.id for entry, _ in found],
            payloads={entry.id: fields for entry, fields in found},
            expected=[entry for entry, _ in found],
        )
    except IndexInputError:
        if len(found) > 1:
            for one in found:
                _update_payloads(catalogue, [one])


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


def _relabel(
    catalogue: Catalogue, items: Sequence[Item], ids: Sequence[int] | None = None
) -> dict[str, str]:
    """Update labels, splits and owned payload that changed in the corpus since they were recorded.

    Of all pictures, or of these ids.

    A store built before the corpus had tags receives them once; later edits to a payload are kept.

    Returns:
        Why, for each source whose changes cannot be stored; what was recorded stays.
    """
    wanted = {item.source: item for item in items}
    tagged = catalogue.get_meta(_TAGGED) is not None
    changes: dict[tuple[Change, Change, str], list[Entry]] = {}
    refused: dict[str, str] = {}
    for entry in _entries(catalogue) if ids is None else catalogue.find(ids):
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
