"""How an instance is set up: places, address, keys, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from embed.pictures import PictureLimits
from index.filters import FilterBounds
from search_api.access import Access

Number = TypeVar("Number", int, float)


def _limit(default: Number, help_: str) -> Number:
    """A limit with its default and the words that `--help` shows for its option."""
    value: Number = field(default=default, metadata={"help": help_})
    return value


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost.

    Each field but ``picture`` is also an option of `lookalike up` and `serve` and an environment
    variable (``max_images``: ``--max-images``, ``LOOKALIKE_MAX_IMAGES``), made from its metadata;
    those of ``picture`` are ``LOOKALIKE_MAX_PICTURE_BYTES``, ``_PIXELS`` and ``_SCANS``.
    """

    picture: PictureLimits = field(default_factory=PictureLimits)
    max_body_bytes: int = _limit(64 * 2**20, "Largest request with pictures, bytes.")
    max_json_bytes: int = _limit(2**20, "Largest request of any other kind, bytes.")
    max_images: int = _limit(256, "Most pictures in one request.")
    max_form_fields: int = _limit(64, "Most text fields in one form.")
    max_form_field_bytes: int = _limit(64 * 2**10, "Largest text field of a form, bytes.")
    max_limit: int = _limit(1000, "Largest `limit` of a search.")
    max_offset: int = _limit(10_000, "Largest `offset` of a search.")
    max_examples: int = _limit(100, "Most positive, and most negative, examples to recommend by.")
    max_candidates: int = _limit(2000, "Most `candidates` that `diversity` chooses from.")
    max_filter_chars: int = _limit(16_384, "Longest `filter` in an address, characters.")
    max_filter_depth: int = _limit(5, "Most filters inside each other.")
    max_filter_conditions: int = _limit(256, "Most conditions in a filter; SQLite takes some 900.")
    max_filter_values: int = _limit(16_384, "Most values and ids in a filter.")
    max_cursor_chars: int = _limit(16_384, "Longest `cursor`, characters.")
    max_batch_points: int = _limit(20_000, "Most points that one batch of searches may ask for.")
    max_per_class: int = _limit(10, "Largest `per_class` of the examples.")
    max_side: int = _limit(4096, "Largest `size` of a picture that is shown, pixels.")
    max_sample: int = _limit(48, "Most stored pictures shown to try a search with.")
    max_delete_ids: int = _limit(100_000, "Most ids to delete in one request.")
    max_batch: int = _limit(64, "Most pictures in one forward pass.")
    max_waiting: int = _limit(256, "Pictures that may wait for theirs; more are answered 429.")
    max_cached_entries: int = _limit(20_000, "Pictures whose labels and payloads stay in memory.")
    max_cached_selections: int = _limit(
        16, "Filters, and groupings, whose pictures stay in memory."
    )
    fold_least: int = _limit(2_000, "Changes below which the index is never rebuilt by itself.")
    fold_share: float = _limit(0.05, "Changes, as a share of the index, at which it is rebuilt.")
    max_requests: int = _limit(1000, "Most requests at a time; more are answered 503.")
    max_streams: int = _limit(32, "Most clients that follow jobs at a time; more are answered 503.")
    header_seconds: float = _limit(10.0, "Longest time for the head of a request, seconds.")
    body_seconds: float = _limit(60.0, "Longest time for the body of a request, seconds.")
    body_idle_seconds: float = _limit(10.0, "Longest pause within the body, seconds.")

    @property
    def filter_bounds(self) -> FilterBounds:
        """Of filters in requests."""
        return FilterBounds(
            self.max_filter_depth, self.max_filter_conditions, self.max_filter_values
        )


ENGINES = ("faiss", "milvus")


@dataclass(frozen=True)
class Milvus:
    """Where Milvus is; see `index.milvus.connection.MilvusSettings`."""

    uri: str
    token: str = field(default="", repr=False)
    prefix: str = "lookalike"
    flush: bool = True


@dataclass(frozen=True)
class Place:
    """What keeps the store.

    Attributes:
        milvus: where Milvus is, or None for FAISS and SQLite in the store's folder.
        pictures: folder or address of added pictures, or None for a folder in the store's.
    """

    milvus: Milvus | None = None
    pictures: str | None = None

    @property
    def of_one_process(self) -> bool:
        """Whether only one process at a time can open it: a file of milvus-lite."""
        return self.milvus is not None and "://" not in self.milvus.uri


@dataclass(frozen=True)
class Shutdown:
    """How the service ends after SIGTERM.

    Attributes:
        drain_seconds: how long new connections are still served, while /readyz says no; a load
            balancer needs this long to look away.
        grace_seconds: when the process is gone, at the latest, counted from the signal.
    """

    drain_seconds: float = 1.0
    grace_seconds: float = 25.0


@dataclass(frozen=True)
class Settings:
    """One instance of the service.

    Attributes:
        data: corpus root, or None to look for CIFAR-10.
        var: folder of the catalogue and the index.
        bundle: folder of the trained model, or None for the one that ships.
        host: address to listen on.
        port: TCP port to listen on.
        access: keys and origins.
        limits: what requests may cost.
        shutdown: how the service ends.
        log_format: ``json``, ``text``, or None for text on a terminal and JSON elsewhere.
    """

    data: Path | None = None
    var: Path = Path("var")
    bundle: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    shutdown: Shutdown = field(default_factory=Shutdown)
    log_format: str | None = None
