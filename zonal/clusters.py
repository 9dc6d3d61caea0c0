"""Where tasks run: workers of this machine, a cluster at an address, pods made for the run, or this process.

Knows Dask clients; knows nothing of the tasks. All give `Runner`, and all give
the same values.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from zonal import daskcluster
from zonal.errors import InputError, StoreError, ZonalError, first_line
from zonal.events import Event, Notify, quiet, telling
from zonal.local import DASHBOARD, local_cluster

if TYPE_CHECKING:
    from zonal.settings import Settings


PATIENCE = 300.0
"""Seconds that a cluster without workers is waited for, unless told otherwise."""


PASSING = 10.0
"""Seconds after which what keeps pods from running is worth telling: most of it passes."""


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
        with self._reached():
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        threads = sum(worker["nthreads"] for worker in workers)
        return f"Dask workers: {len(workers)}, threads: {threads}, dashboard: {self.client.dashboard_link}"

    @property
    def threads(self) -> int:
        """Of all workers."""
        with self._reached():
            return sum(self.client.nthreads().values())

    def count(self) -> int:
        """How many workers there are."""
        with self._reached():
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
        with self._reached(), quiet:
            others = sorted({*self.client.nthreads()} - {*avoid}) if avoid else []
            # Not only preferred: an idle worker would steal what it should be spared.
            futures = self.client.get(graph, list(keys), sync=False, workers=others or None)
        names = dict(zip((future.key for future in futures), keys, strict=True))
        done = as_completed(futures, with_results=True, loop=self.client.loop)
        try:
            while not done.is_empty():
                with self._reached():
                    # Dask's own wait would go on for ever where the scheduler or all workers went away.
                    watch = _Watch(self, others)
                    while not done.has_ready():
                        self._check()
                        watch.check()
                        with done.thread_condition:
                            done.thread_condition.wait(timeout=0.1)
                    future, value = next(done)
                    if future.status != "finished":  # cancelled: Dask gives an error for its value
                        raise self._lost()
                yield names[future.key], value
        except KilledWorker as error:
            raise KilledError(error.task, error.allowed_failures + 1) from error
        finally:
            if self.connected:  # else it would wait for a scheduler that is gone
                with contextlib.suppress(StoreError), self._reached():
                    self.client.cancel(futures)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call it on each worker."""
        with self._reached():
            found: dict[str, Any] = self.client.run(function, *arguments, on_error="return")
        return found

    @property
    def connected(self) -> bool:
        """Whether the scheduler is there; once lost, what was asked of it is lost too."""
        comm = self.client.scheduler_comm
        return self.client.status == "running" and comm is not None and not comm.closed()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
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
        _hush()
        return StoreError(
            f"the connection to the Dask scheduler {self.address or 'of this process'} was lost; "
            "finished parts are kept: the same command goes on where it stopped"
        )


