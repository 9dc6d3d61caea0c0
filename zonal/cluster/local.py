"""Workers of this machine: how many there are, what they start from, what they are given; their dashboard.

Knows operating system and Dask's local cluster; knows no task and no client.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zonal.errors import UsageError

if TYPE_CHECKING:
    from distributed import LocalCluster

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""Environment of workers. Dask's own has glibc give back all memory over 64 KB at once; every array of every
chunk is then made of fresh pages, which costs a tenth of the time."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""As Dask sets it for its workers: theirs are the threads."""

SHARE = 0.75
"""Of the memory that this process may use (a container's limit counts), what all workers get together; the
rest is the driver's, which stages zones, draws and evaluates."""

DASHBOARD = "127.0.0.1:0"
"""Loopback only, on a free port: two runs on one machine do not meet."""

METHOD = "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"


def default_workers(workers: int | None, threads: int | None) -> tuple[int, int]:
    """Choose processes, and threads a process, where the settings leave them open: four threads share one."""
    from dask.system import cpu_count

    # Of a container, what its quota allows.
    cores = max(1, int(cpu_count()))
    if workers is None:
        workers = max(1, cores // (threads or min(cores, 4)))
    return workers, threads or max(1, cores // workers)


def fork_from_a_server(loads: str) -> None:
    """Have one process load what workers need, from now on, and have workers be forks of it.

    Parameters
    ----------
    loads : str
        Module that it imports.

    It loads while this process does, and before there is a scheduler; each worker is then there at
    once. For a process that is zonal's own, early in its life: the server of forks
    (`multiprocessing.forkserver`) is one for all of a process, and stays until its end.
    """
    # Elsewhere, system libraries do not bear to be forked; there, each worker loads for itself.
    if sys.platform != "linux" or os.environ.setdefault(METHOD, "forkserver") != "forkserver":
        return
    from multiprocessing import forkserver

    added = {name: value for name, value in (ALLOCATOR | ONE_THREAD).items() if name not in os.environ}
    os.environ.update(added)
    try:
        forkserver.set_forkserver_preload([loads])
        forkserver.ensure_running()
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def local_cluster(
    workers: int | None, threads: int | None, dashboard: str = DASHBOARD, preload: str | None = None
) -> Iterator[LocalCluster]:
    """Start workers on this machine, as many as asked for or as `default_workers` says.

    They and the scheduler listen on loopback only, whatever `dashboard` (``host:port``) says of the
    dashboard. Each loads the module `preload` before its first task.

    Raises
    ------
    UsageError
        If nothing can listen on `dashboard`.
    """
    import dask
    from distributed import LocalCluster

    processes, per_process = default_workers(workers, threads)
    preloads = dask.config.get("distributed.worker.preload")
    preloads = [preloads] if isinstance(preloads, str) else preloads
    config = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ALLOCATOR.items()}
    host = _listening_host(dashboard)
    if host not in ("127.0.0.1", "0.0.0.0"):
        # Dask would print the scheduler's host.
        config["distributed.dashboard.link"] = f"{{scheme}}://{host}:{{port}}/status"
    with (
        dask.config.set(config),
        LocalCluster(
            n_workers=processes,
            threads_per_worker=per_process,
            memory_limit=SHARE / processes,
            processes=True,
            host="127.0.0.1",
            dashboard_address=dashboard,
            # Attached below.
            scheduler_kwargs={"dashboard": False},
            # What goes wrong in a task comes back as its error; the rest is noise of workers being closed.
            silence_logs=logging.CRITICAL,
            preload=[*preloads, *filter(None, (preload,))],
        ) as cluster,
    ):
        _attach_dashboard(cluster.scheduler)
        yield cluster


def _attach_dashboard(scheduler: Any) -> None:
    """Give a scheduler a dashboard that is loaded with the first request that nobody else answers.

    Its libraries take half a second of every start, and most runs nobody watches.
    """
    from tornado import web

    application = scheduler.http_application

    class Late(web.Application):
        def find_handler(self, request: Any, **more: Any) -> Any:
            from distributed.dashboard.scheduler import connect

            application.applications.remove(self)
            connect(application, scheduler.http_server, scheduler)
            return application.find_handler(request, **more)

    application.add_application(Late())


def _listening_host(place: str) -> str:
    """Return the host of ``host:port``, where a server can listen: Dask would take another port, or fail."""
    host, _, port = place.rpartition(":")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError as error:
        raise UsageError(
            f"dashboard {place}: cannot listen there: {error.strerror}; choose another"
        ) from None
    return host
