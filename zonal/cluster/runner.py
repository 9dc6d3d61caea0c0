"""Who runs a graph: the workers of a Dask client, or threads of this process.

Knows Dask clients, and when one's scheduler or workers are gone; knows neither where they
come from nor what the tasks are. All give the same values.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zonal.errors import StoreError, ZonalError

PATIENCE = 300.0
"""Seconds that a cluster without workers is waited for, unless told otherwise."""


class KilledError(StoreError):
    """A task ended each worker that took it, one after the other; `key` is the task's."""

    def __init__(self, key: Any, workers: int) -> None:
        super().__init__(f"task {key} ended {workers} workers, one after the other")
        self.key = key
        self.workers = workers


class Runner(Protocol):
    """Runs a graph and yields (key, value) as values come in."""

    @property
    def described(self) -> str:
        """Where the tasks run, for the screen."""

    @property
    def threads(self) -> int:
        """How many tasks run at once, now."""

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        """Run the tasks, not on the workers to avoid if there are others; raise a task's own error."""

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call a function once on every worker: its name -> value, or the error that it raised."""


@dataclass(frozen=True)
class Threads:
    """Threads of this very process (Dask's threaded scheduler), for notebooks and small jobs."""

    threads: int

    @property
    def described(self) -> str:
        """Where the tasks run."""
        return f"{self.threads} threads of this process"

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        """Run all, then yield all."""
        import dask.threaded

        values = dask.threaded.get(graph, list(keys), num_workers=self.threads)
        yield from zip(keys, values, strict=True)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call it here."""
        return {"this process": function(*arguments)}


@dataclass(frozen=True)
class Distributed:
    """A Dask client, wherever its workers are; `patience` is how long to wait for some when all are gone."""

    client: Any
    address: str = ""
    patience: float = PATIENCE

    @property
    def described(self) -> str:
        """Workers, threads and the dashboard's address."""
        with self.reached():
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        threads = sum(worker["nthreads"] for worker in workers)
        return f"Dask workers: {len(workers)}, threads: {threads}, dashboard: {self.client.dashboard_link}"

    @property
    def threads(self) -> int:
        """Of all workers."""
        with self.reached():
            return sum(self.client.nthreads().values())

    def count(self) -> int:
        """How many workers there are."""
        with self.reached():
            return len(self.client.nthreads())

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        """Yield each value as soon as it is there."""
        import dask
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        # The headers of a country's tiles are 100 MB, and Dask would have much to say about that.
        quiet = dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})
        with self.reached(), quiet:
            others = sorted({*self.client.nthreads()} - {*avoid}) if avoid else []
            # Not only preferred: an idle worker would steal what it should be spared.
            futures = self.client.get(graph, list(keys), sync=False, workers=others or None)
        names = dict(zip((future.key for future in futures), keys, strict=True))
        done = as_completed(futures, with_results=True, loop=self.client.loop)
        try:
            while not done.is_empty():
                with self.reached():
                    # Dask's own wait would go on for ever where the scheduler or all workers went away.
                    watch = _Watch(self, others)
                    while not done.has_ready():
                        self._check()
                        watch.check()
                        with done.thread_condition:
                            done.thread_condition.wait(timeout=0.1)
                    future, value = next(done)
                    # Of one that was cancelled, Dask gives an error for its value.
                    if future.status != "finished":
                        raise self._lost()
                yield names[future.key], value
        except KilledWorker as error:
            raise KilledError(error.task, error.allowed_failures + 1) from error
        finally:
            # Else it would wait for a scheduler that is gone.
            if self.connected:
                with contextlib.suppress(StoreError), self.reached():
                    self.client.cancel(futures)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call it on each worker."""
        with self.reached():
            values: dict[str, Any] = self.client.run(function, *arguments, on_error="return")
        return values

    @property
    def connected(self) -> bool:
        """Whether the scheduler is there; once lost, what was asked of it is lost too."""
        comm = self.client.scheduler_comm
        return self.client.status == "running" and comm is not None and not comm.closed()

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Say in one sentence that the scheduler is gone, in whichever of Dask's words it shows."""
        from distributed import CancelledError
        from distributed.client import ClosedClientError
        from distributed.comm.core import CommClosedError

        try:
            self._check()
            yield
        except ZonalError:
            raise
        except Exception as error:
            lost = isinstance(error, (CommClosedError, CancelledError, ClosedClientError))
            if self.connected and not lost:
                raise
            raise self._lost() from error

    def _check(self) -> None:
        if not self.connected:
            raise self._lost()

    def _lost(self) -> StoreError:
        hush()
        return StoreError(
            f"the connection to the Dask scheduler {self.address or 'of this process'} was lost; "
            "finished parts are kept: the same command goes on where it stopped"
        )


def hush() -> None:
    """Keep Dask's client quiet: it tries to come back to a scheduler that is gone, in vain and at length."""
    import distributed  # noqa: F401, sets these levels when it is loaded

    for name in ("distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def unhandled() -> None:
    """Have what Dask logs in this process go where all else goes that is logged."""
    import distributed  # noqa: F401, gives them handlers of their own when it is loaded

    for name in ("distributed", "bokeh", "tornado"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


class _Watch:
    """Looks now and then, while nothing comes, whether a worker (or one of `only` these) is left."""

    def __init__(self, cluster: Distributed, only: Collection[str]) -> None:
        self.cluster = cluster
        self.only = {*only}
        self.seen = self.looked = time.monotonic()

    def check(self) -> None:
        """Raise StoreError if there was no worker, or no answer, for as long as `patience`."""
        now = time.monotonic()
        if now < self.looked + 1:
            return
        self.looked = now
        client = self.cluster.client
        with contextlib.suppress(TimeoutError):
            workers = {*client.sync(client.scheduler.ncores, callback_timeout=10)}
            if workers & self.only if self.only else workers:
                self.seen = now
        if now - self.seen > self.cluster.patience:
            raise StoreError(
                f"the Dask cluster {self.cluster.address or 'of this process'} has had no worker for "
                f"{now - self.seen:.0f} s; finished parts are kept: the same command goes on where it stopped"
            )
