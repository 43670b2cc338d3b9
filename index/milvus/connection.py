"""Calls to Milvus, each with a deadline, and their errors in the words of this package.

What Milvus does not say is said here: a collection that is not loaded after a restart is loaded and
asked again, and one that is gone is told apart from a Milvus that does not answer.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from index.database import CatalogueError
from index.neighbours import IndexInputError, Vectors
from index.stores import StateGoneError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

WINDOW = 16_384
"""Most rows that Milvus gives in one answer."""

_READ_SECONDS = 20.0
_WRITE_SECONDS = 30.0
_PATIENCE_SECONDS = 10.0
_BUILD_SECONDS = 600.0
_LOOK_SECONDS = 3.0
_PAUSE_SECONDS = 0.25
_REST_SECONDS = 1.0

_NOT_FOUND = 100
_NOT_LOADED = 101
_NO_ALIAS = (_NOT_FOUND, 1600)
_LOADED_LATER = (
    1,  # a part of the server is not ready yet
    2,  # the same in newer versions
    103,  # loaded in part
    106,  # loading again after a restart
    *range(500, 506),  # a shard has moved
    *range(901, 906),  # a node has gone
)
Answer = TypeVar("Answer")
Row = Mapping[str, Any]


class MilvusUnavailableError(CatalogueError):
    """Milvus does not answer, or answers that it cannot now; later it may."""


# milvus-lite writes all aliases to one file under one temporary name, whoever changes one.
_lite_aliases = threading.Lock()


@dataclass(frozen=True)
class MilvusSettings:
    """Where the store is.

    Attributes:
        uri: ``http://host:19530``, ``https://…``, or a file ending in ``.db`` for milvus-lite.
        token: ``user:password`` or an API key; empty for none. Never shown.
        prefix: beginning of the names of the store's collections and aliases.
        flush: acknowledge a write only once Milvus has it in its storage, not in its log alone.
    """

    uri: str
    token: str = field(default="", repr=False)
    prefix: str = "lookalike"
    flush: bool = True

    def __post_init__(self) -> None:
        if not self.uri.strip():
            raise IndexInputError(
                "the address of Milvus is empty; set MILVUS_URI, for example http://127.0.0.1:19530"
            )
        if not (self.prefix.isascii() and self.prefix.isidentifier() and len(self.prefix) <= 64):
            raise IndexInputError(
                f"the prefix is {self.prefix!r}; expected 1 to 64 letters, digits and underscores,"
                " a letter first"
            )


class Connection:
    """One client of one Milvus; all methods may be called from several threads.

    Raises MilvusUnavailableError from every method where Milvus cannot answer, StateGoneError where
    the collection does not exist (any more).
    """

    def __init__(self, settings: MilvusSettings, connect_seconds: float = _READ_SECONDS) -> None:
        """Connect, within so many seconds.

        Raises:
            IndexInputError: `pymilvus` is not installed.
            MilvusUnavailableError: nothing answers there.
        """
        self.settings = settings
        pymilvus = _imported()
        # Every error is raised, and said where it is known what it means.
        for name in ("pymilvus", "milvus_lite"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._error: type[Exception] = pymilvus.MilvusException
        self._down: tuple[float, str] | None = None
        self.shaken = threading.Event()
        """Set when Milvus was away, or has started anew, since somebody last cleared it."""
        self._loading = threading.Lock()
        local = settings.uri.endswith(".db")
        self._alone: AbstractContextManager[object] = _lite_aliases if local else nullcontext()
        try:
            self._client: MilvusClient = pymilvus.MilvusClient(
                uri=settings.uri, token=settings.token, timeout=connect_seconds
            )
        except Exception as error:
            raise MilvusUnavailableError(self._says(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # Collections

    def create(self, name: str, fields: Sequence[Mapping[str, Any]]) -> None:
        """Make a collection; ``fields`` are the arguments of pymilvus's ``add_field``."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for field_ in fields:
            words = dict(field_)
            for word in ("datatype", "element_type"):
                if word in words:
                    words[word] = DataType[words[word]]
            schema.add_field(**words)
        self._call(
            lambda: self._client.create_collection(
                name, schema=schema, consistency_level="Strong", timeout=_WRITE_SECONDS
            )
        )

    def index(self, name: str, index_type: str, params: Mapping[str, Any]) -> None:
        """Index the field ``vector`` by inner product, and load the collection."""
        wanted = self._client.prepare_index_params()
        wanted.add_index("vector", index_type=index_type, metric_type="IP", params=dict(params))
        self._call(lambda: self._client.create_index(name, wanted, timeout=_BUILD_SECONDS))
        self.load(name)

    def load(self, name: str) -> None:
        """Have the collection in Milvus's memory; searches wait for it."""
        with self._loading:
            self._call(lambda: self._client.load_collection(name, timeout=_BUILD_SECONDS))

    def usable(self, name: str) -> bool:
        """Whether the collection answers now. If it is not loaded, it will be."""
        try:
            self._call(
                lambda: self._client.query(
                    name,
                    filter="sequence < 0",
                    output_fields=["sequence"],
                    limit=1,
                    consistency_level="Strong",
                    timeout=_LOOK_SECONDS,
                )
            )
        except StateGoneError:
            return False
        except MilvusUnavailableError as error:
            if _code(error.__cause__) == _NOT_LOADED:
                self._want(name)
            return False
        return True

    def release(self, name: str) -> None:
        """Take the collection out of Milvus's memory; it stays on its disk."""
        self._call(lambda: self._client.release_collection(name, timeout=_WRITE_SECONDS))

    def drop(self, name: str) -> None:
        """Delete a collection, if it is there."""
        self._call(lambda: self._client.drop_collection(name, timeout=_WRITE_SECONDS))

    def collections(self) -> list[str]:
        """The store's collections, by name."""
        names = self._call(lambda: self._client.list_collections(timeout=_READ_SECONDS))
        return sorted(name for name in names if name.startswith(self.settings.prefix + "_"))

    def flush(self, name: str) -> None:
        """Have everything that was written in Milvus's storage."""
        self._call(lambda: self._client.flush(name, timeout=_BUILD_SECONDS))

    def version(self) -> str:
        """The version that Milvus says it has."""
        return str(self._call(lambda: self._client.get_server_version(timeout=_LOOK_SECONDS)))

    # Aliases: the one thing in Milvus that is changed atomically, and made only if it is not there

    def aliased(self, alias: str) -> str | None:
        """The collection that an alias stands for; None if there is no such alias."""

        def look() -> str | None:
            try:
                found = self._client.describe_alias(alias, timeout=_LOOK_SECONDS)
            except self._error as error:
                if _code(error) in _NO_ALIAS:
                    return None
                raise
            return str(found["collection_name"])

        return self._call(look)

    def claim(self, alias: str, name: str) -> bool:
        """Make an alias; False if there is one of that name already."""

        def make() -> bool:
            try:
                with self._alone:
                    self._client.create_alias(name, alias, timeout=_LOOK_SECONDS)
            except self._error as error:
                if "already exist" in str(error):
                    return False
                raise
            return True

        return self._call(make)

    def point(self, alias: str, name: str) -> None:
        """Let an alias, made if needed, stand for another collection, atomically."""
        if not self.claim(alias, name):
            with self._alone:
                self._call(lambda: self._client.alter_alias(name, alias, timeout=_WRITE_SECONDS))

    def unclaim(self, alias: str) -> None:
        """Remove an alias, if it is there."""
        with self._alone:
            self._call(lambda: self._client.drop_alias(alias, timeout=_WRITE_SECONDS))

    # Rows

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Store rows, each in the place of one with the same primary key."""
        if rows:
            self._on(name, lambda: self._client.upsert(name, list(rows), timeout=_WRITE_SECONDS))

    def delete(self, name: str, keys: Sequence[int] | Sequence[str]) -> None:
        """Delete by primary key; those that are not there are ignored.

        How many there were is not said: a server counts keys that never existed, milvus-lite gives
        a list or a dict.
        """
        if keys:
            self._on(
                name, lambda: self._client.delete(name, ids=list(keys), timeout=_WRITE_SECONDS)
            )

    def query(self, name: str, where: str, fields: Sequence[str], limit: int) -> list[Row]:
        """At most ``limit``, 1..WINDOW, of the rows that match, in any order.

        Every write that was acknowledged before is seen.
        """
        return self._on(
            name,
            lambda: list(
                self._client.query(
                    name,
                    filter=where,
                    output_fields=list(fields),
                    limit=limit,
                    consistency_level="Strong",
                    timeout=_READ_SECONDS,
                )
            ),
        )

    def count(self, name: str, where: str = "") -> int:
        """How many rows match, as of now."""
        found = self._on(
            name,
            lambda: self._client.query(
                name,
                filter=where,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=_READ_SECONDS,
            ),
        )
        return int(found[0]["count(*)"])

    def search(
        self,
        name: str,
        xq: Vectors,
        limit: int,
        where: str,
        fields: Sequence[str],
        params: Mapping[str, Any],
    ) -> list[list[Row]]:
        """The nearest ``limit``, 1..WINDOW, of each query, with these fields of each.

        ``xq`` must be float32 (nq, d), finite and of the collection's dimension: Milvus answers
        other queries with nothing, or with anything.
        """
        found = self._on(
            name,
            lambda: self._client.search(
                name,
                data=list(xq),
                filter=where,
                limit=limit,
                output_fields=list(fields),
                search_params={"metric_type": "IP", "params": dict(params)},
                consistency_level="Strong",
                timeout=_READ_SECONDS,
            ),
        )
        return [[hit["entity"] for hit in hits] for hits in found]

    # Errors

    def _on(self, name: str, ask: Callable[[], Answer]) -> Answer:
        """Ask a collection, which is loaded first where it is not."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._call(ask)
            except MilvusUnavailableError as error:
                code = _code(error.__cause__)
                if code == _NOT_LOADED:
                    self._want(name)
                elif code not in _LOADED_LATER:
                    raise
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _want(self, name: str) -> None:
        """Have the collection loaded some time; after a restart Milvus is about to as a rule."""
        with suppress(MilvusUnavailableError, StateGoneError):
            self._call(
                lambda: self._client.load_collection(name, timeout=_LOOK_SECONDS, _async=True)
            )

    def _call(self, ask: Callable[[], Answer]) -> Answer:
        down = self._down
        if down is not None and time.monotonic() < down[0]:
            # Somebody has waited for the deadline just now: the others need not.
            raise MilvusUnavailableError(down[1])
        try:
            answer = ask()
        except Exception as error:
            if _code(error) == _NOT_FOUND:
                raise StateGoneError(str(error)) from error
            message = self._says(error)
            if not isinstance(error, self._error) or not isinstance(_code(error), int):
                self._down = (time.monotonic() + _REST_SECONDS, message)
                self.shaken.set()
            elif _code(error) == _NOT_LOADED:
                self.shaken.set()
            raise MilvusUnavailableError(message) from error
        self._down = None
        return answer

    def _says(self, error: Exception) -> str:
        words = " ".join(str(error).split())[:300]
        return f"Milvus at {_shown(self.settings.uri)} cannot answer: {words}"


def _imported() -> Any:
    """The client's package.

    While it is imported it reads MILVUS_URI by itself, and refuses a file there.
    """
    uri = os.environ.pop("MILVUS_URI", None)
    try:
        import pymilvus
    except ImportError as error:
        raise IndexInputError(
            f"the index is kept in Milvus, and its client is missing ({error}); install it"
            " with: pip install 'lookalike[milvus]'"
        ) from error
    finally:
        if uri is not None:
            os.environ["MILVUS_URI"] = uri
    return pymilvus


def _code(error: BaseException | None) -> object:
    """Milvus's own number of an error, or gRPC's status where Milvus was not reached."""
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def _shown(uri: str) -> str:
    """The address without a password that may stand in it."""
    scheme, found, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else uri
