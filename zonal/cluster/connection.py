"""Where tasks run: workers of this machine, a cluster at an address, pods made for the run.

Knows how each is started or found, checked and left; what runs there is a `Runner`.
"""

from __future__ import annotations

import contextlib
import platform
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from zonal.cluster import kubeapi, pods
from zonal.cluster.kubeapi import CLOCK, Clock
from zonal.cluster.local import DASHBOARD, default_workers, fork_from_a_server, local_cluster
from zonal.cluster.runner import PATIENCE, Distributed, Runner, Threads, hush
from zonal.errors import InputError, StoreError, ZonalError, first_line
from zonal.events import Event, Notify, quiet, telling

if TYPE_CHECKING:
    from zonal.config.settings import Settings


LISTENING = 5.0
"""Seconds for a scheduler's answer while it may not be up."""


class _Elsewhere(ABC):
    """A `Runner` that stands for another, which is found when it is needed."""

    @abstractmethod
    def _runner(self) -> Runner:
        """Find it."""

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
    address, workers, threads, dashboard, patience, preload
        As for `connect`, whose errors the first use raises.
    """

    def __init__(
        self,
        address: str,
        workers: int | None,
        threads: int | None,
        dashboard: str = DASHBOARD,
        patience: float = PATIENCE,
        preload: str | None = None,
    ) -> None:
        self._coming: Future[Runner] = Future()
        self._left = threading.Event()
        self._thread = threading.Thread(
            target=self._live,
            args=(address, workers, threads, dashboard, patience, preload),
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


def place_of(
    settings: Settings,
    notify: Notify = quiet,
    *,
    preload: str | None = None,
    forked: str | None = None,
    in_process: bool = False,
) -> AbstractContextManager[Runner]:
    """Decide where tasks run, as a context in which it can be used.

    That is the active Dask client where the settings say nothing and there is one. What is of this machine or
    exists already is started or looked for at once. Pods cost money: they are asked for when there is
    something for them to do.

    Parameters
    ----------
    settings : Settings
    notify : callable
        Told of pods.
    preload : str, optional
        Module that workers of this machine load before their first task.
    forked : str, optional
        Module that a process loads of which workers of this machine are forks: for a process that is zonal's
        own, early in its life.
    in_process : bool
        Where nothing says otherwise, threads of this process rather than workers.

    Raises
    ------
    UsageError
        If the client of Kubernetes is needed and not installed.
    InputError
        If the template of pods cannot be read, or the active client's cluster has other versions than this
        process.
    """
    if not {"cluster", "workers", "threads", "dashboard"} & settings.model_fields_set:
        client = active(settings.patience)
        if client is not None:
            return contextlib.nullcontext(client)
        if in_process:
            return contextlib.nullcontext(Threads(default_workers(1, None)[1]))
    if settings.cluster != "kubernetes":
        if settings.cluster == "local" and forked is not None:
            fork_from_a_server(forked)
        local = settings.workers, settings.threads, settings.dashboard
        return Starting(settings.cluster, *local, settings.patience, preload)
    kubeapi.require()
    template = pods.load_template(settings.cluster_template)
    return Late(lambda: on_kubernetes(settings, template, notify))


@contextlib.contextmanager
def on_kubernetes(
    settings: Settings, template: dict[str, Any], notify: Notify = quiet, clock: Clock = CLOCK
) -> Iterator[Runner]:
    """Have pods, and enough of them, for as long as a `with` lasts.

    Parameters
    ----------
    settings : Settings
        How many, and for how long they are waited for.
    template : dict
        As `pods.load_template` returns it.
    notify : callable
        Told what comes, goes and stays in the way.
    clock : Clock

    Raises
    ------
    InputError
        If the API or the operator refuses the cluster, or it has other versions than this process.
    StoreError
        If the API does not answer, or too few workers came.
    """
    hush()
    tell = telling(notify)

    def warn(text: str) -> None:
        notify(Event("warning", text))

    with pods.requested(template, settings.workers, settings.min_workers, tell, warn, clock) as cluster:
        startup = pods.Startup(cluster, settings.patience, tell, clock)
        while (address := cluster.address()) is None:
            startup.wait("no scheduler")
        # Its service is there before it is.
        while (client := _answering(address)) is None:
            startup.wait("no scheduler that answers")
        with _closing(Distributed(client, address, settings.patience)) as runner:
            while (count := runner.count()) < settings.min_workers:
                startup.wait(f"{count} of {settings.min_workers} workers")
            _check_versions(runner)
            try:
                yield runner
            except StoreError:
                try:
                    for trouble in cluster.troubles():
                        warn(trouble)
                # That the cluster is gone, say.
                except ZonalError as error:
                    warn(str(error))
                raise


@contextlib.contextmanager
def connect(
    address: str,
    workers: int | None,
    threads: int | None,
    dashboard: str = DASHBOARD,
    patience: float = PATIENCE,
    preload: str | None = None,
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
    preload : str, optional
        Module that workers load first, for ``local``.

    Raises
    ------
    InputError
        If no scheduler answers, or it has no workers, or certificates are wanted for it.
    """
    from distributed import Client

    hush()
    if address != "local":
        with _closing(Distributed(_client(address, timeout=20), address, patience)) as runner:
            _check_workers(runner, 60)
            yield runner
        return
    with (
        local_cluster(workers, threads, dashboard, preload) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield Distributed(client, patience=patience)


def _answering(address: str) -> Any | None:
    """Return the client of a scheduler, or None while none answers."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    # A client of Dask that fails leaves a thread behind: none is made before somebody listens.
    with contextlib.suppress(OSError, InputError):
        socket.create_connection((host.strip("[]"), int(port)), timeout=LISTENING).close()
        return _client(address, timeout=LISTENING)
    return None


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
        # Without the name of the closed connection.
        cause = first_line(error).rpartition(">: ")[2]
        raise InputError(f"no Dask scheduler answers at {address}: {cause}") from None


@contextlib.contextmanager
def _closing(runner: Distributed) -> Iterator[Distributed]:
    """Close a client at the end; one whose scheduler is gone would wait for it."""
    try:
        yield runner
    finally:
        if runner.connected:
            runner.client.close()
        else:
            with contextlib.suppress(TimeoutError):
                runner.client.close(timeout=2)


SAME = ("zonal", "dask", "distributed", "numpy", "numba", "pyarrow")
"""Packages that driver, scheduler and workers must have in one version: what they tell each other depends on
it, and the last digit of what they compute."""


def _check_workers(runner: Distributed, seconds: float) -> None:
    """Wait for a worker, and compare versions; InputError if none comes, or one differs."""
    try:
        with runner.reached():
            runner.client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise InputError(f"the scheduler at {runner.address} has no workers") from None
    _check_versions(runner)


def _check_versions(runner: Distributed) -> None:
    """Find who has another version, or none, before anything with storage options in it is sent there.

    What cannot be unpickled is shown in Dask's logs, byte by byte.
    """
    _check_same(runner, "Python", platform.python_version)
    for name in SAME:
        _check_same(runner, name, version, name)


def _check_same(runner: Distributed, name: str, ask: Callable[..., str], *words: str) -> None:
    """Ask this process, the scheduler and the workers the same; InputError where one answers otherwise."""
    mine = ask(*words)
    theirs: dict[str, Any] = {}
    with runner.reached():
        try:
            theirs["the scheduler"] = runner.client.run_on_scheduler(ask, *words)
        except PackageNotFoundError as error:
            theirs["the scheduler"] = error
        for worker, other in runner.client.run(ask, *words, on_error="return").items():
            # A worker that ended meanwhile: others do the work.
            if not isinstance(other, OSError):
                theirs[f"worker {worker}"] = other
    for who, other in theirs.items():
        if other != mine:
            has = f"no {name}" if isinstance(other, PackageNotFoundError) else f"{name} {other}"
            raise InputError(
                f"{who} of the cluster at {runner.address} has {has}, this process {name} {mine}"
            )


def active(patience: float = PATIENCE) -> Runner | None:
    """Return the Dask client that this process already has, if any, with a worker or more.

    Parameters
    ----------
    patience : float
        Seconds to wait for workers: now, and when all are gone.

    Raises
    ------
    InputError
        If its cluster gets no worker, or has other versions than this process.
    """
    if "distributed" not in sys.modules:  # whoever has a client has loaded it, and it takes its time
        return None
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        return None
    found = Distributed(client, client.scheduler_info(n_workers=0)["address"], patience)
    _check_workers(found, patience)
    return found
