"""Classes and finer tags for many files, at the pace of the encoder."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.encoder import Encoding, PictureEncoder
from embed.pictures import RGB, PictureError, PictureLimits, decode, read_file
from index import kinds
from index.neighbours import Searchable, UnknownIdError
from index.stores import RecordOfAll, Served
from search_api.ingest import batches
from search_api.results import Point, Prediction, Tagged, Tags
from search_api.threads import take_share

VOTERS = 10
"""How many of the nearest neighbours vote on the tags."""
LEAST_SHARE = 0.3
"""Share of them that must have a tag."""
MANY_QUERIES, MANY_STORED = 2000000, 20_000
"""For so many files against so many pictures an exact search costs more than to make an index."""

_RECALL = 0.99

Vote = Callable[[NDArray[np.float32]], list[Tags]]
"""Gives the tags of pictures with embeddings ``(n, d)``."""


def tag_files(
    encoder: PictureEncoder,
    files: Sequence[Path],
    vote: Vote | None = None,
    limits: PictureLimits = PictureLimits(),
) -> Iterator[list[Tagged]]:
    """Each file in the order given, batch by batch.

    Files are read and decoded ahead of the encoder, and the votes on a batch are taken while the
    next one is embedded.

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

    def tagged(
        batch: list[tuple[Path, RGB | str]],
        encoding: Encoding | None,
    ) -> list[Tagged]:
        found: Iterator[tuple[NDArray[np.float32], Tags]] = iter(())
        if encoding is not None:
            tags = vote(encoding.embeddings) if vote else [()] * len(encoding.embeddings)
            found = zip(encoding.probabilities, tags, strict=True)
        results = []
        for file, picture in batch:
            if isinstance(picture, str):
                results.append(Tagged(file, error=picture))
            else:
                row, voted = next(found)
                results.append(Tagged(file, Prediction.of(encoder.classes, row), voted))
        return results

    # One thread, and one of FAISS's in it: the encoder is to have the other cores.
    with ThreadPoolExecutor(1, "vote", initializer=take_share) as pool:
        voting: deque[Future[list[Tagged]]] = deque()
        for batch in batches(files, read):
            good = [picture for _, picture in batch if not isinstance(picture, str)]
            encoding = encoder.encode(good) if good else None
            voting.append(pool.submit(tagged, batch, encoding))
            if len(voting) > 1:
                yield voting.popleft().result()
        for last in voting:
            yield last.result()


class NeighbourTags:
    """Tags voted by the nearest neighbours in a store: the words in their payload's `tags`."""

    def __init__(
        self, served: Served[PictureEncoder], catalogue: RecordOfAll, queries: int = 1
    ) -> None:
        """From the index that ``served`` has loaded and the catalogue that it stands for.

        For many ``queries`` an exact index is put into inverted lists first, which find 99 % of the
        nearest neighbours: enough for a vote, in a fraction of the time.
        """
        self._served = served
        self._catalogue = catalogue
        self._lists: Searchable | None = None
        index = served.current().index
        if queries >= MANY_QUERIES and index.kind == "exact" and index.count() >= MANY_STORED:
            ids = index.ids()
            lists = f"IVF{int(len(ids) ** 0.5)},SQ8"
            self._lists = kinds.build(ids, index.vectors(ids), index.dimension, lists, _RECALL)
        self._known: dict[int, tuple[str, ...]] = {}

    def __call__(self, embeddings: NDArray[np.float32]) -> list[Tags]:
        """The tags of pictures with these embeddings ``(n, d)``."""
        index = self._served.current().index if self._lists is None else self._lists
        _, ids = index.search(embeddings, VOTERS, None)
        self._learn(ids)
        return [count([self._known[i] for i in row if i >= 0]) for row in ids.tolist()]

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
