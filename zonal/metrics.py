"""Prometheus metrics of a run, made of its events alone and served over HTTP.

Knows events and Prometheus' names; knows no run. What is shown is only what is told:
numbers, a state and a year.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from zonal.errors import UsageError
from zonal.events import RUN_ID, Event, Notify

if TYPE_CHECKING:
    from prometheus_client import Metric

LABELS = ("state", "year")

PLANNED = {
    "units": "Units of the plan.",
    "parts": "Parts of the plan.",
    "zones": "Zones to summarise.",
    "chunks": "Chunks that zones touch.",
    "bytes": "Bytes of these chunks in their files.",
}
"""Gauges ``zonal_NAME``: what there is to do, by the name that progress has for it."""

DONE = {
    "units_done": ("units", "Units that ended well, or that no part waits for."),
    "parts_done": ("parts", "Parts that are written, by this run or an earlier one."),
    "zones_done": ("zones", "Zones of these parts."),
    "chunks_done": ("chunks", "Chunks of the units that are done."),
    "fetched_bytes": ("fetched", "Bytes of chunks that this run got from the store."),
    "retries": ("retries", "Requests to the store that were sent again."),
    "units_failed": ("failed", "Units that failed, each time."),
}
"""Counters ``zonal_NAME_total``: what is done, and what progress calls it."""


class Metrics:
    """Listens to events, and is a collector of Prometheus' client: the last figures told, whenever asked."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._warnings = Counter[tuple[str, str]]()
        self._stages: dict[tuple[str, str, str], float] = {}

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        values = event.values
        labels = str(values.get("state", "")), str(values.get("year", ""))
        if event.kind == "progress":
            self._figures[labels] = {**values, "fetched": values["bytes"] - values["cached"]}
            self._warnings[labels] += 0  # Prometheus sees no increase from nothing to one
        elif event.kind == "stage":
            self._stages[*labels, values["stage"]] = values["seconds"]
        elif event.kind == "warning":
            self._warnings[labels] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; called by the server's threads."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily(
            "zonal", "Version of zonal, and the id of this run.", {"version": version("zonal"), "run": RUN_ID}
        )
        figures = dict(self._figures)
        for name, text in PLANNED.items():
            gauge = GaugeMetricFamily(f"zonal_{name}", text, labels=LABELS)
            for labels, values in figures.items():
                if values["totals"][name] is not None:
                    gauge.add_metric(labels, values["totals"][name])
            yield gauge
        for name, (key, text) in DONE.items():
            counter = CounterMetricFamily(f"zonal_{name}", text, labels=LABELS)
            for labels, values in figures.items():
                counter.add_metric(labels, values[key])
            yield counter
        warnings = CounterMetricFamily("zonal_warnings", "Warnings that were shown.", labels=LABELS)
        for labels, count in dict(self._warnings).items():
            warnings.add_metric(labels, count)
        yield warnings
        stages = GaugeMetricFamily(
            "zonal_stage_seconds", "How long a stage that has ended took.", labels=(*LABELS, "stage")
        )
        for where, seconds in dict(self._stages).items():
            stages.add_metric(where, seconds)
        yield stages


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who asks and hangs up is no concern of the run."""


@contextlib.contextmanager
def metered(place: str | None, notify: Notify) -> Iterator[Notify]:
    """Give what tells events to `notify` and, while the `with` lasts, to whoever asks for metrics.

    Parameters
    ----------
    place : str or None
        ``host:port`` to listen on, port 0 for any free one; None for nowhere.
    notify : callable
        Also told where that is.

    Raises
    ------
    UsageError
        If nothing can listen there.
    """
    if place is None:
        yield notify
        return
    from prometheus_client import CollectorRegistry, MetricsHandler

    metrics = Metrics()
    registry = CollectorRegistry()
    registry.register(metrics)
    host, _, port = place.rpartition(":")
    try:
        server = _Server((host, int(port)), MetricsHandler.factory(registry))
    except OSError as error:
        raise UsageError(f"metrics {place}: cannot listen there: {error.strerror}; choose another") from None

    def both(event: Event) -> None:
        notify(event)
        metrics(event)

    with server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.05,), name="zonal-metrics", daemon=True
        )
        thread.start()
        try:
            both(Event("info", f"metrics: http://{host}:{server.server_port}/metrics"))
            yield both
        finally:
            server.shutdown()