def _hush() -> None:
    """Keep Dask's client quiet: it tries to come back to a scheduler that is gone, in vain and at length."""
    for name in ("distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


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


class _Elsewhere:
    """A `Runner` that stands for another, which is found when it is needed."""

    def _runner(self) -> Runner:
        raise NotImplementedError

    @property
    def described(self) -> str:
        """Where the tasks run."""
        return self._runner().described

    @property
    def threads(self) -> int:
        """Of its workers."""
        return self._runner().threads

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        """Run there."""
        return self._runner().run(graph, keys, avoid)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call there."""
        return self._runner().everywhere(function, *arguments)


class Starting(_Elsewhere):
    """A cluster that comes up in the background of a `with`; whoever first needs it waits for it.

    Who leaves before that does not: the cluster goes as soon as it is up, or with the process.

    Parameters
    ----------
    address, workers, threads, dashboard, patience
        As for `connect`, whose errors the first use raises.
    """

    def __init__(
        self,
        address: str,
        workers: int | None,
        threads: int | None,
        dashboard: str = DASHBOARD,
        patience: float = PATIENCE,
    ) -> None:
        self._coming: Future[Runner] = Future()
        self._left = threading.Event()
        self._thread = threading.Thread(
            target=self._live,
            args=(address, workers, threads, dashboard, patience),
            name="zonal-cluster",
            daemon=True,
        )
        self._thread.start()

    def _live(self, *words: Any) -> None:
        try:
            with connect(*words) as runner:
                self._coming.set_result(runner)
                self._left.wait()
        except BaseException as error:
            if self._coming.done():
                raise
            self._coming.set_exception(error)

    def __enter__(self) -> Starting:
        return self

    def __exit__(self, *error: Any) -> None:
        self._left.set()
        if self._coming.done():
            self._thread.join()

    def _runner(self) -> Runner:
        return self._coming.result()


class Late(_Elsewhere):
    """A cluster that is made in a `with` when it is first needed, and else not at all.

    Parameters
    ----------
    make : callable
        Gives the context in which it exists.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Runner]]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._made: Runner | None = None

    def __enter__(self) -> Late:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)  # none of its contexts swallows an error

    def _runner(self) -> Runner:
        if self._made is None:
            self._made = self._stack.enter_context(self._make())
        return self._made


def place_of(settings: Settings, notify: Notify = quiet) -> AbstractContextManager[Runner]:
    """Return where the settings have tasks run, as a context in which it can be used.

    That is the active Dask client where they say nothing and there is one. What is of this machine or exists
    already is started or looked for at once. Pods cost money: they are asked for when there is something for
    them to do.

    Raises
    ------
    UsageError
        If the client of Kubernetes is needed and not installed.
    InputError
        If the active client's cluster has other versions than this process.
    """
    if "cluster" not in settings.model_fields_set and (found := active()):
        return contextlib.nullcontext(found)
    if settings.cluster != "kubernetes":
        local = settings.workers, settings.threads, settings.dashboard
        return Starting(settings.cluster, *local, settings.patience)
    daskcluster.require()
    return Late(lambda: _on_kubernetes(settings, notify))


@contextlib.contextmanager
def _on_kubernetes(settings: Settings, notify: Notify) -> Iterator[Runner]:
    """Have pods, and enough of them, for as long as a `with` lasts."""
    _hush()
    tell = telling(notify)
    seen: dict[str, float] = {}

    def warn(text: str) -> None:
        notify(Event("warning", text))

    with daskcluster.asked(settings.cluster_template, settings.workers, tell, warn) as pods:
        until = time.monotonic() + settings.patience

        def wait(what: str) -> None:
            """Tell what stays in the way, once each; raise StoreError when it took too long."""
            troubles = pods.troubles()
            for trouble in troubles:
                since = seen.setdefault(trouble, time.monotonic())
                if time.monotonic() - since > PASSING:
                    seen[trouble] = math.inf
                    tell(trouble)
            if time.monotonic() > until:
                because = f": {troubles[0]}" if troubles else ""
                raise StoreError(f"{pods} has {what} after {settings.patience:g} s{because}")
            time.sleep(daskcluster.LOOK)

        while (address := pods.address()) is None:
            wait("no scheduler")
        while True:
            try:
                client = _client(address, timeout=5)
                break
            except InputError:  # its service is there before it is
                wait("no scheduler that answers")
        with _closing(Distributed(client, address, settings.patience)) as found:
            while (there := found.count()) < settings.min_workers:
                wait(f"{there} of {settings.min_workers} workers")
            _check_versions(found)
            try:
                yield found
            except StoreError:
                try:
                    for trouble in pods.troubles():
                        warn(trouble)
                except ZonalError as error:  # that the cluster is gone, say
                    warn(str(error))
                raise


