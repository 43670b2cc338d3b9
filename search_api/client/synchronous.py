"""The sync client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar, Unpack

import httpx2

from search_api import schemas, schemas_writes
from search_api.client import calls, writes
from search_api.client.calls import Call, Filter, PageOptions, Picture, Retry, Strategy
from search_api.client.errors import ProblemError, UnreachableError
from search_api.client.writes import Payload

T = TypeVar("T")


class Client:
    """Asks one server; a method an operation, named as its operation id. Use it as a context.

    Every method raises ``ProblemError`` where the server refuses and ``UnreachableError`` where
    nothing, or nothing sensible, answers.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retry: Retry = Retry(),
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """A client of the server at ``url``, such as ``http://127.0.0.1:8000``.

        Args:
            url: where the server listens.
            api_key: sent with every request.
            timeout: longest wait for the server, seconds.
            retry: when to ask again what was refused for now.
            transport: instead of the network, for tests.
        """
        self.url = url.rstrip("/")
        self._retry = retry
        self._http = httpx2.Client(
            base_url=self.url, headers=calls.headers(api_key), timeout=timeout, transport=transport
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(self, image: Picture, **page: Unpack[PageOptions]) -> schemas.SearchResponse:
        """Class and nearest neighbours of a picture."""
        return self._send(calls.search(image, page))

    def search_batch(
        self, images: Sequence[Picture], **page: Unpack[PageOptions]
    ) -> schemas.BatchResponse:
        """Class and nearest neighbours of each picture; a bad one has its own ``error``."""
        return self._send(calls.search_batch(images, page))

    def classify(
        self, images: Sequence[Picture], *, tags: bool = False
    ) -> schemas.ClassifyResponse:
        """Classes of several pictures; a bad one has its own ``error``.

        With ``tags`` also the finer tags that the nearest stored pictures vote for.
        """
        return self._send(calls.classify(images, tags))

    def recommend(
        self,
        positive: Sequence[int],
        negative: Sequence[int] = (),
        *,
        strategy: Strategy = "average_vector",
        **page: Unpack[PageOptions],
    ) -> schemas.Points:
        """Pictures like some stored ones and unlike others."""
        return self._send(calls.recommend(positive, negative, strategy, page))

    def recommend_images(
        self,
        positive_images: Sequence[Picture] = (),
        negative_images: Sequence[Picture] = (),
        *,
        positive: Sequence[int] = (),
        negative: Sequence[int] = (),
        strategy: Strategy = "average_vector",
        **page: Unpack[PageOptions],
    ) -> schemas.Points:
        """Pictures like some uploaded or stored ones and unlike others."""
        return self._send(
            calls.recommend_images(
                positive_images, negative_images, positive, negative, strategy, page
            )
        )

    def similar(self, image_id: int, **page: Unpack[PageOptions]) -> schemas.Points:
        """Nearest neighbours of a stored picture."""
        return self._send(calls.similar(image_id, page))

    def list_images(
        self, *, limit: int = 100, after: int = -1, filter: Filter | None = None
    ) -> schemas.Images:
        """Stored pictures by ascending id, above ``after``."""
        return self._send(calls.list_images(limit, after, filter))

    def examples(self, per_class: int = 1) -> schemas.Examples:
        """Stored pictures to try a search with."""
        return self._send(calls.examples(per_class))

    def get_image(self, image_id: int) -> schemas.StoredImage:
        """What is stored about a picture."""
        return self._send(calls.get_image(image_id))

    def get_image_file(self, image_id: int, *, size: int | None = None) -> bytes:
        """The picture itself, PNG or JPEG; ``size`` is its longest side in pixels."""
        return self._send(calls.get_image_file(image_id, size))

    def index_info(self) -> schemas.IndexInfo:
        """What is indexed, and by which model."""
        return self._send(calls.index_info())

    def rebuild_index(self, *, reembed: bool = False) -> schemas.Job:
        """Start to bring the index up to date; follow it with ``get_job``."""
        return self._send(calls.rebuild_index(reembed))

    def list_jobs(self, *, limit: int = 20) -> schemas.Jobs:
        """The last jobs of every server on the store, the newest first."""
        return self._send(calls.list_jobs(limit))

    def get_job(self, job_id: str) -> schemas.Job:
        """How far a job is."""
        return self._send(calls.get_job(job_id))

    def add_images(
        self,
        images: Sequence[Picture],
        *,
        keys: Sequence[str] = (),
        payloads: Sequence[Payload] = (),
    ) -> schemas_writes.AddResponse:
        """Store and embed pictures; a bad one has its own ``error``.

        Args:
            images: the pictures.
            keys: your own name for each, or none; adding a key again replaces its picture.
            payloads: what to store with each, or one for all, or none.
        """
        return self._send(writes.add_images(images, keys, payloads))

    def change_image(
        self, image_id: int, payload: Payload, *, replace: bool = False
    ) -> schemas.StoredImage:
        """Merge ``payload`` into what is stored with a picture, or put it in its place."""
        return self._send(writes.change_image(image_id, payload, replace))

    def delete_image(self, image_id: int) -> schemas_writes.DeletedResponse:
        """Delete a picture, at once and for good."""
        return self._send(writes.delete_image(image_id))

    def delete_images(
        self, ids: Sequence[int] | None = None, *, filter: Filter | None = None
    ) -> schemas_writes.DeletedResponse:
        """Delete the pictures of these ids, or all that match ``filter``; either of the two."""
        return self._send(writes.delete_images(ids, filter))

    def compact_index(self, *, kind: str | None = None) -> schemas.Job:
        """Start to fold what was added and deleted into a new index; ``kind`` from now on."""
        return self._send(writes.compact_index(kind))

    def cancel_job(self, job_id: str) -> schemas.Job:
        """Ask a job to stop; follow it with ``get_job``."""
        return self._send(writes.cancel_job(job_id))

    def create_snapshot(self, name: str | None = None) -> schemas_writes.SnapshotMade:
        """Keep what is indexed now; without a name it is called after the time."""
        return self._send(writes.create_snapshot(name))

    def list_snapshots(self) -> schemas_writes.Snapshots:
        """All snapshots, by name."""
        return self._send(writes.list_snapshots())

    def restore_snapshot(self, name: str) -> schemas_writes.Restored:
        """Put what a snapshot holds in the place of what is indexed."""
        return self._send(writes.restore_snapshot(name))

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot; what is indexed stays."""
        self._send(writes.delete_snapshot(name))

    def list_models(self) -> schemas_writes.Models:
        """The model that serves and those beside it."""
        return self._send(writes.list_models())

    def embed_with_model(self, digest: str) -> schemas.Job:
        """Start to embed everything with another model, beside the present one."""
        return self._send(writes.embed_with_model(digest))

    def model_difference(
        self, digest: str, *, queries: int = 500, k: int = 10
    ) -> schemas_writes.ModelDifference:
        """How much the neighbours of stored pictures would change with another model."""
        return self._send(writes.model_difference(digest, queries, k))

    def switch_model(self, digest: str) -> schemas.Job:
        """Start to go over to another model."""
        return self._send(writes.switch_model(digest))

    def job_log(self, job_id: str, *, limit: int = 100, after: int = -1) -> schemas.JobLog:
        """What a job left out, and why: entries numbered above ``after``."""
        return self._send(calls.job_log(job_id, limit, after))

    def job_events(self, job_id: str) -> Iterator[schemas.Job]:
        """The job, whenever it changes, until it ends or the server does.

        The last one is not finished where the server is about to end: ask ``get_job`` then.
        """
        path = calls.job_events(job_id)
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise ProblemError.of(response)
                for line in response.iter_lines():
                    job = calls.job_event(line, self.url + path)
                    if job is not None:
                        yield job
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise UnreachableError(self.url, str(error) or type(error).__name__) from error

    def livez(self) -> schemas.Health:
        """Whether the server's process is alive."""
        return self._send(calls.health("/livez"))

    def readyz(self) -> schemas.Health:
        """Whether the server can answer searches."""
        return self._send(calls.health("/readyz"))

    def healthz(self) -> schemas.Health:
        """The same as ``readyz``."""
        return self._send(calls.health("/healthz"))

    def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return self._send(calls.metrics())

    def _send(self, call: Call[T]) -> T:
        tried = 0
        while True:
            try:
                response = self._http.request(call.method, call.path, **call.options)
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                raise UnreachableError(self.url, str(error) or type(error).__name__) from error
            if response.is_success:
                return call.read(response)
            wait = self._retry.wait(response, tried)
            if wait is None:
                raise ProblemError.of(response)
            time.sleep(wait)
            tried += 1
