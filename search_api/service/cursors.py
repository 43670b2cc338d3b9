"""Cursors: where a page of a ranking ended, as text that a caller sends back for the next page.

A cursor holds the last score and id, so that pictures added or deleted in between cause neither
repeats nor gaps. It also holds the embeddings of uploaded examples: computed again in another
batch, they could differ in their last bits and change the order of near ties.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.contract import IndexInputError, Vectors
from index.payload import check_number, check_text
from index.ranking.resume import RankPosition
from index.records import Scalar
from index.sorting import SortPosition

_VERSION = 1
_LIST_VERSION = "list 1"
_SAME = 0.99
_LARGEST = 2.0
_INT64 = 1 << 63


class CursorError(IndexInputError):
    """A cursor cannot be read, or belongs to another request."""


class CursorModelError(Exception):
    """A cursor was made with another model than the one in use now."""


@dataclass(frozen=True, eq=False)
class Cursor:
    """Where a page ended in the ranking of one request.

    Attributes:
        position: the last point shown, or the nearest point of the last group.
        seen: how many points, or groups, the ranking has up to there.
        groups: the values of all groups shown so far, in any order; None without groups.
        model: digest of the model that made the embeddings.
        request: fingerprint of the request; see `search_api.service.page.fingerprint`.
        vectors: embeddings of the uploaded examples, float32 ``(n, d)``; n is 0 without any.
    """

    position: RankPosition
    seen: int
    groups: tuple[Scalar, ...] | None
    model: str
    request: str
    vectors: Vectors

    def text(self) -> str:
        """The cursor as URL-safe text: letters, digits, ``-`` and ``_``."""
        groups = "null" if self.groups is None else json.dumps(self.groups, ensure_ascii=False)
        rows, width = self.vectors.shape
        # Of a search's response this is a large part, so it is not left to `json`.
        head = (
            f'{{"v":{_VERSION},"score":{self.position.score!r},"id":{self.position.id},'
            f'"seen":{self.seen},"groups":{groups},"model":{json.dumps(self.model)},'
            f'"request":"{self.request}","shape":[{rows},{width}]}}\n'
        )
        data = head.encode() + self.vectors.astype("<f4", copy=False).tobytes()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    def check(self, request: str, model: str, vectors: Vectors) -> None:
        """Check that the cursor belongs to a request.

        Args:
            request: fingerprint of the request that came with the cursor.
            model: digest of the model in use.
            vectors: embeddings float32 ``(n, d)`` of the examples uploaded with the request.

        Raises:
            CursorError: it belongs to another request.
            CursorModelError: it was made with another model.
        """
        if self.model != model:
            raise CursorModelError(
                f"the cursor was made with the model {self.model[:80]}, but {model} is in use now;"
                " start again without a cursor"
            )
        same = self.request == request and self.vectors.shape == vectors.shape
        if not same or ((self.vectors * vectors).sum(axis=1) < _SAME).any():
            raise CursorError(
                "the cursor belongs to another request; send the same pictures, ids, strategy,"
                " filter and grouping with it, or start again without a cursor"
            )


@dataclass(frozen=True)
class ListCursor:
    """Where a page of a sorted listing ended, and the fingerprint of its request."""

    position: SortPosition
    request: str

    def text(self) -> str:
        """The cursor as URL-safe text: letters, digits, ``-`` and ``_``."""
        words = [_LIST_VERSION, *self.position, self.request]
        data = json.dumps(words, ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    def check(self, request: str) -> None:
        """Raise CursorError if the cursor belongs to another request."""
        if self.request != request:
            raise CursorError(
                "the cursor belongs to another listing; send the same filter, order_by and"
                " direction with it, or start again without a cursor"
            )


def parse_list_cursor(text: str) -> ListCursor:
    """Parse what `ListCursor.text` wrote; the text is untrusted.

    Raises:
        CursorError: it is not a cursor of a listing.
    """
    try:
        version, value, id_, request = json.loads(_decoded(text))
        if version != _LIST_VERSION:
            raise ValueError(f"version {version!r}, expected {_LIST_VERSION}")
        if isinstance(value, str):
            check_text(value, "its value")
        elif isinstance(value, int | float):
            check_number(value, "its value")
        elif value is not None:
            raise ValueError("its value is neither text, a number nor a boolean")
        if not isinstance(request, str):
            raise ValueError("its request is not text")
        return ListCursor(SortPosition(value, _whole(id_)), request)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(text, error) from error


def parse_cursor(text: str) -> Cursor:
    """Parse what `Cursor.text` wrote; the text is untrusted.

    Raises:
        CursorError: it is not a cursor.
    """
    try:
        head, _, body = _decoded(text).partition(b"\n")
        fields = json.loads(head)
        if fields["v"] != _VERSION:
            raise ValueError(f"version {fields['v']!r}, expected {_VERSION}")
        rows, width = (_whole(n) for n in fields["shape"])
        vectors: NDArray[np.float32] = np.frombuffer(body, "<f4").astype(np.float32)
        vectors = vectors.reshape(rows, width)
        score = float(fields["score"])
        if not (np.isfinite(vectors).all() and abs(score) <= _LARGEST):
            raise ValueError("a number is not finite or too large")
        groups = fields["groups"]
        if groups is not None:
            if not all(isinstance(value, bool | int | float | str) for value in groups):
                raise ValueError("a group is not a string, number or boolean")
            groups = tuple(groups)
        model, request = fields["model"], fields["request"]
        if not (isinstance(model, str) and isinstance(request, str)):
            raise ValueError("model or request is not text")
        return Cursor(
            RankPosition(score, _whole(fields["id"])),
            _whole(fields["seen"]),
            groups,
            model,
            request,
            vectors,
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise _unreadable(text, error) from error


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _unreadable(text: str, error: Exception) -> CursorError:
    return CursorError(
        f"the cursor of {len(text):,} characters cannot be read ({error}); send the previous"
        " page's `next_cursor` unchanged, or start again without a cursor"
    )


def _whole(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _INT64:
        raise ValueError(f"{str(number)[:40]!r} is not a whole number from 0 to 2**63 - 1")
    return number
