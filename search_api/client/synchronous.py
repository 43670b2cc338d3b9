# Generated from asynchronous.py by `make client`; edit that file instead.
"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar, Unpack

import httpx2

from search_api import schemas
from search_api.client import calls
from search_api.client.calls import (
    Call,
    Direction,
    Filter,
    PageOptions,
    Payload,
    Picture,
    Retry,
    Strategy,
)
from search_api.client.errors import ProblemError, UnreachableError

T = TypeVar("T")


class Client:
    """A client of one server, with a method for each operation, named after its operation id.

    Use it as a context manager. Every method raises ``ProblemError`` if the server answers with
    an error, and ``UnreachableError`` if there is no answer or it is not from Lookalike.
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
        """A client of the server at ``url``; nothing is sent yet.

        Args:
            url: the server's address, such as ``http://127.0.0.1:8000``.
            api_key: sent with every request, or None.
            timeout: longest wait for the server, seconds.
            retry: when to resend a request that the server rejected for now.
            transport: replaces the network, for tests.
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

    def search(
        self,
        image: Picture,
        *,
        classes: schemas.Classes = "auto",
        **page: Unpack[PageOptions],
    ) -> schemas.SearchResponse:
        """Class and nearest neighbours of a picture; ``classes`` says whose classes."""
        return self._send(calls.search(image, classes, page))

    def search_batch(
        self,
        images: Sequence[Picture],
        *,
        classes: schemas.Classes = "auto",
        **page: Unpack[PageOptions],
    ) -> schemas.BatchResponse:
        """Class and nearest neighbours of each picture; an unusable one has an ``error``."""
        return self._send(calls.search_batch(images, classes, page))

    def classify(
        self,
        images: Sequence[Picture],
        *,
        tags: bool = False,
        classes: schemas.Classes = "auto",
    ) -> schemas.ClassifyResponse:
        """The class of each picture; an unusable one has an ``error``.

        With ``tags``, also the finer tags that the nearest stored pictures vote for.
        """
        return self._send(calls.classify(images, tags, classes))

    def recommend(
        self,
        positive: Sequence[int],
        negative: Sequence[int] = (),
        *,
        strategy: Strategy = "average_vector",
        **page: Unpack[PageOptions],
    ) -> schemas.Points:
        """Pictures similar to some stored ones and unlike others."""
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
        """Pictures similar to some uploaded or stored ones and unlike others."""
        return self._send(
            calls.recommend_images(
                positive_images, negative_images, positive, negative, strategy, page
            )
        )

    def similar(self, image_id: int, **page: Unpack[PageOptions]) -> schemas.Points:
        """The nearest neighbours of a stored picture."""
        return self._send(calls.similar(image_id, page))

    def list_images(
        self,
        *,
        limit: int = 100,
        after: int = -1,
        filter: Filter | None = None,
        order_by: str | None = None,
        direction: Direction | None = None,
        cursor: str | None = None,
    ) -> schemas.Images:
        """Stored pictures in ascending order of id, those above ``after``.

        Or sorted by the field ``order_by``, those after ``cursor``, the previous page's
        ``next_cursor``.
        """
        return self._send(calls.list_images(limit, after, filter, order_by, direction, cursor))

    def examples(self, per_class: int = 1) -> schemas.Examples:
        """Stored pictures to try a search with, ``per_class`` of each class."""
        return self._send(calls.examples(per_class))

    def get_image(self, image_id: int) -> schemas.StoredImage:
        """A stored picture's payload."""
        return self._send(calls.get_image(image_id))

    def get_image_file(self, image_id: int, *, size: int | None = None) -> bytes:
        """The picture itself, as PNG or JPEG; ``size`` limits its longer side, in pixels."""
        return self._send(calls.get_image_file(image_id, size))

    def index_info(self) -> schemas.IndexInfo:
        """What is indexed, and by which model."""
        return self._send(calls.index_info())

    def rebuild_index(self, *, reembed: bool = False, allow_removal: bool = False) -> schemas.Job:
        """Start bringing the index up to date; follow the job with ``get_job``.

        The job fails if more than a tenth of the corpus's pictures are gone, or all, unless
        ``allow_removal``.
        """
        return self._send(calls.rebuild_index(reembed, allow_removal))

    def classifier(self) -> schemas.ClassifierInfo:
        """The classifier fitted on the store's labels, or why there is none."""
        return self._send(calls.classifier())

    def fit_classifier(self) -> schemas.Job:
        """Start fitting the classifier on the present labels; follow the job with ``get_job``."""
        return self._send(calls.fit_classifier())

    def list_jobs(self, *, limit: int = 20) -> schemas.Jobs:
        """The latest jobs of all servers on the store, newest first."""
        return self._send(calls.list_jobs(limit))

    def get_job(self, job_id: str) -> schemas.Job:
        """A job's state and progress."""
        return self._send(calls.get_job(job_id))

    def add_images(
        self,
        images: Sequence[Picture],
        *,
        keys: Sequence[str] = (),
        payloads: Sequence[Payload] = (),
        replace: bool = False,
    ) -> schemas.AddResponse:
        """Embed and store pictures; one that cannot be stored has an ``error``.

        Args:
            images: the pictures.
            keys: your own name for each, or none.
            payloads: what to store with them: one for each, one for all, or none. Where a picture
                is stored already, it is merged into what is stored with that.
            replace: replace pictures that are stored under the same key with other content.
        """
        return self._send(calls.add_images(images, keys, payloads, replace))

    def change_image(
        self, image_id: int, payload: Payload, *, replace: bool = False
    ) -> schemas.StoredImage:
        """Merge ``payload`` into a stored picture's payload, or replace that."""
        return self._send(calls.change_image(image_id, payload, replace))

    def delete_image(self, image_id: int) -> schemas.DeletedResponse:
        """Delete a picture; ``restore_images`` can undo it for a while."""
        return self._send(calls.delete_image(image_id))

    def delete_images(
        self, ids: Sequence[int] | None = None, *, filter: Filter | None = None
    ) -> schemas.DeletedResponse:
        """Delete the pictures with these ids, or all that match ``filter``; give one of the two."""
        return self._send(calls.delete_images(ids, filter))

    def list_trash(self, *, limit: int = 100, after: int = -1) -> schemas.Trash:
        """Deleted pictures that can be restored, with ids above ``after``."""
        return self._send(calls.list_trash(limit, after))

    def restore_images(self, ids: Sequence[int] | None = None) -> schemas.RestoredImages:
        """Restore the deleted pictures with these ids or, without ids, those of the last delete."""
        return self._send(calls.restore_images(ids))

    def purge_trash(
        self, ids: Sequence[int] | None = None, *, all: bool = False
    ) -> schemas.PurgedImages:
        """Delete pictures in the trash for good: those with these ids, or ``all``."""
        if (ids is None) != all:
            raise ValueError("expected either ids or all=True, and not both")
        return self._send(calls.purge_trash(ids))

    def compact_index(self, *, kind: str | None = None) -> schemas.Job:
        """Start building a generation with all changes; ``kind`` sets its kind from now on."""
        return self._send(calls.compact_index(kind))

    def cancel_job(self, job_id: str) -> schemas.Job:
        """Cancel a job; follow it with ``get_job`` until it has stopped."""
        return self._send(calls.cancel_job(job_id))

    def create_snapshot(
        self, name: str | None = None, *, allow_missing: bool = False
    ) -> schemas.SnapshotMade:
        """Save everything indexed now; without a name, the snapshot is named after the time.

        Refused if bytes of added pictures are missing, unless ``allow_missing``.
        """
        return self._send(calls.create_snapshot(name, allow_missing))

    def list_snapshots(self) -> schemas.Snapshots:
        """All snapshots, sorted by name."""
        return self._send(calls.list_snapshots())

    def restore_snapshot(self, name: str, *, allow_missing: bool = False) -> schemas.Restored:
        """Replace everything indexed with the content of a snapshot.

        Refused if bytes of added pictures are missing, unless ``allow_missing``.
        """
        return self._send(calls.restore_snapshot(name, allow_missing))

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot; the index does not change."""
        self._send(calls.delete_snapshot(name))

    def list_models(self) -> schemas.Models:
        """The model in use and the other models in the store."""
        return self._send(calls.list_models())

    def embed_with_model(self, digest: str) -> schemas.Job:
        """Start embedding everything with another model; the current one stays in use."""
        return self._send(calls.embed_with_model(digest))

    def model_difference(
        self, digest: str, *, queries: int = 500, k: int = 10
    ) -> schemas.ModelDifference:
        """How much the neighbours of stored pictures would change with another model."""
        return self._send(calls.model_difference(digest, queries, k))

    def switch_model(self, digest: str) -> schemas.Job:
        """Start switching to another model."""
        return self._send(calls.switch_model(digest))

    def job_log(self, job_id: str, *, limit: int = 100, after: int = -1) -> schemas.JobLog:
        """The pictures that a job skipped, and why: entries numbered above ``after``."""
        return self._send(calls.job_log(job_id, limit, after))

    def job_events(self, job_id: str) -> Iterator[schemas.Job]:
        """The job, each time it changes, until it or the server stops.

        If the last one is not finished, the server is shutting down: continue with ``get_job``.
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
        """Whether the server process is alive."""
        return self._send(calls.health("/livez"))

    def readyz(self) -> schemas.Health:
        """Whether the server can answer searches."""
        return self._send(calls.health("/readyz"))

    def healthz(self) -> schemas.Health:
        """The same as ``readyz``."""
        return self._send(calls.health("/healthz"))

    def metrics(self) -> str:
        """The server's metrics, in the Prometheus text format."""
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
