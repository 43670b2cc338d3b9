"""Classes and finer tags for many files, at the pace of the encoder."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.encoder import PictureEncoder
from embed.pictures import RGB, PictureError, PictureLimits, decode, read_file
from embed.runtime import LANES
from index.lists import QuickLists
from index.neighbours import UnknownIdError
from index.stores import RecordOfAll, Served
from search_api.ingest import batches
from search_api.results import Point, Prediction, Tagged, Tags
from search_api.threads import take_share

VOTERS = 10
"""How many of the nearest neighbours vote on the tags."""
LEAST_SHARE = 0.3
"""Share of them that must have a tag."""
MANY_QUERIES, MANY_STORED = 2000, 20_000
"""For so many files against so many pictures an exact search costs more than to make an index."""

Vote = Callable[[NDArray[np.float32]], list[Tags]]
"""Gives the tags of pictures with embeddings ``(n, d)``."""


def tag_files(
    encoder: PictureEncoder,
    files: Sequence[Path],
    vote: Vote | None = None,
    limits: PictureLimits = PictureLimits(),
) -> Iterator[list[Tagged]]:
    """Each file in the order given, batch by batch.

    Files are read and decoded ahead of the encoder. Some batches are worked on at a time, each with
    a share of the cores, so that one is in the network while the votes on another are counted.

    Args:
        encoder: the model.
        files: pictures, or what may be one.
        vote: gives the tags for embeddings ``(n, d)``; None for no tags.
        limits: bounds of each picture.
    """

    def read(file: Path) -> RGB | str:
        try:
            if not file.is_file():
                return "it is not a file"  # a pipe would be waited for, for ever
            data = read_file(file, limits)
            return encoder.fit(decode(data, limits, at_least=encoder.input_size))
        except (PictureError, OSError) as error:
            return getattr(error, "strerror", None) or str(error)

    def tagged(batch: list[tuple[Path, RGB | str]]) -> list[Tagged]:
        good = [picture for _, picture in batch if not isinstance(picture, str)]
        found: Iterator[tuple[NDArray[np.float32], Tags]] = iter(())
        if good:
            probabilities, embeddings = encoder.encode(good, spare=len(files) > len(batch))
            tags = vote(embeddings) if vote else [()] * len(good)
            found = zip(probabilities, tags, strict=True)
        results = []
        for file, picture in batch:
            if isinstance(picture, str):
                results.append(Tagged(file, error=picture))
            else:
                row, voted = next(found)
                results.append(Tagged(file, Prediction.of(encoder.classes, row), voted))
        return results

    with ThreadPoolExecutor(LANES, "tag", initializer=take_share) as pool:
        ahead: deque[Future[list[Tagged]]] = deque()
        for batch in batches(files, read):
            ahead.append(pool.submit(tagged, batch))
            if len(ahead) > LANES:
                yield ahead.popleft().result()
        for last in ahead:
            yield last.result()


class NeighbourTags:
    """Tags voted by the nearest neighbours in a store: the words in their payload's `tags`."""

    def __init__(
        self, served: Served[PictureEncoder], catalogue: RecordOfAll, queries: int = 1
    ) -> None:
        """From the index that ``served`` has loaded and the catalogue that it stands for.

        For many ``queries`` an exact index is put into inverted lists first: a vote does not need
        every neighbour.
        """
        self._served = served
        self._catalogue = catalogue
        self._lists: QuickLists | None = None
        self._many = queries >= MANY_QUERIES
        self._making = threading.Lock()
        self._known: dict[int, tuple[str, ...]] = {}

    def __call__(self, embeddings: NDArray[np.float32]) -> list[Tags]:
        """The tags of pictures with these embeddings ``(n, d)``."""
        ids = self._nearest(embeddings)
        self._learn(ids)
        return [count([self._known[i] for i in row if i >= 0]) for row in ids.tolist()]

    def _nearest(self, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
        index = self._served.current().index
        with self._making:
            if self._many and self._lists is None:
                self._many = index.kind == "exact" and index.count() >= MANY_STORED
                self._lists = QuickLists(index) if self._many else None
        if self._lists is None:
            return index.search(embeddings, VOTERS, None).ids
        return self._lists.nearest(embeddings, VOTERS)

    def _learn(self, ids: NDArray[np.int64]) -> None:
        unknown = [i for i in np.unique(ids).tolist() if i >= 0 and i not in self._known]
        while unknown:
            try:
                entries = self._catalogue.get(unknown)
            except UnknownIdError as error:
                # Deleted meanwhile: they have no vote.
                self._known.update(dict.fromkeys(error.ids, ()))
                unknown = [i for i in unknown if i not in self._known]
                continue
            self._known.update({entry.id: words(entry.payload.get("tags")) for entry in entries})
            return


def tags_of(points: Sequence[Point]) -> Tags:
    """The tags voted by the pictures that a search has found."""
    return count([words(point.entry.payload.get("tags")) for point in points])


def words(value: object) -> tuple[str, ...]:
    """The tags in a payload's value: a list of words, or a single one; what else, none."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        return ()
    return tuple(dict.fromkeys(word for word in value if isinstance(word, str) and word))


def count(votes: Sequence[Sequence[str]]) -> Tags:
    """The tags that at least ``LEAST_SHARE`` of the voters have, with their shares.

    Voters without any tag count too: few tagged neighbours are little evidence.
    """
    counted = Counter(word for voter in votes for word in voter)
    shares = [(word, n / len(votes)) for word, n in counted.items()]
    kept = [(word, share) for word, share in shares if share >= LEAST_SHARE]
    return tuple(sorted(kept, key=lambda pair: (-pair[1], pair[0])))
