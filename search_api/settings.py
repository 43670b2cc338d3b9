"""Settings of one instance of the service: its store, address, keys and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from embed.folders.options import FolderOptions
from embed.pictures import PictureLimits
from index.contract import MAX_K
from index.filters import FilterBounds
from index.milvus.settings import MilvusSettings
from index.records import PayloadBounds
from search_api.keys import Access

Number = TypeVar("Number", int, float)


def _limit(default: Number, help_: str, old_name: str = "", *, least: int = 1) -> Number:
    """A limit: its default, help text, the name it had if it was renamed, and its least value."""
    metadata = {"help": help_, "old_name": old_name, "least": least}
    value: Number = field(default=default, metadata=metadata)
    return value


@dataclass(frozen=True)
class Quotas:
    """Bounds on what a store keeps; those of a server also apply to the commands that write.

    Options and variables like those of `Limits`, which includes them.
    """

    max_added_pictures: int = _limit(
        0, "Maximum number of added pictures in the store; 0 for no limit.", least=0
    )
    max_added_bytes: int = _limit(
        0, "Maximum size of the added pictures in the store, in bytes; 0 for no limit.", least=0
    )
    max_snapshots: int = _limit(0, "Maximum number of snapshots; 0 for no limit.", least=0)
    max_snapshot_bytes: int = _limit(
        0, "Maximum size of all snapshots, in bytes; 0 for no limit.", least=0
    )
    min_free_bytes: int = _limit(
        2**30,
        "Free space on the store's disk, in bytes, below which nothing is written but deletions; 0"
        " for none.",
        least=0,
    )
    min_free_share: float = _limit(
        0.05,
        "The same as a share of the disk, which counts where it is less.",
        least=0,
    )

    trash_days: float = _limit(
        30.0,
        "How long deleted pictures stay in the trash, in days; 0 deletes for good at once.",
        least=0,
    )
    max_trash_pictures: int = _limit(
        0,
        "Maximum number of pictures in the trash, beyond which the oldest are deleted for good;"
        " 0 for no limit.",
        least=0,
    )
    max_trash_bytes: int = _limit(
        0,
        "Maximum size of the added pictures in the trash, in bytes, beyond which the oldest are"
        " deleted for good; 0 for no limit.",
        least=0,
    )
    max_payload_bytes: int = _limit(
        64 * 2**10, "Maximum size of the payload stored with a picture, as JSON, in bytes."
    )
    max_payload_keys: int = _limit(512, "Maximum number of keys in the payload of a picture.")
    max_tags: int = _limit(256, "Maximum number of `tags` in the payload of a picture.")

    @property
    def payload_bounds(self) -> PayloadBounds:
        """The bounds on what is stored with a picture."""
        return PayloadBounds(self.max_payload_bytes, self.max_payload_keys, self.max_tags)


@dataclass(frozen=True)
class Limits(Quotas):
    """Bounds on the size of a request and on the load of the service.

    Each field is also an option of `lookalike up` and `lookalike serve` and an environment variable
    (``max_images``: ``--max-images``, ``LOOKALIKE_MAX_IMAGES``); those of ``picture`` are
    ``--max-picture-bytes`` and so on. `search_api.cli.instance` builds them.
    """

    picture: PictureLimits = field(default_factory=PictureLimits)
    max_body_bytes: int = _limit(
        64 * 2**20, "Maximum size of a request that carries pictures, in bytes."
    )
    max_json_bytes: int = _limit(2**20, "Maximum size of any other request, in bytes.")
    max_images: int = _limit(256, "Maximum number of pictures in a request.")
    max_form_fields: int = _limit(
        64, "Maximum number of text fields in a form, on top of four for each of `max_images`."
    )
    max_form_field_bytes: int = _limit(
        256 * 2**10, "Maximum size of a text field in a form, in bytes."
    )
    max_limit: int = _limit(1000, "Maximum `limit` of a search.")
    max_offset: int = _limit(10_000, "Maximum `offset` of a search.")
    max_examples: int = _limit(
        100, "Maximum number of positive, and of negative, examples in a recommendation."
    )
    max_candidates: int = _limit(2000, "Maximum number of `candidates` for `diversity`.")
    max_filter_chars: int = _limit(16_384, "Maximum length of a `filter` in a URL, in characters.")
    max_filter_depth: int = _limit(5, "Maximum nesting depth of a filter.")
    max_filter_conditions: int = _limit(
        256, "Maximum number of conditions in a filter; SQLite allows about 900."
    )
    max_filter_values: int = _limit(16_384, "Maximum number of values and ids in a filter.")
    max_filter_text: int = _limit(1000, "Maximum length of a `text` in a filter, in characters.")
    max_filter_words: int = _limit(256, "Maximum number of words in all `text` of a filter.")
    filter_seconds: float = _limit(
        5.0, "Maximum time that evaluating a filter may take, in seconds; beyond it, 422."
    )
    max_filter_scans: int = _limit(
        2,
        "Maximum number of filters evaluated at once; others wait for up to `filter_seconds` and"
        " then get 503.",
    )
    max_cursor_chars: int = _limit(16_384, "Maximum length of a `cursor`, in characters.")
    max_batch_points: int = _limit(
        20_000, "Maximum number of points that a batch of searches may request."
    )
    max_per_class: int = _limit(10, "Maximum `per_class` of the example pictures.")
    max_side: int = _limit(4096, "Maximum `size` of a displayed picture, in pixels.")
    max_sample: int = _limit(48, "Maximum number of stored pictures offered as example queries.")
    max_delete_ids: int = _limit(100_000, "Maximum number of ids in a delete request.")
    max_batch: int = _limit(64, "Maximum number of pictures in one forward pass.")
    max_waiting: int = _limit(
        256, "Maximum number of pictures waiting for a forward pass; beyond it, requests get 429."
    )
    warm_seconds: float = _limit(
        0.0,
        "For how long after a search the server keeps the network and the index warm, by ten"
        " searches a second of its own, in seconds; 0 for not at all.",
        least=0,
    )
    max_cached_entries: int = _limit(
        20_000, "Number of pictures whose labels and payloads are kept in memory."
    )
    max_cached_selections: int = _limit(
        16, "Number of filters and groupings whose matches are kept in memory."
    )
    compact_min_changes: int = _limit(
        2_000,
        "Minimum number of changes before the index is compacted automatically.",
        "fold_least",
    )
    compact_share: float = _limit(
        0.05,
        "Share of the index that must have changed before it is compacted automatically.",
        "fold_share",
    )
    job_memory_share: float = _limit(
        0.75, "Share of the machine's memory that a job may allocate; beyond it, the job fails."
    )
    max_requests: int = _limit(
        1000, "Maximum number of concurrent requests; beyond it, requests get 503."
    )
    max_connections: int = _limit(
        4000,
        "Maximum number of connections, and at most half of the open files that the system allows;"
        " further ones are closed.",
    )
    max_bytes_in_flight: int = _limit(
        512 * 2**20,
        "Maximum size of the bodies of all requests in progress, in memory or spooled to disk, in"
        " bytes; beyond it, requests get 503.",
    )
    max_unread_bytes: int = _limit(
        256 * 2**20,
        "Maximum size of all answers that clients have not read yet, in bytes; beyond it, the"
        " connection that has waited longest is closed.",
    )
    max_streams: int = _limit(
        32, "Maximum number of clients that follow jobs; beyond it, requests get 503."
    )
    header_seconds: float = _limit(
        10.0, "Time limit for receiving the headers of a request, in seconds."
    )
    body_seconds: float = _limit(
        60.0, "Time limit for receiving the body of a request, in seconds."
    )
    body_idle_seconds: float = _limit(10.0, "Maximum pause while receiving a body, in seconds.")
    send_seconds: float = _limit(
        60.0, "Time within which a client must have read what it was sent, in seconds."
    )

    @property
    def quotas(self) -> Quotas:
        """These limits without those on requests and load."""
        return Quotas(**{field.name: getattr(self, field.name) for field in fields(Quotas)})

    @property
    def form_fields(self) -> int:
        """The number of text fields that a form may have: a key, a payload and so on a picture."""
        return 4 * self.max_images + self.max_form_fields

    def check(self) -> None:
        """Raise ValueError, naming both, for two limits that contradict each other."""
        for lower, upper, why in (
            ("max_images", "max_waiting", "so many pictures could never be searched at once"),
            ("max_batch", "max_waiting", "so large a forward pass would never happen"),
            ("max_limit", "max_batch_points", "one search could exceed what a batch may request"),
            ("max_payload_bytes", "max_form_field_bytes", "no form could carry it"),
            ("max_payload_bytes", "max_json_bytes", "no request could change it"),
            ("max_form_field_bytes", "max_body_bytes", "no request could carry it"),
            ("max_body_bytes", "max_bytes_in_flight", "no such request could be received"),
            ("max_json_bytes", "max_bytes_in_flight", "no such request could be received"),
            ("max_streams", "max_requests", "so many clients could never follow jobs"),
            ("body_idle_seconds", "body_seconds", "a pause would end the request before"),
        ):
            _in_order(lower, getattr(self, lower), upper, getattr(self, upper), why)
        size = self.picture.max_bytes
        why = "no request could carry such a picture"
        _in_order("max_picture_bytes", size, "max_body_bytes", self.max_body_bytes, why)
        points = self.max_offset + self.max_limit
        _in_order(
            "max_offset plus max_limit", points, "what an index returns", MAX_K, "it is fixed"
        )
        found = self.max_candidates
        _in_order("max_candidates", found, "what an index returns", MAX_K, "it is fixed")

    @property
    def filter_bounds(self) -> FilterBounds:
        """The bounds on a filter in a request."""
        return FilterBounds(
            self.max_filter_depth,
            self.max_filter_conditions,
            self.max_filter_values,
            self.max_filter_text,
            self.max_filter_words,
        )


def _in_order(lower: str, least: float, upper: str, most: float, why: str) -> None:
    if least > most:
        raise ValueError(
            f"{lower} is {least:,} and more than {upper}, which is {most:,}: {why}; lower the first"
            " or raise the second"
        )


ENGINES = ("faiss", "milvus")


@dataclass(frozen=True)
class StoreLocation:
    """Where a store is.

    Attributes:
        var: local folder with the catalogue and the index; with Milvus, only jobs and models.
        milvus: connection to Milvus, or None for SQLite and FAISS in ``var``.
        pictures: folder or URL for added pictures, or None for a folder in ``var``.
    """

    var: Path = Path("var")
    milvus: MilvusSettings | None = None
    pictures: str | None = None

    @property
    def single_process(self) -> bool:
        """Whether only one process at a time can open the store: it is a milvus-lite file."""
        return self.milvus is not None and "://" not in self.milvus.uri

    def to_dict(self) -> dict[str, Any]:
        """The location as JSON values, including the Milvus token; see `from_dict`."""
        return {**asdict(self), "var": str(self.var)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> StoreLocation:
        """The location that `to_dict` wrote."""
        milvus = values["milvus"]
        return StoreLocation(
            Path(values["var"]),
            None if milvus is None else MilvusSettings(**milvus),
            values["pictures"],
        )


@dataclass(frozen=True)
class Shutdown:
    """How the service stops after SIGTERM.

    Attributes:
        drain_seconds: how long to keep accepting connections while /readyz reports 503, so that
            load balancers notice.
        grace_seconds: how long after the signal the process exits at the latest.
    """

    drain_seconds: float = 1.0
    grace_seconds: float = 25.0


@dataclass(frozen=True)
class Settings:
    """One instance of the service.

    Attributes:
        data: the corpus, or None for the store's own; for a new store, CIFAR-10.
        store: where the store is.
        bundle: folder of the trained model, or None for the store's model or the shipped one.
        host: address to listen on.
        port: TCP port to listen on.
        access: API keys and allowed origins.
        limits: bounds on requests and load.
        shutdown: how the service stops.
        watch: follow the corpus while serving: ``auto``, or ``poll`` without the system's help;
            empty to leave it alone.
        allow_removal: a build may remove more than a tenth of the corpus's pictures.
        log_format: ``json``, ``text``, or None for text on a terminal and JSON otherwise.
        folder_options: how a corpus that is a folder or a table is read.
    """

    data: Path | None = None
    store: StoreLocation = field(default_factory=StoreLocation)
    bundle: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    shutdown: Shutdown = field(default_factory=Shutdown)
    log_format: str | None = None
    watch: Literal["", "auto", "poll"] = ""
    allow_removal: bool = False
    folder_options: FolderOptions = field(default_factory=FolderOptions)
