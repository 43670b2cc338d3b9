"""Search responses as JSON, in the shape of `search_api.schemas`.

The schemas document responses and validate what clients receive. Encoding a response through their
models would take several times as long as assembling it here, where a picture that was in an
earlier response is copied from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from index.records import Entry
from search_api import schemas
from search_api.service.results import Point, Prediction, SearchResult

# Compact, and unescaped UTF-8: a payload contains no lone surrogates.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_text = lru_cache(maxsize=1024)(_encode)
"""Of class names and digests, which are the same in every response."""
_number = float.__repr__
"""As JSON writes it; every number here is finite."""


class ResponseEncoder:
    """Encodes responses; safe to use from several threads."""

    def __init__(self, longest_cursor: int, max_cached: int) -> None:
        """An encoder with an empty cache.

        Args:
            longest_cursor: omit cursors of more characters.
            max_cached: how many encoded pictures to keep.
        """
        self._longest_cursor = longest_cursor
        self._max_cached = max_cached
        # While an entry is the same object, nothing in it has changed: see EntryCache.
        self._written: dict[int, tuple[Entry, str]] = {}

    def stored(self, entry: Entry, stamp: Mapping[str, Any]) -> bytes:
        """As `schemas.StoredImage`; ``stamp`` names the current model and generation."""
        return f"{{{self._image(entry)},{_encode(stamp)[1:-1]}}}".encode()

    def points(self, result: SearchResult) -> bytes:
        """As `schemas.Points`."""
        return f"{{{self._members(result)}}}".encode()

    def search(self, result: SearchResult) -> bytes:
        """As `schemas.SearchResponse`, for the result of an uploaded picture."""
        return self._search(result).encode()

    def batch(self, found: Iterable[tuple[str | None, SearchResult | schemas.ItemError]]) -> bytes:
        """As `schemas.BatchResponse`, from each picture's file name and its result or error."""
        results = []
        for filename, outcome in found:
            if isinstance(outcome, SearchResult):
                rest = f'"result":{self._search(outcome)},"error":null'
            else:
                rest = f'"result":null,"error":{_encode(outcome.model_dump())}'
            results.append(f'{{"filename":{json.dumps(filename)},{rest}}}')
        return f'{{"results":[{",".join(results)}]}}'.encode()

    def _search(self, result: SearchResult) -> str:
        both = result.predictions
        predicted = {
            "prediction": _prediction(result.prediction),
            "predictions": both
            and {"store": _prediction(both.store), "network": _prediction(both.network)},
        }
        return f"{{{self._members(result)},{_encode(predicted)[1:-1]}}}"

    def _members(self, result: SearchResult) -> str:
        groups = "null"
        if result.groups is not None:
            shown = [
                f'{{"value":{_encode(group.value)},"points":{self._points(group.points)}}}'
                for group in result.groups
            ]
            groups = f"[{','.join(shown)}]"
        cursor = result.cursor_text(self._longest_cursor)
        # Of letters, digits, "-" and "_" only.
        following = "null" if cursor is None else f'"{cursor}"'
        vote = "null"
        if result.vote:
            vote = f'{{"class":{_text(result.vote[0])},"share":{_number(result.vote[1])}}}'
        spent = ",".join([f'"{step}":{_number(ms)}' for step, ms in result.time.items()])
        return (
            f'"points":{self._points(result.points)},"groups":{groups},'
            f'"next_cursor":{following},"vote":{vote},'
            f'"model":{_text(result.model)},"generation":{result.generation},'
            f'"sequence":{result.sequence},"time":{{{spent}}}'
        )

    def _points(self, points: Sequence[Point]) -> str:
        shown = [f'{{{self._image(p.entry)},"score":{p.score!r}}}' for p in points]
        return f"[{','.join(shown)}]"

    def _image(self, entry: Entry) -> str:
        written = self._written.get(entry.id)
        if written is not None and written[0] is entry:
            return written[1]
        payload = schemas.payload(entry.label, entry.split, entry.source, entry.payload)
        members = {"id": entry.id, "payload": payload, "image_url": schemas.image_url(entry.id)}
        text = _encode(members)[1:-1]
        if self._max_cached:
            excess = max(len(self._written) + 1 - self._max_cached, 0)
            for id_ in list(islice(self._written, excess)):
                self._written.pop(id_, None)
            self._written[entry.id] = (entry, text)
        return text


def _prediction(prediction: Prediction | None) -> dict[str, Any] | None:
    if prediction is None:
        return None
    return {
        "class": prediction.label,
        "confidence": prediction.confidence,
        "nearest_class": prediction.nearest_class,
        "grade": prediction.grade,
        "source": prediction.source,
        "probabilities": prediction.probabilities,
    }
