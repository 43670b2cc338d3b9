"""From a corpus into the catalogue: embed what is new, leave what is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embed.corpus import Corpus, CorpusError, Item
from embed.encoder import PictureEncoder
from embed.pictures import RGB, PictureError
from index.catalogue import Catalogue, Entry, Record

BATCH = 500
"""Pictures embedded, and acknowledged by the catalogue, at a time."""

_READERS = 4
_BATCHES_AHEAD = 2

Progress = Callable[[str, int, int], None]
"""Told of (stage, done, total)."""


class CancelledError(RuntimeError):
    """The caller asked to stop."""


def no_progress(stage: str, done: int, total: int) -> None:
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
    catalogue: Catalogue,
    progress: Progress,
    reembed: bool,
    cancelled: Callable[[], bool],
) -> tuple[Counts, NDArray[np.int64]]:
    """Embed and record every picture of the corpus that this model has not embedded yet.

    Args:
        encoder: makes the embeddings.
        corpus: where the pictures are.
        catalogue: where they are recorded; each batch is durable before the next begins.
        progress: told after each batch.
        reembed: embed also what is known.
        cancelled: asked before each batch.

    Returns:
        What was done, and the ids int64 ``(n,)`` that the catalogue holds but the corpus does not,
        which the caller deletes once no index answers with them.

    Raises:
        CancelledError: ``cancelled`` said so.
    """
    items = corpus.items
    known = {} if reembed else catalogue.known_sources(encoder.digest)
    _relabel(catalogue, items)
    missing = [item for item in items if item.source not in known]
    skipped: dict[str, str] = {}
    embedded = 0
    progress("embedding", 0, len(missing))
    for done, batch in _read(corpus, missing, encoder.input_size):
        if cancelled():
            raise CancelledError(
                f"stopped after {embedded:,} of {len(missing):,} pictures; the next build goes on"
                " from there"
            )
        good = [(item, picture) for item, picture in batch if not isinstance(picture, str)]
        skipped |= {item.source: why for item, why in batch if isinstance(why, str)}
        if good:
            records = [Record(item.source, item.split, item.label) for item, _ in good]
            _, embeddings = encoder.encode([picture for _, picture in good])
            catalogue.upsert(records, embeddings, encoder.digest)
            embedded += len(good)
        progress("embedding", done, len(missing))
    present = {item.source for item in items} - skipped.keys()
    gone = [id_ for source, id_ in catalogue.all_sources().items() if source not in present]
    counts = Counts(
        total=len(present),
        embedded=embedded,
        kept=len(items) - len(missing),
        removed=len(gone),
        skipped=skipped,
    )
    return counts, np.array(sorted(gone), dtype=np.int64)


def _read(
    corpus: Corpus, items: Sequence[Item], size: int
) -> Iterator[tuple[int, list[tuple[Item, RGB | str]]]]:
    """Batches of pictures, or why one cannot be read, with the count so far.

    Files are read and decoded by a few threads while the batch before is embedded, and only a few
    batches ahead, so that memory stays flat however large the corpus.
    """

    def read(item: Item) -> RGB | str:
        try:
            return corpus.read(item.source, at_least=size)
        except (PictureError, CorpusError) as error:
            return str(error)

    starts = deque(range(0, len(items), BATCH))
    ahead: deque[tuple[Sequence[Item], list[Future[RGB | str]]]] = deque()
    done = 0
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        while starts or ahead:
            while starts and len(ahead) < _BATCHES_AHEAD:
                start = starts.popleft()
                batch = items[start : start + BATCH]
                ahead.append((batch, [pool.submit(read, item) for item in batch]))
            batch, futures = ahead.popleft()
            done += len(batch)
            yield done, [(i, f.result()) for i, f in zip(batch, futures, strict=True)]


def _relabel(catalogue: Catalogue, items: Sequence[Item]) -> None:
    """Follow pictures whose label or split changed since they were recorded."""
    wanted = {item.source: (item.split, item.label) for item in items}
    changed: dict[tuple[str | None, str | None], list[int]] = {}
    for entry in _entries(catalogue):
        now = wanted.get(entry.source)
        if now is not None and now != (entry.split, entry.label):
            changed.setdefault(now, []).append(entry.id)
    for (split, label), ids in changed.items():
        catalogue.update(ids, split=split, label=label)


def _entries(catalogue: Catalogue) -> Iterator[Entry]:
    after = -1
    while page := catalogue.page(after, 5000):
        yield from page
        after = page[-1].id
