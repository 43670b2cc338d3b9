"""Classes and finer tags for many files, and the vote of neighbours that gives the tags."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.encoder import Encoding, PictureEncoder
from embed.pictures import RGB, PictureError, decode, read_file, turn
from embed.runtime.protocol import WORKERS
from index.ann.quick_lists import QuickLists
from index.contract import Catalogue, Neighbours, ServedIndex, UnknownIdError
from index.payload import nfc
from index.ranking.vote import VOTERS
from search_api.schemas.search import Classes
from search_api.service.corpus_sync import batches
from search_api.service.labelling.classes import NOTHING_STORED, Predicted, StoredClasses
from search_api.service.results import Point, Tagged, Tags
from search_api.threads import limit_faiss_threads

MIN_SHARE = 0.3
"""Share of the nearest neighbours that must have a tag."""
MANY_QUERIES, MANY_STORED = 2000, 20_000
"""With at least this many files and stored pictures, building inverted lists pays off."""

Judge = Callable[[Encoding], list[tuple[Predicted, Tags]]]
"""Returns the prediction and the tags of each picture of a batch."""


def tag_files(
    encoder: PictureEncoder, files: Sequence[Path], judge: Judge
) -> Iterator[list[Tagged]]:
    """Classify and tag files, batch by batch, in the given order.

    Files are read and decoded ahead of the encoder. A few batches are processed at a time, each on
    its share of the cores, so that the network runs on one while votes on another are counted.

    Args:
        encoder: the model.
        files: paths; those that are not usable pictures give an error.
        judge: returns the predictions and tags; see `StoreJudge`.
    """

    def read(file: Path) -> RGB | str:
        try:
            if not file.is_file():
                return "it is not a file"  # reading a pipe could block without end
            with turn(patient=True):
                return decode(read_file(file), at_least=encoder.preprocess)
        except (PictureError, OSError) as error:
            return getattr(error, "strerror", None) or str(error)

    def tagged(batch: list[tuple[Path, RGB | str]]) -> list[Tagged]:
        good = [picture for _, picture in batch if not isinstance(picture, str)]
        found: Iterator[tuple[Predicted, Tags]] = iter(())
        if good:
            found = iter(judge(encoder.encode(good, spare=len(files) > len(batch))))
        results = []
        for file, picture in batch:
            if isinstance(picture, str):
                results.append(Tagged(file, error=picture))
            else:
                (prediction, both), tags = next(found)
                results.append(Tagged(file, prediction, tags, predictions=both))
        return results

    with ThreadPoolExecutor(WORKERS, "tag", initializer=limit_faiss_threads) as pool:
        ahead: deque[Future[list[Tagged]]] = deque()
        for batch in batches(files, read):
            ahead.append(pool.submit(tagged, batch))
            if len(ahead) > WORKERS:
                yield ahead.popleft().result()
        for last in ahead:
            yield last.result()


class StoreJudge:
    """Judges pictures by the store's classes and, if wanted, by the tags of their neighbours."""

    def __init__(
        self,
        encoder: PictureEncoder,
        classes: Classes = "auto",
        stored: StoredClasses = NOTHING_STORED,
        tags: NeighbourTags | None = None,
        *,
        with_tags: bool = False,
    ) -> None:
        """Judge what ``encoder`` embeds.

        Args:
            encoder: the model.
            classes: whose classes to predict.
            stored: what the store knows of its classes.
            tags: the store's pictures; None without a store of this model's.
            with_tags: also return tags.
        """
        self._encoder = encoder
        self._classes = classes
        self._stored = stored
        self._tags = tags
        self._with_tags = with_tags

    def __call__(self, encoding: Encoding) -> list[tuple[Predicted, Tags]]:
        """The prediction and the tags of each picture of a batch."""
        probabilities, embeddings = encoding
        similarities = None
        tags: list[Tags] = [()] * len(embeddings)
        if self._tags is not None and (self._with_tags or self._stored.novelty is not None):
            similarities, ids = self._tags.nearest(embeddings)
            if self._with_tags:
                tags = self._tags.voted(ids)
        wanted = [self._classes] * len(embeddings)
        predicted = self._stored.predict(
            self._encoder, probabilities, embeddings, similarities, wanted
        )
        return list(zip(predicted, tags, strict=True))


class NeighbourTags:
    """Tags by vote of the nearest neighbours in a store: the words in their payload's `tags`."""

    def __init__(
        self, served: ServedIndex[PictureEncoder], catalogue: Catalogue, queries: int = 1
    ) -> None:
        """Use the index that ``served`` has loaded and its catalogue.

        For many ``queries`` against a large exact index, inverted lists are built first: a vote
        does not need every true neighbour.
        """
        self._served = served
        self._catalogue = catalogue
        self._lists: QuickLists | None = None
        self._many = queries >= MANY_QUERIES
        self._building = threading.Lock()
        self._known: dict[int, tuple[str, ...]] = {}

    def __call__(self, embeddings: NDArray[np.float32]) -> list[Tags]:
        """The tags of pictures with these embeddings, float32 ``(n, d)``."""
        return self.voted(self.nearest(embeddings).ids)

    def voted(self, ids: NDArray[np.int64]) -> list[Tags]:
        """The tags by vote of these stored pictures, int64 ``(n, k)``, -1 where there is none."""
        self._learn(ids)
        return [count([self._known[i] for i in row if i >= 0]) for row in ids.tolist()]

    def nearest(self, embeddings: NDArray[np.float32]) -> Neighbours:
        """The nearest stored pictures of embeddings float32 ``(n, d)``."""
        index = self._served.current().index
        with self._building:
            if self._many and self._lists is None:
                self._many = index.kind == "exact" and index.count() >= MANY_STORED
                self._lists = QuickLists(index) if self._many else None
        if self._lists is None:
            return index.search(embeddings, VOTERS, None)
        return self._lists.nearest(embeddings, VOTERS)

    def _learn(self, ids: NDArray[np.int64]) -> None:
        unknown = [i for i in np.unique(ids).tolist() if i >= 0 and i not in self._known]
        while unknown:
            try:
                entries = self._catalogue.get(unknown)
            except UnknownIdError as error:
                # Pictures deleted in between have no vote.
                self._known.update(dict.fromkeys(error.ids, ()))
                unknown = [i for i in unknown if i not in self._known]
                continue
            self._known.update({entry.id: words(entry.payload.get("tags")) for entry in entries})
            return


def tags_of(points: Sequence[Point]) -> Tags:
    """The tags by vote of the pictures that a search found."""
    return count([words(point.entry.payload.get("tags")) for point in points])


def words(value: object) -> tuple[str, ...]:
    """The tags in a payload value: a list of words or a single word; other values have none."""
    if isinstance(value, str):
        return (nfc(value),)
    if not isinstance(value, list):
        return ()
    return tuple(dict.fromkeys(nfc(word) for word in value if isinstance(word, str) and word))


def count(votes: Sequence[Sequence[str]]) -> Tags:
    """The tags that at least ``MIN_SHARE`` of the voters have, with their shares.

    Voters without tags count too: few tagged neighbours are little evidence.
    """
    counted = Counter(word for voter in votes for word in voter)
    shares = [(word, n / len(votes)) for word, n in counted.items()]
    kept = [(word, share) for word, share in shares if share >= MIN_SHARE]
    return tuple(sorted(kept, key=lambda pair: (-pair[1], pair[0])))