@contextlib.contextmanager
def connect(
    address: str,
    workers: int | None,
    threads: int | None,
    dashboard: str = DASHBOARD,
    patience: float = PATIENCE,
) -> Iterator[Runner]:
    """Start workers on this machine, or find a scheduler at an address.

    Parameters
    ----------
    address : str
        ``local``, ``tcp://host:port`` or ``tls://host:port``.
    workers, threads : int or None
        Processes and threads a process, for ``local``.
    dashboard : str
        ``host:port`` to listen on, for ``local``.
    patience : float
        Seconds to wait for workers when all are gone.

    Raises
    ------
    InputError
        If no scheduler answers, or it has no workers, or certificates are wanted for it.
    """
    from distributed import Client

    _hush()
    if address != "local":
        with _closing(Distributed(_client(address, timeout=20), address, patience)) as found:
            try:
                with found._reached():
                    found.client.wait_for_workers(1, timeout=60)
            except TimeoutError:
                raise InputError(f"the scheduler at {address} has no workers") from None
            _check_versions(found)
            yield found
        return
    with (
        local_cluster(workers, threads, dashboard) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Distributed(client, patience=patience)


def _client(address: str, timeout: float) -> Any:
    """Reach a scheduler.

    Raises
    ------
    InputError
        If none answers in so many seconds, or certificates are wanted for it.
    """
    from distributed import Client, Security

    files = "distributed.comm.tls.ca-file, client.cert and client.key in Dask's configuration"
    try:
        certificates = Security().get_connection_args("client")["ssl_context"]
    except OSError as error:
        raise InputError(f"{address}: no certificates in {files}: {first_line(error)}") from None
    # Dask would try for as long as it waits for a scheduler, and end with a TypeError.
    if address.startswith("tls://") and not certificates:
        raise InputError(f"{address}: no certificates to reach it with; set {files}")
    try:
        return Client(address, timeout=timeout, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        cause = first_line(error).rpartition(">: ")[2]  # without the name of the closed connection
        raise InputError(f"no Dask scheduler answers at {address}: {cause}") from None


@contextlib.contextmanager
def _closing(found: Distributed) -> Iterator[Distributed]:
    """Close a client at the end; one whose scheduler is gone would wait for it."""
    try:
        yield found
    finally:
        if found.connected:
            found.client.close()
        else:
            with contextlib.suppress(TimeoutError):
                found.client.close(timeout=2)


SAME = ("zonal", "dask", "distributed", "numpy", "numba", "pyarrow")
"""Packages that driver, scheduler and workers must have in one version: what they tell each other depends on
it, and the last digit of what they compute."""


def _check_versions(found: Distributed) -> None:
    """Find who has another version, or none, before anything with storage options in it is sent there.

    What cannot be unpickled is shown in Dask's logs, byte by byte.
    """
    _check_same(found, "Python", platform.python_version)
    for name in SAME:
        _check_same(found, name, version, name)


def _check_same(found: Distributed, name: str, ask: Callable[..., str], *words: str) -> None:
    """Ask this process, the scheduler and the workers the same; InputError where one answers otherwise."""
    mine = ask(*words)
    theirs: dict[str, Any] = {}
    with found._reached():
        try:
            theirs["the scheduler"] = found.client.run_on_scheduler(ask, *words)
        except PackageNotFoundError as error:
            theirs["the scheduler"] = error
        for worker, other in found.client.run(ask, *words, on_error="return").items():
            if not isinstance(other, OSError):  # it ended meanwhile: others do the work
                theirs[f"worker {worker}"] = other
    for who, other in theirs.items():
        if other != mine:
            has = f"no {name}" if isinstance(other, PackageNotFoundError) else f"{name} {other}"
            raise InputError(f"{who} of the cluster at {found.address} has {has}, this process {name} {mine}")


def active() -> Runner | None:
    """Return the Dask client that this process already has, if any.

    Raises
    ------
    InputError
        If its cluster has other versions than this process.
    """
    if "distributed" not in sys.modules:  # whoever has a client has loaded it, and it takes its time
        return None
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        return None
    found = Distributed(client, client.scheduler_info(n_workers=0)["address"])
    _check_versions(found)
    return found
