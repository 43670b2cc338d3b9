"""Cursors: where a page of a ranking ended, as text that a caller sends back to go on.

A cursor holds the last score and id, so that pictures which are added or deleted meanwhile neither
repeat nor hide what was there. It also holds the embeddings of uploaded examples: computed again,
in another batch, they can differ in their last bits, and with them the order of near ties.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.continuation import Place
from index.neighbours import IndexInputError, Vectors
from index.payload import Scalar

if TYPE_CHECKING:
    from search_api.results import Page

_VERSION = 1
_SAME = 0.99
_LARGEST = 2.0
_INT64 = 1 << 63


class CursorError(IndexInputError):
    """A cursor cannot be read, or belongs to another request."""


class CursorModelError(Exception):
    """A cursor was made under another model than the one that answers now."""


@dataclass(frozen=True, eq=False)
class Cursor:
    """A place in the ranking of one request.

    Attributes:
        place: the last point that was shown, or the nearest one of the last group.
        seen: how many points come up to there.
        groups: the values of all groups up to there, in any order; None without groups.
        model: digest of the model that made the embeddings.
        request: what identifies the request; see ``fingerprint``.
        vectors: embeddings of the uploaded examples, float32 ``(n, d)``; n is 0 without any.
    """

    place: Place
    seen: int
    groups: tuple[Scalar, ...] | None
    model: str
    request: str
    vectors: Vectors

    def text(self) -> str:
        """The cursor in letters, digits, ``-`` and ``_``."""
        head = {
            "v": _VERSION,
            "score": self.place.score,
            "id": self.place.id,
            "seen": self.seen,
            "groups": self.groups,
            "model": self.model,
            "request": self.request,
            "shape": self.vectors.shape,
        }
        data = json.dumps(head, ensure_ascii=False).encode() + b"\n"
        data += self.vectors.astype("<f4").tobytes()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    def check(self, request: str, model: str, vectors: Vectors) -> None:
        """Refuse to go on with another request.

        Args:
            request: the fingerprint of the request that brought the cursor.
            model: the digest of the model that answers now.
            vectors: embeddings float32 ``(n, d)`` of the examples uploaded with it.

        Raises:
            CursorError: it was made by another request.
            CursorModelError: it was made under another model.
        """
        if self.model != model:
            raise CursorModelError(
                f"the cursor was made under the model {self.model[:80]}, now {model} answers;"
                " begin again without a cursor"
            )
        same = self.request == request and self.vectors.shape == vectors.shape
        if not same or ((self.vectors * vectors).sum(axis=1) < _SAME).any():
            raise CursorError(
                "the cursor belongs to another request; send the same pictures, ids, strategy,"
                " filter and grouping with it, or begin without a cursor"
            )


def parse_cursor(text: str) -> Cursor:
    """The cursor that ``Cursor.text`` wrote; callers may send anything.

    Raises:
        CursorError: it is not such a text.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        head, _, body = data.partition(b"\n")
        fields = json.loads(head)
        if fields["v"] != _VERSION:
            raise ValueError(f"version {fields['v']!r}, expected {_VERSION}")
        rows, width = (_whole(n) for n in fields["shape"])
        vectors: NDArray[np.float32] = np.frombuffer(body, "<f4").astype(np.float32)
        vectors = vectors.reshape(rows, width)
        score = float(fields["score"])
        if not (np.isfinite(vectors).all() and abs(score) <= _LARGEST):
            raise ValueError("a number is not finite")
        groups = fields["groups"]
        if groups is not None:
            if not all(isinstance(value, bool | int | float | str) for value in groups):
                raise ValueError("a group is not a value")
            groups = tuple(groups)
        model, request = fields["model"], fields["request"]
        if not (isinstance(model, str) and isinstance(request, str)):
            raise ValueError("model or request is not text")
        return Cursor(
            Place(score, _whole(fields["id"])),
            _whole(fields["seen"]),
            groups,
            model,
            request,
            vectors,
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise CursorError(
            f"the cursor of {len(text):,} characters cannot be read ({error}); send `next_cursor`"
            " of the page before as it was, or begin without a cursor"
        ) from error


def fingerprint(query: object, page: Page) -> str:
    """What must stay the same from page to page: the query and all that shapes its ranking.

    ``query`` describes the examples and must have a stable ``repr``. ``limit`` and
    ``score_threshold`` may differ: they only say where to end.
    """
    words = repr((query, page.filter, page.group_by))
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _whole(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _INT64:
        raise ValueError(f"{str(number)[:40]!r} is not a whole number from 0 to 2**63 - 1")
    return number
