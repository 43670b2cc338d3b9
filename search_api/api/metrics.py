"""Prometheus metrics of one app."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from search_api.jobs.model import Job
from search_api.jobs.watching import Synced
from search_api.service.storage.quotas import Amount

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Children(dict[str, Histogram]):
    """The children of a histogram with one label, by the label's value."""

    def __init__(self, parent: Histogram) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, value: str) -> Histogram:
        child = self[value] = self._parent.labels(value)
        return child


class Metrics:
    """Counters and histograms in their own registry, so that apps do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "lookalike_requests",
            "HTTP requests",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "lookalike_request_seconds",
            "Time to respond to an HTTP request",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests_running = Gauge(
            "lookalike_requests_running", "Requests in progress", registry=self.registry
        )
        self.request_bytes = Gauge(
            "lookalike_request_bytes",
            "Bytes of the bodies of requests in progress, in memory or spooled to disk",
            registry=self.registry,
        )
        self.unread_bytes = Gauge(
            "lookalike_unread_bytes",
            "Bytes of answers that clients have not read yet",
            registry=self.registry,
        )
        self.slow_readers = Counter(
            "lookalike_slow_readers",
            "Connections closed because the client did not read its answer",
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "lookalike_stage_seconds",
            "Time spent in one stage of a search: decode, queue, forward, search, payload",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # Looking up a child by its labels costs more than counting.
        self._of_requests: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._of_stages = _Children(self.stage_seconds)
        self.pictures = Gauge(
            "lookalike_index_pictures", "Pictures in the index", registry=self.registry
        )
        self.generation = Gauge(
            "lookalike_index_generation",
            "Number of the generation that serves",
            registry=self.registry,
        )
        self.pending = Gauge(
            "lookalike_index_pending",
            "Changes since the serving generation was built",
            registry=self.registry,
        )
        self.recall = Gauge(
            "lookalike_index_recall",
            "Share of the true 10 nearest that are found: built, for held-out queries; live, for a"
            " sample of searches",
            ("measured",),
            registry=self.registry,
        )
        self.storage = Gauge(
            "lookalike_storage",
            "Added pictures, trash and snapshots, by number and bytes, and the disk's free bytes:"
            " used, and the limit where there is one",
            ("what", "value"),
            registry=self.registry,
        )
        self.model = Info("lookalike_model", "The model that serves", registry=self.registry)
        self.classifier = Info(
            "lookalike_classifier",
            "Whose classes answer: the store's classifier, by its digest, or the network",
            registry=self.registry,
        )
        self.classifier_accuracy = Gauge(
            "lookalike_classifier_accuracy",
            "Cross-validated accuracy of the store's classifier; NaN without one",
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "lookalike_batch_size",
            "Pictures in one forward pass",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "lookalike_queue_depth", "Pictures waiting for a forward pass", registry=self.registry
        )
        self.queue_refused = Counter(
            "lookalike_queue_refused",
            "Requests refused because the queue was full",
            registry=self.registry,
        )
        self.jobs = Counter(
            "lookalike_jobs",
            "Jobs that have ended, by state",
            ("kind", "state"),
            registry=self.registry,
        )
        self.jobs_running = Gauge(
            "lookalike_jobs_running", "Jobs in progress", ("kind",), registry=self.registry
        )

        self.synced_at = Gauge(
            "lookalike_sync_timestamp_seconds",
            "When the server last followed its corpus, in seconds since 1970; 0 before the first",
            registry=self.registry,
        )
        self.synced = Counter(
            "lookalike_synced_pictures",
            "Pictures by what following the corpus did to them",
            ("what",),
            registry=self.registry,
        )

    def observe_request(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count one HTTP request."""
        count, time = self._of_requests.get((method, route, status)) or self._of_request(
            method, route, status
        )
        count.inc()
        time.observe(seconds)

    def _of_request(self, method: str, route: str, status: str) -> tuple[Counter, Histogram]:
        found = (
            self.requests.labels(method, route, status),
            self.request_seconds.labels(method, route),
        )
        self._of_requests[method, route, status] = found
        return found

    def observe_batch(self, size: int, waiting: int) -> None:
        """Count one batch and record how many pictures are still waiting."""
        self.batch_size.observe(size)
        self.queue_depth.set(waiting)

    def observe_job(self, job: Job) -> None:
        """Count a job that has started or ended."""
        if job.finished is None:
            self.jobs_running.labels(job.kind).inc()
        else:
            self.jobs_running.labels(job.kind).dec()
            self.jobs.labels(job.kind, job.state).inc()

    def observe_sync(self, synced: Synced) -> None:
        """Count what following the corpus has done."""
        self.synced_at.set(synced.ended)
        for what in ("embedded", "changed", "moved", "removed", "skipped", "unreachable"):
            self.synced.labels(what).inc(synced.counts.get(what, 0))

    def observe_stages(self, milliseconds: dict[str, float]) -> None:
        """Count the stages of one response."""
        for stage, value in milliseconds.items():
            if stage != "total":
                self._of_stages[stage].observe(value / 1000)

    def observe_storage(self, amounts: Mapping[str, Amount]) -> None:
        """Set what is used of each quota."""
        for what, amount in amounts.items():
            self.storage.labels(what, "used").set(amount.used)
            if amount.limit:
                self.storage.labels(what, "limit").set(amount.limit)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
