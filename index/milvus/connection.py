"""Calls to Milvus, each with a timeout, with errors translated into those of the contract.

A collection that is not loaded, as after a restart, is loaded and the call repeated. A collection
that no longer exists is told apart from a Milvus that does not respond.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from index.contract import CatalogueError, IndexInputError, StateGoneError, Vectors
from index.milvus.settings import MilvusSettings

if TYPE_CHECKING:
    from pymilvus import MilvusClient

WINDOW = 16_384
"""Maximum number of rows that Milvus returns at once."""

_READ_SECONDS = 20.0
_WRITE_SECONDS = 30.0
_RETRY_SECONDS = 10.0
_BUILD_SECONDS = 600.0
_PROBE_SECONDS = 3.0
_PAUSE_SECONDS = 0.25
_BACKOFF_SECONDS = 1.0

_SHORTEST_SECRET = 5
"""Characters; shorter ones are also part of ordinary words."""
_NOT_FOUND = 100
_NOT_LOADED = 101
_NO_ALIAS = (_NOT_FOUND, 1600)
_TRANSIENT = (
    1,  # part of the server is not ready yet
    2,  # the same in newer versions
    103,  # partially loaded
    106,  # reloading after a restart
    *range(500, 506),  # a shard has moved
    *range(901, 906),  # a node is gone
)
Result = TypeVar("Result")
Row = Mapping[str, Any]


class MilvusUnavailableError(CatalogueError):
    """Milvus does not respond, or reports that it cannot serve now; retrying later may succeed."""


# milvus-lite writes all aliases to one file, through one temporary name for all writers.
_lite_aliases = threading.Lock()


class Connection:
    """One client of one Milvus; thread-safe.

    Every method may raise MilvusUnavailableError, and StateGoneError if the collection does not
    exist.
    """

    def __init__(self, settings: MilvusSettings, connect_seconds: float = _READ_SECONDS) -> None:
        """Connect within ``connect_seconds``.

        Raises:
            IndexInputError: `pymilvus` is not installed.
            MilvusUnavailableError: Milvus does not respond.
        """
        self.settings = settings
        pymilvus = _import_pymilvus()
        # Every error is also raised, and reported where its meaning is known.
        for name in ("pymilvus", "milvus_lite"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._error: type[Exception] = pymilvus.MilvusException
        self._down: tuple[float, str] | None = None
        self.disrupted = threading.Event()
        """Set when Milvus was unreachable or has restarted; cleared by whoever handles it."""
        self._loading = threading.Lock()
        local = settings.uri.endswith(".db")
        self._alias_lock: AbstractContextManager[object] = _lite_aliases if local else nullcontext()
        try:
            self._client: MilvusClient = pymilvus.MilvusClient(
                uri=settings.uri, token=settings.token, timeout=connect_seconds
            )
        except Exception as error:
            raise MilvusUnavailableError(self._message(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # Collections

    def create(self, name: str, fields: Sequence[Mapping[str, Any]]) -> None:
        """Create a collection; ``fields`` are the arguments of pymilvus's ``add_field``."""
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
        """Load the collection into Milvus's memory, and wait until it can be searched."""
        with self._loading:
            self._call(lambda: self._client.load_collection(name, timeout=_BUILD_SECONDS))

    def usable(self, name: str) -> bool:
        """Whether the collection can be read now. If it is not loaded, loading is requested."""
        try:
            self._call(
                lambda: self._client.query(
                    name,
                    filter="sequence < 0",
                    output_fields=["sequence"],
                    limit=1,
                    consistency_level="Strong",
                    timeout=_PROBE_SECONDS,
                )
            )
        except StateGoneError:
            return False
        except MilvusUnavailableError as error:
            if _code(error.__cause__) == _NOT_LOADED:
                self._request_load(name)
            return False
        return True

    def release(self, name: str) -> None:
        """Unload the collection from Milvus's memory; it stays in storage."""
        self._call(lambda: self._client.release_collection(name, timeout=_WRITE_SECONDS))

    def drop(self, name: str) -> None:
        """Delete a collection, if it exists."""
        self._call(lambda: self._client.drop_collection(name, timeout=_WRITE_SECONDS))

    def collections(self) -> list[str]:
        """The names of the store's collections, sorted."""
        names = self._call(lambda: self._client.list_collections(timeout=_READ_SECONDS))
        return sorted(name for name in names if name.startswith(self.settings.prefix + "_"))

    def flush(self, name: str) -> None:
        """Persist everything that was written to Milvus's storage."""
        self._call(lambda: self._client.flush(name, timeout=_BUILD_SECONDS))

    def version(self) -> str:
        """The version of Milvus."""
        return str(self._call(lambda: self._client.get_server_version(timeout=_PROBE_SECONDS)))

    # Aliases: the only thing in Milvus that can be changed, or created if absent, atomically

    def alias_target(self, alias: str) -> str | None:
        """The collection that the alias points to; None if there is no such alias."""

        def look() -> str | None:
            try:
                found = self._client.describe_alias(alias, timeout=_PROBE_SECONDS)
            except self._error as error:
                if _code(error) in _NO_ALIAS:
                    return None
                raise
            return str(found["collection_name"])

        return self._call(look)

    def create_alias(self, alias: str, name: str) -> bool:
        """Create an alias; False if it already exists."""

        def make() -> bool:
            try:
                with self._alias_lock:
                    self._client.create_alias(name, alias, timeout=_PROBE_SECONDS)
            except self._error as error:
                if "already exist" in str(error):
                    return False
                raise
            return True

        return self._call(make)

    def set_alias(self, alias: str, name: str) -> None:
        """Point the alias, created if needed, to another collection, atomically."""
        if not self.create_alias(alias, name):
            with self._alias_lock:
                self._call(lambda: self._client.alter_alias(name, alias, timeout=_WRITE_SECONDS))

    def drop_alias(self, alias: str) -> None:
        """Delete an alias, if it exists."""
        with self._alias_lock:
            self._call(lambda: self._client.drop_alias(alias, timeout=_WRITE_SECONDS))

    # Rows

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Store rows, replacing those with the same primary key."""
        if rows:
            self._on(name, lambda: self._client.upsert(name, list(rows), timeout=_WRITE_SECONDS))

    def delete(self, name: str, keys: Sequence[int] | Sequence[str]) -> None:
        """Delete by primary key; unknown keys are ignored.

        Returns no count: a server counts keys that never existed, milvus-lite returns a list or a
        dict.
        """
        if keys:
            self._on(
                name, lambda: self._client.delete(name, ids=list(keys), timeout=_WRITE_SECONDS)
            )

    def query(self, name: str, where: str, fields: Sequence[str], limit: int) -> list[Row]:
        """At most ``limit``, 1..WINDOW, of the rows that match, in any order.

        Sees every write acknowledged before the call.
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
        """How many rows match now."""
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
        """The ``limit``, 1..WINDOW, nearest to each query, with these fields.

        ``xq`` must be float32 (nq, d), finite and of the collection's dimension: for other queries
        Milvus returns nothing or anything.
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

    def _on(self, name: str, call: Callable[[], Result]) -> Result:
        """Call Milvus on a collection, loading it first if needed."""
        until = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                return self._call(call)
            except MilvusUnavailableError as error:
                code = _code(error.__cause__)
                if code == _NOT_LOADED:
                    self._request_load(name)
                elif code not in _TRANSIENT:
                    raise
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _request_load(self, name: str) -> None:
        """Request that the collection be loaded; after a restart Milvus usually does so itself."""
        with suppress(MilvusUnavailableError, StateGoneError):
            self._call(
                lambda: self._client.load_collection(name, timeout=_PROBE_SECONDS, _async=True)
            )

    def _call(self, call: Callable[[], Result]) -> Result:
        down = self._down
        if down is not None and time.monotonic() < down[0]:
            # Another caller has just waited for the timeout: fail at once.
            raise MilvusUnavailableError(down[1])
        try:
            result = call()
        except Exception as error:
            if _code(error) == _NOT_FOUND:
                raise StateGoneError(str(error)) from error
            message = self._message(error)
            if not isinstance(error, self._error) or not isinstance(_code(error), int):
                self._down = (time.monotonic() + _BACKOFF_SECONDS, message)
                self.disrupted.set()
            elif _code(error) == _NOT_LOADED:
                self.disrupted.set()
            raise MilvusUnavailableError(message) from error
        self._down = None
        return result

    def _message(self, error: Exception) -> str:
        uri = without_password(self.settings.uri)
        words = " ".join(str(error).split()).replace(self.settings.uri, uri)
        for secret in {*self.settings.token.split(":", 1), str(self.settings.token)}:
            if len(secret) >= _SHORTEST_SECRET:
                words = words.replace(secret, "***")
        words = words[:300]
        return f"Milvus at {uri} is not available: {words}"


def _import_pymilvus() -> Any:
    """The client package. On import it reads MILVUS_URI, and fails if that is a file."""
    uri = os.environ.pop("MILVUS_URI", None)
    try:
        import pymilvus
    except ImportError as error:
        raise IndexInputError(
            f"the store is in Milvus, but the Milvus client is not installed ({error}); install it"
            " with: pip install 'lookalike[milvus]'"
        ) from error
    finally:
        if uri is not None:
            os.environ["MILVUS_URI"] = uri
    return pymilvus


def _code(error: BaseException | None) -> object:
    """Milvus's error code, or gRPC's status if Milvus was not reached."""
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def without_password(uri: str) -> str:
    """The address without the user and password that it may contain."""
    scheme, found, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else uri
